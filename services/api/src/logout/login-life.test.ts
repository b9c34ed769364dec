import type { JoinResponse } from '@realtime-service/contracts';
import { attributes } from '@realtime-service/room-model';
import { decodeJwt } from 'jose';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { now } from '../../test/identity-provider.ts';
import { livekitToken } from '../../test/livekit-token.ts';
import { at, livekitKey, startTestApi, type TestApi } from '../../test/test-api.ts';

let api: TestApi;
beforeAll(async () => {
  api = await startTestApi({ LOGIN_MAX_SECONDS: '3600' });
  api.situations.set(at('room-42'), {});
});
afterAll(() => api.close());
afterEach(() => void vi.useRealTimers());

const join = async (of: TestApi, claims: Record<string, unknown>) => {
  const url = '/api/realtime/rooms/room-42/join';
  const headers = { authorization: `Bearer ${await of.token(claims)}` };
  const answer = await of.app.inject({ method: 'POST', url, headers });
  const signed = answer.statusCode === 200 ? decodeJwt(answer.json<JoinResponse>().participant_token) : {};
  return { status: answer.statusCode, attributes: signed['attributes'] };
};

const knock = async (loginEnd: string | undefined) => {
  const own = {
    [attributes.user]: 'u-7',
    [attributes.login]: 's',
    ...(loginEnd && { [attributes.loginEnd]: loginEnd }),
  };
  const token = livekitToken(livekitKey, { claims: { attributes: own } });
  const answer = await api.app.inject({
    url: '/api/realtime/gate',
    headers: { 'x-original-uri': `/rtc?access_token=${token}` },
  });
  const fresh = String(answer.headers['authorization']).slice('Bearer '.length);
  return {
    status: answer.statusCode,
    attributes: answer.statusCode === 204 ? decodeJwt(fresh)['attributes'] : undefined,
  };
};

describe('with a longest life of an hour, a login', () => {
  const seconds = now();
  test.each([
    ['counts from when the person logged in', { sid: 's', auth_time: seconds - 3_000 }, seconds + 600],
    ['counts from the token where the provider does not say that', { sid: 's', iat: seconds - 60 }, seconds + 3_540],
    ['counts from the token also where it says nought', { sid: 's', iat: seconds - 60, auth_time: 0 }, seconds + 3_540],
  ])('%s', async (_, claims, end) => {
    const answer = await join(api, claims);
    expect(answer.status).toBe(200);
    expect(answer.attributes).toMatchObject({ [attributes.login]: 's', [attributes.loginEnd]: String(end) });
  });

  test('that is older counts on no route', async () => {
    const claims = { sid: 's', auth_time: now() - 3_601, scope: 'realtime:publish' };
    expect((await join(api, claims)).status).toBe(401);
    expect(JSON.parse(api.lines.at(-1) ?? '')).toMatchObject({ operation: 'join', reason: 'login_over' });
    const headers = { authorization: `Bearer ${await api.token(claims)}` };
    expect((await api.app.inject({ method: 'POST', url: '/api/realtime/events', headers })).statusCode).toBe(401);
  });

  test('that ends while its token is remembered joins nothing either', async () => {
    // Of the last second of a login there may be less left than a join takes: the clock stands still.
    vi.useFakeTimers({ toFake: ['Date'] });
    const own = await startTestApi({ LOGIN_MAX_SECONDS: '3600' });
    own.situations.set(at('room-42'), {});
    const token = await own.token({ sid: 's', auth_time: now() - 3_599 });
    const url = '/api/realtime/rooms/room-42/join';
    const ask = () => own.app.inject({ method: 'POST', url, headers: { authorization: `Bearer ${token}` } });
    expect((await ask()).statusCode).toBe(200);
    vi.setSystemTime(Date.now() + 1_000);
    for (let time = 0; time < 2; time += 1) expect((await ask()).statusCode).toBe(401);
    expect(JSON.parse(own.lines.at(-1) ?? '')).toMatchObject({ operation: 'join', reason: 'login_over' });
    await own.close();
  });

  test.each([
    ['sees no room', { method: 'GET', url: '/api/realtime/rooms/room-7' }],
    ['sees nobody inside', { method: 'GET', url: '/api/realtime/rooms/room-7/participants' }],
    ['kicks nobody', { method: 'POST', url: '/api/realtime/rooms/room-7/participants/tom/kick' }],
    [
      'bans nobody',
      { method: 'POST', url: '/api/realtime/rooms/room-7/bans', payload: { userId: 'tom', privilege: 'data' } },
    ],
  ] as const)("that is over by the database's clock %s", async (_, request) => {
    const headers = { authorization: `Bearer ${await api.token({ sid: 's', auth_time: now() - 3_000 })}` };
    const status = async () => (await api.app.inject({ ...request, headers })).statusCode;
    api.situations.set(at('room-7'), { member: { role: 'host' } });
    api.present.set('room-7', [
      { identity: 'tom', participantSid: 'PA_1', userId: 'tom', joinedAtMs: 1, member: null },
    ]);
    expect([200, 202]).toContain(await status());
    api.situations.set(at('room-7'), { member: { role: 'host' }, nowMs: Date.now() + 3_600_000 });
    expect(await status()).toBe(401);
    expect(JSON.parse(api.lines.at(-1) ?? '')).toMatchObject({ reason: 'login_ended' });
  });

  test('with a time that is none is refused', async () => {
    for (const auth_time of ['1', -1, 1.5, null]) expect((await join(api, { sid: 's', auth_time })).status).toBe(401);
  });

  test('passes the gate until its end, which the fresh token says again', async () => {
    const end = String(now() + 60);
    expect(await knock(end)).toMatchObject({ status: 204, attributes: { [attributes.loginEnd]: end } });
    expect((await knock(String(now() - 1))).status).toBe(403);
    expect((await knock(undefined)).status).toBe(204);
    expect((await knock('soon')).status).toBe(403);
  });

  test('is none where a service asks: its token names no login', async () => {
    const answer = await join(api, { sid: undefined, auth_time: now() - 7_200 });
    expect(answer.status).toBe(200);
    expect(answer.attributes).not.toHaveProperty(attributes.loginEnd);
  });
});

test('without a longest life a login ends when the provider says so', async () => {
  const unlimited = await startTestApi();
  try {
    unlimited.situations.set(at('room-42'), {});
    const answer = await join(unlimited, { sid: 's', auth_time: now() - 1_000_000 });
    expect(answer.status).toBe(200);
    expect(answer.attributes).not.toHaveProperty(attributes.loginEnd);
  } finally {
    await unlimited.close();
  }
});
