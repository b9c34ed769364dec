import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { freePort, type Part, startNginx } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

/** What an upstream was asked, as it came in. */
interface Seen {
  readonly upstream: string;
  readonly url: string | undefined;
  readonly headers: IncomingMessage['headers'];
  readonly bodyBytes: number;
}

describeWith(['nginx'], 'the gateway', () => {
  let api: Server;
  let livekit: Server;
  let nginx: Part;
  let port: number;
  let folder: string;

  beforeAll(async () => {
    api = await upstream('api');
    livekit = await upstream('livekit');
    port = await freePort();
    folder = mkdtempSync(join(tmpdir(), 'gateway-'));
    nginx = await startNginx({
      configFile: fileURLToPath(new URL('../../deploy/nginx/gateway.conf', import.meta.url)),
      port,
      replacements: {
        'listen 8080': `listen 127.0.0.1:${port}`,
        'api:8080': address(api),
        'livekit:7880': address(livekit),
        '/dev/stdout': join(folder, 'access.log'),
      },
    });
  });
  afterAll(async () => {
    await nginx.stop();
    api.close();
    livekit.close();
    rmSync(folder, { recursive: true });
  });

  /** Through the gateway, path and headers byte for byte: `fetch` would tidy them up. */
  async function ask(path: string, options: { headers?: Record<string, string>; body?: string } = {}) {
    const { headers = {}, body } = options;
    const asked = request({ host: '127.0.0.1', port, path, headers, method: body === undefined ? 'GET' : 'POST' });
    asked.end(body);
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    const answer = await text(response);
    return {
      status: response.statusCode,
      seen: response.statusCode === 200 ? (JSON.parse(answer) as Seen) : undefined,
    };
  }

  describe('open to', () => {
    test.each([
      '/api/realtime/rooms/standup/join',
      '/api/realtime/rooms/a%2Fb/join?x=1',
      '/api/realtime/events',
      '/api/realtime/oidc/backchannel-logout',
    ])('the api at %s', async (path) => {
      expect(await ask(path)).toMatchObject({ status: 200, seen: { upstream: 'api', url: path } });
    });

    test.each(['/rtc', '/rtc?access_token=a.b.c', '/rtc/validate?access_token=a.b.c', '/rtc/v1', '/rtc/v1/validate'])(
      'LiveKit at %s',
      async (path) => {
        expect(await ask(path)).toMatchObject({ status: 200, seen: { upstream: 'livekit', url: path } });
      },
    );

    test('a token of 20 KiB', async () => {
      const authorization = `Bearer ${'x'.repeat(20_480)}`;
      expect(await ask('/api/realtime/rooms/standup', { headers: { authorization } })).toMatchObject({
        seen: { headers: { authorization } },
      });
    });

    test('more than the api takes, so that the api says so', async () => {
      const body = 'x'.repeat(1_500_000);
      expect(await ask('/api/realtime/events', { body })).toMatchObject({ seen: { bodyBytes: body.length } });
    });
  });

  describe('closed to', () => {
    test.each([
      '/',
      '/metrics',
      '/docs',
      '/explain?room=a&user=b',
      '/webhooks/livekit',
      '/api/realtime',
      '/api/other',
      '/api/realtime/gate',
      '/api/realtime/gate?access_token=a.b.c',
      '/api/realtime//gate',
      '/api/realtime/%67ate',
      '/api/realtime/rooms/../gate',
      '/rtc/',
      '/rtc/v1/',
      '/rtc/v2',
      '/rtcx',
      '/RTC',
      '//rtc',
      '/%72tc',
      '/./rtc',
      '/api/../rtc',
      '/rtc%3Faccess_token=a.b.c',
      '/rtc/validate/x',
      '/whip/v1',
      '/agent',
      '/twirp/livekit.RoomService/ListRooms',
    ])('%s', async (path) => {
      expect(await ask(path)).toEqual({ status: 404, seen: undefined });
    });
  });

  describe('headers', () => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const claims = {
      'x-original-uri': '/rtc?access_token=somebody.elses.token',
      'x-forwarded-for': '10.1.2.3',
      'x-forwarded-host': 'evil.example.com',
      'x-forwarded-proto': 'https',
      'x-real-ip': '10.1.2.3',
      forwarded: 'for=10.1.2.3',
    };

    test.each(['/api/realtime/rooms/standup', '/rtc'])(
      'what a client claims about itself is replaced at %s',
      async (path) => {
        const { seen } = await ask(path, { headers: { ...claims, host: 'meet.example.com' } });
        expect(seen?.headers).toMatchObject({
          host: 'meet.example.com',
          'x-forwarded-for': '127.0.0.1',
          'x-forwarded-host': 'meet.example.com',
          'x-forwarded-proto': 'http',
        });
        for (const header of ['x-original-uri', 'x-real-ip', 'forwarded'])
          expect(seen?.headers).not.toHaveProperty(header);
      },
    );

    test('traces pass', async () => {
      const trace = { traceparent, tracestate: 'a=b', b3: '0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1' };
      expect(await ask('/api/realtime/rooms/standup', { headers: trace })).toMatchObject({ seen: { headers: trace } });
    });
  });

  describe('an upgrade', () => {
    async function upgrade(protocol: string) {
      const headers = { connection: 'Upgrade', upgrade: protocol };
      const asked = request({ host: '127.0.0.1', port, path: '/rtc?access_token=a.b.c', headers });
      asked.end();
      return Promise.race([
        once(asked, 'upgrade').then(async ([response, socket]) => {
          socket.write('ping');
          const [echo] = await once(socket, 'data');
          socket.destroy();
          return `${response.statusCode} ${echo}`;
        }),
        once(asked, 'response').then(([response]) => `${response.statusCode} ${response.headers.upgrade}`),
      ]);
    }

    test('to WebSocket connects client and LiveKit', async () => {
      expect(await upgrade('websocket')).toBe('101 ping');
    });

    test('to anything else is none', async () => {
      expect(await upgrade('h2c')).toBe('200 undefined');
    });
  });

  test('the log names the path and no token', async () => {
    await ask('/rtc?access_token=logged.to.nowhere');
    const log = () => readFileSync(join(folder, 'access.log'), 'utf8');
    await expect.poll(log).toMatch(/GET \/rtc 200/);
    expect(log()).not.toContain('logged.to.nowhere');
  });
});

/** Says what it was asked, and echoes after an upgrade. */
async function upstream(name: string): Promise<Server> {
  const server = createServer({ maxHeaderSize: 32_768 }, (incoming, response) => {
    void text(incoming).then((body) => {
      const { url, headers } = incoming;
      response.end(JSON.stringify({ upstream: name, url, headers, bodyBytes: body.length } satisfies Seen));
    });
  });
  server.on('upgrade', ({ headers }, socket) => {
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${headers.upgrade}\r\n\r\n`);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

function address(server: Server): string {
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}
