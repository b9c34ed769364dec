import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, request, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import {
  freePort,
  type GateProxyName,
  gateProxyNames,
  startGateProxy,
  startGateProxyServer,
} from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

/** What an upstream was asked, as it came in. */
interface Seen {
  readonly upstream: string;
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly bodyBytes: number;
}

const freshAuthorization = 'Bearer fresh.token.here';
/** What the gate gives for a token of many attributes: as long as the api signs any. */
const longAuthorization = `Bearer ${'x'.repeat(4_095)}`;

/** What the gate says of these tokens; of any other it says yes with a fresh token. `hang` is no answer. */
const refusals: Readonly<Record<string, number | 'hang'>> = {
  'no.such.key': 401,
  'is.banned.here': 403,
  'too.many.attempts': 429,
  'no.database.now': 503,
  'in.ternal.error': 500,
  'no.answer.ever': 'hang',
  // As a catch-all page at the gate's address.
  'catch.all.page': 200,
};

const tokenOf = ({ headers }: Seen): string => {
  const { authorization = '', 'x-original-uri': uri = '' } = headers;
  return authorization.replace('Bearer ', '') || (/access_token=([^&]*)/.exec(String(uri))?.[1] ?? '');
};

type StartDoor = (upstreams: { api: string; livekit: string }) => Promise<Door>;
interface Door {
  readonly port: number;
  readonly logFile?: string;
  readonly reload?: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

const doors: readonly { readonly name: string; readonly parts: readonly GateProxyName[]; readonly start: StartDoor }[] =
  [
    ...gateProxyNames.map((name) => ({ name, parts: [name], start: startGateProxy.bind(undefined, name) })),
    {
      name: 'npm start',
      parts: [],
      start: ({ api, livekit }) =>
        startGateProxyServer({ port: 0, apiUrl: `http://${api}`, livekitUrl: `http://${livekit}` }),
    },
  ];

for (const { name, parts, start } of doors) {
  describeWith(parts, `the gate behind ${name}`, () => {
    let api: Server;
    let livekit: Server;
    let proxy: Door;
    /** Asked of the gate. */
    const questions: Seen[] = [];
    /** What LiveKit was sent, upgrades too. */
    const signallings: Seen[] = [];

    beforeAll(async () => {
      api = await startUpstream('api', (seen) => {
        if (seen.url === '/api/realtime/rooms/hangs/join') return 'hang';
        if (seen.url?.startsWith('/api/realtime/gate') !== true) return 200;
        questions.push(seen);
        return refusals[tokenOf(seen)] ?? (seen.url === '/api/realtime/gate' ? 204 : 200);
      });
      livekit = await startUpstream('livekit', (seen) => {
        signallings.push(seen);
        return tokenOf({ ...seen, headers: { 'x-original-uri': seen.url } }) === 'livekit.ends.now' ? 'end' : 200;
      });
      proxy = await start({ api: addressOf(api), livekit: addressOf(livekit) });
    });
    afterAll(async () => {
      await proxy?.stop();
      for (const server of [api, livekit]) server.closeAllConnections();
      for (const server of [api, livekit]) server.close();
    });
    beforeEach(() => {
      for (const asked of [questions, signallings]) asked.splice(0);
    });

    /** Through the proxy, path and headers byte for byte: `fetch` would tidy them up. */
    async function ask(path: string, options: { headers?: Record<string, string>; body?: string } = {}) {
      const { headers = {}, body } = options;
      const method = body === undefined ? 'GET' : 'POST';
      const asked = request({ host: '127.0.0.1', port: proxy.port, path, headers, method, agent: false });
      asked.end(body);
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      const answer = await text(response);
      const seen = response.statusCode === 200 ? (JSON.parse(answer) as Seen) : undefined;
      const { 'access-control-allow-origin': allowOrigin, 'retry-after': retryAfter } = response.headers;
      return { status: response.statusCode, seen, allowOrigin, retryAfter };
    }

    describe('open to LiveKit', () => {
      test.each([
        '/rtc',
        '/rtc?access_token=a.b.c',
        '/rtc/validate?access_token=a.b.c&x=%2F',
        '/rtc/v1',
        '/rtc/v1/validate?',
      ])('at %s, once the gate has said yes', async (path) => {
        const { status, seen, allowOrigin } = await ask(path);
        expect({ status, allowOrigin, seen }).toMatchObject({
          status: 200,
          allowOrigin: '*',
          seen: { upstream: 'livekit', url: path, headers: { authorization: freshAuthorization } },
        });
        expect(questions).toMatchObject([{ method: 'GET', headers: { 'x-original-uri': path } }]);
      });

      test('with a token in the header, which the gate sees and LiveKit does not', async () => {
        const { seen } = await ask('/rtc', { headers: { authorization: 'Bearer a.b.c' } });
        expect(questions[0]?.headers['authorization']).toBe('Bearer a.b.c');
        expect(seen?.headers['authorization']).toBe(freshAuthorization);
      });

      test('with the fresh token, where the client has its Connection header take that away', async () => {
        const { seen } = await ask('/rtc?access_token=a.b.c', { headers: { connection: 'close, Authorization' } });
        expect(seen?.headers['authorization']).toBe(freshAuthorization);
      });

      test('with a fresh token as long as the api signs any', async () => {
        const { status, seen } = await ask('/rtc?access_token=of.many.attributes');
        expect({ status, authorization: seen?.headers['authorization'] }).toEqual({
          status: 200,
          authorization: longAuthorization,
        });
      });

      test('with an offer that the client has not compressed', async () => {
        // Envoy tells the URI twice.
        const offer = 'x'.repeat(name === 'envoy' ? 15_000 : 28_000);
        const path = `/rtc/v1?access_token=a.b.c&join_request=${offer}`;
        expect((await ask(path)).status).toBe(200);
        expect(questions[0]?.headers['x-original-uri']).toBe(path);
      });

      test('with a token of 7 KiB', async () => {
        const path = `/rtc?access_token=${'x'.repeat(7_000)}.b.c`;
        expect((await ask(path)).status).toBe(200);
        expect(questions[0]?.headers['x-original-uri']).toBe(path);
      });
    });

    test.each([
      ['no.such.key', 401],
      ['is.banned.here', 403],
      ['no.database.now', 503],
    ])('a refusal is passed on, and browsers can read it: %s is %i', async (token, status) => {
      expect(await ask(`/rtc?access_token=${token}`)).toMatchObject({ status, allowOrigin: '*' });
      const headers = { authorization: `Bearer ${token}` };
      expect(await ask('/rtc/v1/validate', { headers })).toMatchObject({ status, allowOrigin: '*' });
    });

    test('who tries too often is told so', async () => {
      const { status, allowOrigin, retryAfter } = await ask('/rtc?access_token=too.many.attempts');
      // nginx takes anything but 401 and 403 for an error.
      expect({ status, allowOrigin }).toEqual({ status: name === 'nginx' ? 503 : 429, allowOrigin: '*' });
      // That of npm start passes on the status alone.
      if (parts.length > 0) expect(retryAfter).toBe(name === 'nginx' ? '1' : '7');
    });

    test.each(['in.ternal.error', 'no.answer.ever', 'too.many.attempts'])(
      'nobody passes for want of an answer, and within 3 s: %s',
      async (token) => {
        const startedAtMs = performance.now();
        const { status, allowOrigin, seen } = await ask(`/rtc?access_token=${token}`);
        expect({ allowOrigin, seen }).toEqual({ allowOrigin: '*', seen: undefined });
        expect([429, 500, 503]).toContain(status);
        expect(performance.now() - startedAtMs).toBeLessThan(3_000);
      },
    );

    test.each([
      ['query', '/rtc?access_token=catch.all.page', {}],
      ['header', '/rtc', { authorization: 'Bearer catch.all.page' }],
    ])(
      'an answer of the gate without a fresh token opens nothing: the old one in the %s',
      async (_name, path, headers) => {
        expect(await ask(path, { headers })).toMatchObject({ status: 503, allowOrigin: '*' });
        expect(questions).toHaveLength(1);
        expect(signallings).toEqual([]);
      },
    );

    test('a LiveKit that ends before it answers is one to ask again', async () => {
      const { status, allowOrigin, retryAfter } = await ask('/rtc?access_token=livekit.ends.now');
      expect(signallings).not.toEqual([]);
      expect({ status, allowOrigin }).toEqual({ status: 503, allowOrigin: '*' });
      // That of npm start passes on the status alone.
      if (parts.length > 0) expect(retryAfter).toBe('1');
    });

    describe('closed to', () => {
      test.each([
        '/',
        '/metrics',
        '/docs',
        '/webhooks/livekit',
        '/api/realtime',
        '/api/other',
        '/api/realtime/gate',
        '/api/realtime/gate?access_token=a.b.c',
        '/api/realtime/gate/rtc?access_token=a.b.c',
        '/api/realtime//gate',
        '/api/realtime/%67ate',
        '/api/realtime/rooms/../gate',
        '/_gate',
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
        '/rtc%00',
        '/rtc/validate/x',
        '/whip/v1',
        '/agent',
        '/twirp/livekit.RoomService/ListRooms',
      ])('%s', async (path) => {
        const { status, seen } = await ask(path);
        expect(seen).toBeUndefined();
        expect([400, 404]).toContain(status);
        expect(questions).toEqual([]);
      });
    });

    const claims = {
      'x-original-uri': '/rtc?access_token=somebody.elses.token',
      'x-forwarded-for': '10.1.2.3',
      'x-forwarded-host': 'evil.example.com',
      'x-forwarded-proto': 'https',
      'x-real-ip': '10.1.2.3',
      forwarded: 'for=10.1.2.3',
    };

    test('what a client claims about itself reaches neither gate nor LiveKit', async () => {
      const { seen } = await ask('/rtc?access_token=a.b.c', { headers: { ...claims, host: 'meet.example.com' } });
      expect(questions[0]?.headers).toMatchObject({
        'x-original-uri': '/rtc?access_token=a.b.c',
        'x-forwarded-for': '127.0.0.1',
      });
      for (const { headers } of [questions[0], seen].filter((one) => one !== undefined))
        expect(JSON.stringify(headers)).not.toMatch(/10\.1\.2\.3|somebody/);
    });

    test('traces pass to the gate', async () => {
      const trace = {
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        tracestate: 'a=b',
        b3: '0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1',
      };
      await ask('/rtc?access_token=a.b.c', { headers: trace });
      expect(questions[0]?.headers).toMatchObject(trace);
    });

    const handshake = {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    };

    // LiveKit reads a form as it reads the query, and the gate sees no body.
    describe.each([
      ['GET', 'multipart/form-data; boundary=b', { 'content-length': '61' }],
      ['GET', 'multipart/form-data; boundary=b', { 'transfer-encoding': 'chunked' }],
      ['POST', 'multipart/form-data; boundary=b', { 'content-length': '61' }],
      ['POST', 'application/x-www-form-urlencoded', { 'transfer-encoding': 'chunked' }],
    ])('%s with a body that is %s, %o', (method, type, framing) => {
      const multipart = '--b\r\nContent-Disposition: form-data; name=publish\r\n\r\nx\r\n--b--';
      const form = type.startsWith('multipart') ? multipart : 'publish=x';

      test.each([
        ['plain', {}],
        ['to WebSocket', handshake],
      ])('brings LiveKit no form: %s', async (_name, upgrade) => {
        const headers = { ...upgrade, ...framing, 'content-type': type };
        const path = '/rtc?access_token=a.b.c';
        const asked = request({ host: '127.0.0.1', port: proxy.port, path, headers, method, agent: false });
        asked.end(form);
        asked.on('upgrade', (_response, socket) => socket.destroy());
        const [response] = await Promise.race(['response', 'upgrade'].map((event) => once(asked, event)));
        asked.destroy();
        // That of npm start takes an upgrade itself, before it asks LiveKit.
        const isTaken = parts.length === 0 && response.statusCode === 101;
        if (signallings.length === 0 && !isTaken) expect(response.statusCode).toBeGreaterThanOrEqual(400);
        for (const seen of signallings) expect(seen.headers).not.toHaveProperty('content-type');
      });
    });

    // Else somebody who is removed meanwhile comes in by it, by sending the rest.
    test.each([{ 'content-length': '61' }, { 'transfer-encoding': 'chunked' }])(
      'a yes waits for no body: %o',
      async (framing) => {
        const reached = ['request', 'upgrade'].map((event) => once(livekit, event));
        const headers = { ...handshake, ...framing };
        const path = '/rtc?access_token=a.b.c';
        const asked = request({ host: '127.0.0.1', port: proxy.port, path, headers, agent: false });
        // What is cut off here, or by a proxy, is no fault.
        asked.on('error', () => undefined);
        asked.on('upgrade', (_response, socket) => socket.on('error', () => undefined).destroy());
        asked.flushHeaders();
        await Promise.race([...reached, once(asked, 'upgrade'), once(asked, 'response')]);
        asked.destroy();
      },
    );

    describe('an upgrade', () => {
      async function upgrade(token: string) {
        const path = `/rtc?access_token=${token}`;
        const asked = request({ host: '127.0.0.1', port: proxy.port, path, headers: handshake, agent: false });
        asked.end();
        return Promise.race([
          once(asked, 'upgrade').then(async ([response, socket]) => {
            const echo = await echoOf(socket, 'ping');
            socket.destroy();
            return `${response.statusCode} ${echo}`;
          }),
          once(asked, 'response').then(([response]) => {
            response.resume();
            return `${response.statusCode}`;
          }),
        ]);
      }

      // That of npm start speaks WebSocket itself; the demo's own test opens one.
      test.skipIf(parts.length === 0)(
        'to WebSocket connects client and LiveKit, and the question is a plain one',
        async () => {
          expect(await upgrade('a.b.c')).toBe('101 ping');
          expect(questions).toMatchObject([{ method: 'GET' }]);
          expect(questions[0]?.headers['upgrade']).toBeUndefined();
        },
      );

      // nginx has a limit of its own, which the file cannot set.
      test.skipIf(parts.length === 0 || name === 'nginx')('is possible for more than a thousand at once', async () => {
        const sockets: Socket[] = [];
        for (let left = 1_100; left > 0; left -= 50) {
          const asking = Array.from({ length: 50 }, async () => {
            const path = '/rtc?access_token=a.b.c';
            const asked = request({ host: '127.0.0.1', port: proxy.port, path, headers: handshake, agent: false });
            asked.end();
            const [, socket] = (await once(asked, 'upgrade')) as [IncomingMessage, Socket];
            sockets.push(socket.on('error', () => undefined));
          });
          await Promise.all(asking);
        }
        expect(sockets).toHaveLength(1_100);
        for (const socket of sockets) socket.destroy();
      });

      test.skipIf(name !== 'caddy')('outlives a reload of the file', async () => {
        const path = '/rtc?access_token=a.b.c';
        const asked = request({ host: '127.0.0.1', port: proxy.port, path, headers: handshake, agent: false });
        asked.end();
        const [, socket] = (await once(asked, 'upgrade')) as [IncomingMessage, Socket];
        expect(await echoOf(socket, 'before')).toBe('before');
        await proxy.reload?.();
        expect(await ask(path)).toMatchObject({ status: 200 });
        expect(await echoOf(socket, 'after')).toBe('after');
        socket.destroy();
      });

      test('is refused with the token', async () => {
        expect(await upgrade('is.banned.here')).toBe('403');
      });

      test('is refused where the gate gave no fresh token', async () => {
        expect(await upgrade('catch.all.page')).toBe('503');
      });
    });

    test.skipIf(parts.length === 0)('the log has no token', async () => {
      await ask('/rtc?access_token=logged.to.nowhere');
      await ask('/whip?access_token=logged.to.nowhere');
      await ask('/rtc?access_token=catch.all.page');
      expect(readFileSync(proxy.logFile ?? '', 'utf8')).not.toMatch(/logged\.to\.nowhere|catch\.all\.page/);
    });

    if (name === 'nginx')
      describe('the api behind the same door', () => {
        const tryAgain = { status: 503, allowOrigin: '*', retryAfter: '1', seen: undefined };

        test.each(['/api/realtime/rooms/standup/join', '/api/realtime/rooms/a%2Fb/join?x=1', '/api/realtime/events'])(
          '%s',
          async (path) => {
            expect(await ask(path)).toMatchObject({ status: 200, seen: { upstream: 'api', url: path } });
          },
        );

        test.each([
          '/api/realtime/oidc/backchannel-logout',
          '/api/realtime/oidc/backchannel-logout?x=1',
          '/api/realtime/oidc//backchannel-logout',
          '/api/realtime/oidc/x/../backchannel-logout',
          '/api/realtime/%6fidc%2Fbackchannel-logout',
        ])("the provider's route is no client's: %s", async (path) => {
          expect(await ask(path, { body: 'logout_token=x' })).toMatchObject({ status: 404, seen: undefined });
        });

        test('who asks an api that hangs is told to try again', { timeout: 60_000 }, async () => {
          expect(await ask('/api/realtime/rooms/hangs/join', { body: '{}' })).toMatchObject(tryAgain);
        });

        test('so is who asks an api that is down', async () => {
          const { port } = api.address() as AddressInfo;
          api.closeAllConnections();
          api.close();
          await once(api, 'close');
          expect(await ask('/api/realtime/rooms/standup')).toMatchObject(tryAgain);
          // Before a join, a page of another origin has its browser ask whether it may.
          const preflight = await fetch(`http://127.0.0.1:${proxy.port}/api/realtime/rooms/standup/join`, {
            method: 'OPTIONS',
            headers: { origin: 'https://app.example.org', 'access-control-request-method': 'POST' },
          });
          expect(preflight.status).toBe(204);
          expect(preflight.headers.get('access-control-allow-origin')).toBe('*');
          expect(preflight.headers.get('access-control-allow-headers')).toMatch(/^Authorization, Content-Type/);
          api.listen(port, '127.0.0.1');
          await once(api, 'listening');
        });

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

        test('what a client claims about itself is replaced', async () => {
          const { seen } = await ask('/api/realtime/rooms/standup', {
            headers: { ...claims, host: 'meet.example.com' },
          });
          expect(seen?.headers).toMatchObject({
            host: 'meet.example.com',
            'x-forwarded-for': '127.0.0.1',
            'x-forwarded-host': 'meet.example.com',
            'x-forwarded-proto': 'http',
          });
          for (const header of ['x-original-uri', 'x-real-ip', 'forwarded'])
            expect(seen?.headers).not.toHaveProperty(header);
        });
      });

    test('nobody passes while the gate is down; everybody does again when it is back', async () => {
      const { port } = api.address() as AddressInfo;
      api.closeAllConnections();
      api.close();
      await once(api, 'close');
      expect(await ask('/rtc?access_token=a.b.c')).toMatchObject({ status: 503, allowOrigin: '*' });
      api.listen(port, '127.0.0.1');
      await once(api, 'listening');
      await expect.poll(() => ask('/rtc?access_token=a.b.c'), { timeout: 10_000 }).toMatchObject({ status: 200 });
    });

    test.skipIf(name !== 'nginx')('nor for long after both of two apis were down', async () => {
      const other = await startUpstream('api', () => 204);
      const apis = [api, other];
      const ports = apis.map((each) => (each.address() as AddressInfo).port);
      // What the file says of its one server is said of the other.
      const two = await start({ api: `${addressOf(api)}; server ${addressOf(other)}`, livekit: addressOf(livekit) });
      const askTwo = () => fetch(`http://127.0.0.1:${two.port}/rtc?access_token=a.b.c`).then(({ status }) => status);
      expect(await askTwo()).toBe(200);
      for (const each of apis) each.closeAllConnections();
      await Promise.all(apis.map((each) => once(each.close(), 'close')));
      expect(await askTwo()).toBe(503);
      await Promise.all(apis.map((each, at) => once(each.listen(ports[at], '127.0.0.1'), 'listening')));
      await expect.poll(askTwo, { timeout: 4_000 }).toBe(200);
      await two.stop();
      other.closeAllConnections();
      other.close();
    });

    test('a client of a LiveKit that is down may try again', async () => {
      const { port } = livekit.address() as AddressInfo;
      livekit.closeAllConnections();
      livekit.close();
      await once(livekit, 'close');
      expect(await ask('/rtc?access_token=a.b.c')).toMatchObject({ status: 503, allowOrigin: '*' });
      livekit.listen(port, '127.0.0.1');
      await once(livekit, 'listening');
    });
  });
}

/** What comes back of what was said, whole: Caddy may pass the first byte on by itself. */
function echoOf(socket: Socket, said: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let heard = '';
  const hear = (bytes: Buffer): void => {
    heard += bytes;
    if (heard.length >= said.length) resolve(heard);
  };
  socket.on('data', hear).once('close', () => resolve(`${heard}, and then its end`));
  socket.write(said);
  return promise.finally(() => socket.off('data', hear));
}

/** Answers as told, says what it was asked, and echoes after an upgrade. */
async function startUpstream(upstream: string, answer: (seen: Seen) => number | 'hang' | 'end'): Promise<Server> {
  const server = createServer({ maxHeaderSize: 32_768 }, (incoming, response) => {
    const answerTo = (body: string): void => {
      const { url, method, headers } = incoming;
      const seen = { upstream, method, url, headers, bodyBytes: body.length };
      const status = answer(seen);
      if (status === 'hang') return;
      if (status === 'end') return void response.destroy();
      const fresh = tokenOf(seen) === 'of.many.attributes' ? longAuthorization : freshAuthorization;
      const isGranted = upstream === 'api' && !(tokenOf(seen) in refusals);
      if (isGranted) response.setHeader('authorization', fresh);
      if (status === 429) response.setHeader('retry-after', '7');
      // As LiveKit does; and as the gate does.
      response.setHeader('access-control-allow-origin', '*');
      response.writeHead(status).end(status === 204 ? undefined : JSON.stringify(seen satisfies Seen));
    };
    // A client that goes away before its body has come gets no answer.
    text(incoming).then(answerTo, () => response.destroy());
  });
  server.on('upgrade', ({ url, method, headers }, socket, head) => {
    socket.on('error', () => socket.destroy());
    answer({ upstream, method, url, headers, bodyBytes: head.length });
    // RFC 6455's own example of key and answer.
    const lines = [
      'Connection: Upgrade',
      `Upgrade: ${headers.upgrade}`,
      'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=',
    ];
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('\r\n')}\r\n\r\n`);
    socket.pipe(socket);
  });
  // It is closed for a moment, and comes back there.
  server.listen(await freePort(), '127.0.0.1');
  await once(server, 'listening');
  return server;
}

function addressOf(server: Server): string {
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}
