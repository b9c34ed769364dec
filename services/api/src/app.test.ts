import { once } from 'node:events';
import { connect } from 'node:net';
import { Problem } from '@realtime-service/contracts';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { at, startTestApi, type TestApi } from '../test/test-api.ts';

let api: TestApi;
let authorization: string;
beforeAll(async () => {
  api = await startTestApi({ RATE_LIMIT_USER_PER_MINUTE: '100000' });
  authorization = `Bearer ${await api.token()}`;
});
afterAll(() => api.close());
beforeEach(() => {
  api.situations.clear();
  Object.assign(api.failing, { store: false, livekit: false });
});

const url = '/api/realtime/rooms/room-42/join';
const unreadable = '/api/realtime/rooms/%E0%A4%A/join';

describe('browsers (C31)', () => {
  const ours = 'https://app.example.test';
  const others = ['https://app.example.test.evil.test', 'null', 'http://app.example.test', 'https://APP.example.test'];
  const preflight = {
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'authorization,content-type,traceparent',
  };

  test.each([url, unreadable])('a preflight needs no token: %s', async (path) => {
    const { statusCode, headers } = await api.app.inject({
      method: 'OPTIONS',
      url: path,
      headers: { origin: ours, ...preflight },
    });
    expect(statusCode).toBe(204);
    expect(headers['access-control-allow-origin']).toBe(ours);
    expect(headers['access-control-allow-methods']).toContain('POST');
    const listed = String(headers['access-control-allow-headers']).split(', ');
    for (const name of preflight['access-control-request-headers'].split(',')) expect(listed).toContain(name);
    expect(headers.vary).toBe('Origin');
    expect(headers).not.toHaveProperty('access-control-allow-credentials');
  });

  test.each(others)('a preflight from %s gets no leave', async (origin) => {
    const { headers } = await api.app.inject({ method: 'OPTIONS', url, headers: { origin, ...preflight } });
    expect(headers).not.toHaveProperty('access-control-allow-origin');
  });

  test('OPTIONS that is no preflight is answered', async () => {
    expect((await api.app.inject({ method: 'OPTIONS', url })).statusCode).toBe(204);
  });

  const answers: readonly (readonly [status: number, prepare: () => void, request?: object])[] = [
    [200, () => api.situations.set(at('room-42'), {})],
    [400, () => undefined, { headers: { authorization: '', 'content-type': 'application/json' }, payload: '{' }],
    [400, () => undefined, { url: unreadable }],
    [401, () => undefined, { headers: {} }],
    [403, () => api.situations.set(at('room-42'), { facts: { user: { isDisabled: true } } })],
    [404, () => undefined],
    [404, () => undefined, { url: '/nowhere' }],
    [405, () => undefined, { method: 'PUT' }],
    [413, () => undefined, { payload: { a: 'x'.repeat(20_000) } }],
    [415, () => undefined, { payload: 'x' }],
    [422, () => undefined, { payload: { take_over: 1 } }],
    [503, () => Object.assign(api.failing, { store: true })],
  ];

  for (const [status, prepare, request = {}] of answers)
    test(`can read ${status} ${JSON.stringify(request).slice(0, 40)}`, async () => {
      prepare();
      const { headers: given = {}, ...rest } = request as { headers?: Record<string, string> };
      const base = 'headers' in request && status === 401 ? {} : { authorization };
      for (const origin of [ours, ...others, undefined]) {
        const { statusCode, headers } = await api.app.inject({
          method: 'POST',
          url,
          ...rest,
          headers: { ...given, ...base, ...(origin !== undefined && { origin }) },
        });
        expect(statusCode).toBe(status);
        expect(headers['access-control-allow-origin']).toBe(origin === ours ? ours : undefined);
        expect(headers['access-control-expose-headers']).toContain('retry-after');
        expect(headers.vary).toBe('Origin');
      }
    });

  test('without web clients no origin gets leave', async () => {
    const closed = await startTestApi({ CORS_ORIGINS: 'https://other.example.test' });
    const { headers } = await closed.app.inject({ method: 'POST', url, headers: { origin: ours } });
    expect(headers).not.toHaveProperty('access-control-allow-origin');
    await closed.close();
  });
});

describe('routes', () => {
  test.each(['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE'] as const)(
    '%s of a route that takes POST says so',
    async (method) => {
      for (const path of [url, '/api/realtime/events']) {
        const response = await api.app.inject({ method, url: path });
        expect(response.statusCode).toBe(405);
        expect(response.headers.allow).toBe('POST');
        if (method !== 'HEAD') expect(Problem.parse(response.json()).code).toBe('method_not_allowed');
      }
    },
  );

  test.each([
    '/',
    '/api',
    '/api/realtime/rooms',
    '/api/realtime/rooms/room-42/members',
    '/metrics',
    '/livez',
    '/readyz',
    '/actuator/health',
    '/favicon.ico',
  ])('%s is none, without a token or with one', async (path) => {
    const response = await api.app.inject({ url: path, headers: { authorization } });
    expect(Problem.parse(response.json())).toMatchObject({ status: 404, code: 'route_not_found' });
  });

  test('the documentation is served, and allows its own scripts only', async () => {
    const document = await api.app.inject({ url: '/docs/json' });
    expect(Object.keys(document.json().paths)).toContain('/api/realtime/rooms/{roomId}/join');
    const page = await api.app.inject({ url: '/docs/' });
    expect(page.statusCode).toBe(200);
    expect(page.headers['content-security-policy']).toContain("script-src 'self'");
  });

  test('no answer may be kept, sniffed or framed', async () => {
    for (const path of [url, '/nowhere', unreadable]) {
      const { headers } = await api.app.inject({ method: 'POST', url: path, headers: { authorization } });
      expect(headers).toMatchObject({
        'cache-control': 'no-store',
        'x-content-type-options': 'nosniff',
        'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
      });
    }
  });
});

describe('too much', () => {
  /** Without a token that counts. */
  const logOut = ({ app }: TestApi) =>
    app.inject({
      method: 'POST',
      url: '/api/realtime/oidc/backchannel-logout',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: '',
    });

  test('requests from one address are counted by what trusted proxies say', async () => {
    const strict = await startTestApi({ RATE_LIMIT_ADDRESS_PER_MINUTE: '2', TRUST_PROXY: '127.0.0.0/8' });
    const ask = async (address: string, remoteAddress = '127.0.0.1') =>
      (await strict.app.inject({ method: 'POST', url, remoteAddress, headers: { 'x-forwarded-for': address } }))
        .statusCode;
    expect([await ask('192.0.2.1'), await ask('192.0.2.1'), await ask('192.0.2.1')]).toEqual([401, 401, 429]);
    expect(await ask('192.0.2.2')).toBe(401);
    expect([await ask('192.0.2.6:5000'), await ask('192.0.2.6:5001'), await ask('192.0.2.6:5002')]).toEqual([
      401, 401, 429,
    ]);
    // Whoever is no proxy of ours cannot choose its address.
    expect([
      await ask('192.0.2.3', '198.51.100.1'),
      await ask('192.0.2.4', '198.51.100.1'),
      await ask('192.0.2.5', '198.51.100.1'),
    ]).toEqual([401, 401, 429]);
    await strict.close();
  });

  test('paths that cannot be read are counted as all others', async () => {
    const strict = await startTestApi({ RATE_LIMIT_ADDRESS_PER_MINUTE: '2' });
    const ask = async (path: string) => (await strict.app.inject({ method: 'POST', url: path })).statusCode;
    expect([await ask(unreadable), await ask('/%'), await ask(unreadable), await ask(url)]).toEqual([
      400, 400, 429, 429,
    ]);
    await strict.close();
  });

  test('an IPv6 address is counted with its neighbours: whoever has one has them all', async () => {
    const strict = await startTestApi({ RATE_LIMIT_ADDRESS_PER_MINUTE: '2' });
    const ask = async (remoteAddress: string) =>
      (await strict.app.inject({ method: 'POST', url, remoteAddress })).statusCode;
    expect([await ask('2001:db8::1'), await ask('2001:db8::2'), await ask('2001:db8:0:0:1::3')]).toEqual([
      401, 401, 429,
    ]);
    expect(await ask('2001:db8:0:1::1')).toBe(401);
    await strict.close();
  });

  test('whoever resets the connection at once is counted too, and is no error of ours', async () => {
    const strict = await startTestApi({ RATE_LIMIT_ADDRESS_PER_MINUTE: '1' });
    const address = new URL(await strict.app.listen({ host: '127.0.0.1', port: 0 }));
    for (let n = 0; n < 2; n += 1) {
      const socket = connect(Number(address.port), address.hostname);
      socket.write('GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n', () => socket.resetAndDestroy());
      await once(socket, 'close');
    }
    await vi.waitFor(() => expect(strict.lines).toHaveLength(2));
    const codes = strict.lines.map((line) => JSON.parse(line).code);
    expect(codes).toEqual(['route_not_found', 'rate_limited']);
    await strict.close();
  });

  test('the provider tells of a logout once: what its address asks is counted apart', async () => {
    const strict = await startTestApi({ RATE_LIMIT_ADDRESS_PER_MINUTE: '1' });
    for (let n = 0; n < 2; n += 1) expect((await logOut(strict)).statusCode).toBe(400);
    expect((await strict.app.inject({ method: 'POST', url })).statusCode).toBe(401);
    expect((await strict.app.inject({ method: 'POST', url })).statusCode).toBe(429);
    await strict.close();
  });

  test('a process that falls behind sheds requests, and says when to ask again', async () => {
    const strict = await startTestApi({ MAX_EVENT_LOOP_DELAY_MS: '10' });
    const origin = 'https://app.example.test';
    const ask = () => strict.app.inject({ method: 'POST', url, headers: { origin } });
    let response = await ask();
    while (response.statusCode !== 503) {
      for (const untilMs = performance.now() + 30; performance.now() < untilMs; );
      await new Promise((resolve) => setTimeout(resolve));
      response = await ask();
    }
    expect(Problem.parse(response.json())).toMatchObject({ status: 503, code: 'overloaded' });
    expect(response.headers['access-control-allow-origin']).toBe(origin);
    expect(response.headers['retry-after']).toBe('1');
    const atTheDoor = await strict.app.inject({ url: '/api/realtime/gate' });
    expect(Problem.parse(atTheDoor.json())).toMatchObject({ status: 503, code: 'overloaded' });
    expect(atTheDoor.headers['access-control-allow-origin']).toBe('*');
    expect((await logOut(strict)).statusCode).toBe(400);
    await strict.close();
  });

  test('an error of our own says nothing of itself', async () => {
    api.situations.set(at('room-42'), { facts: { bans: null as never } });
    api.lines.length = 0;
    const response = await api.app.inject({ method: 'POST', url, headers: { authorization } });
    const { trace_id: _, ...problem } = Problem.parse(response.json());
    expect(problem).toMatchObject({ status: 500, code: 'internal', title: 'Something went wrong.' });
    expect(response.body).not.toMatch(/TypeError|null|at /);
    expect(api.lines.join('')).toContain('TypeError');
  });
});
