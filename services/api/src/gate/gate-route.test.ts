import { Problem } from '@realtime-service/contracts';
import { attributes, type DenyReason, permissionsOf, roles, toVideoGrant } from '@realtime-service/room-model';
import { decodeJwt } from 'jose';
import { AccessToken } from 'livekit-server-sdk';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { livekitToken, type TokenChanges } from '../../test/livekit-token.ts';
import { rawRequest, readAnswer } from '../../test/raw-request.ts';
import { at, livekitKey, type Situation, standStill, startTestApi, type TestApi, toldBy } from '../../test/test-api.ts';

const otherKey = { apiKey: 'webhooks', secret: 'another-secret-of-thirty-two-characters' };
const strangersKey = { apiKey: 'stranger', secret: 'a-secret-that-is-none-of-our-secrets' };
const manyAttempts = { RATE_LIMIT_GATE_PER_MINUTE: '100000', RATE_LIMIT_ADDRESS_PER_MINUTE: '5' };

let api: TestApi;
beforeAll(async () => {
  const keys = [livekitKey, otherKey].map(({ apiKey, secret }) => `${apiKey}: ${secret}`).join(',');
  api = await startTestApi({ ...manyAttempts, LIVEKIT_KEYS: keys });
});
afterAll(() => api.close());
afterEach(() => void vi.useRealTimers());
beforeEach(() => {
  api.situations.clear();
  api.endedLogins.clear();
  api.made.length = 0;
  api.lines.length = 0;
  Object.assign(api.failing, { store: false, seats: false, livekit: false });
  Object.assign(api.freshness, { isCurrent: true, outdatedPeople: [] });
  Object.assign(api.seatsTaken, { takenByOthers: 0, ownOtherDevices: 0 });
});

const given = (situation: Situation = {}): void => void api.situations.set(at('room-42'), situation);
const signed = (changes?: TokenChanges): string => livekitToken(livekitKey, changes);
const inQuery = (token: string): string => `/rtc?access_token=${token}`;
const secondsFromNow = (seconds: number): number => Math.floor(Date.now() / 1000) + seconds;

/** As a proxy asks: the URI of its client, and the client's own headers. */
const ask = (uri: string | undefined, headers: Record<string, string> = {}, path = '/api/realtime/gate') =>
  api.app.inject({ url: path, headers: { ...(uri !== undefined && { 'x-original-uri': uri }), ...headers } });

const passed = async (answer: ReturnType<typeof ask>) => {
  const { statusCode, headers, body } = await answer;
  expect({ statusCode, body }).toEqual({ statusCode: 204, body: '' });
  const [, token = ''] = /^Bearer (.+)$/.exec(String(headers['authorization'])) ?? [];
  return decodeJwt(token);
};

const expectRefusal = async (answer: ReturnType<typeof ask>, status: number, reason?: string): Promise<void> => {
  const { statusCode, headers, json } = await answer;
  expect({ statusCode, reading: headers['access-control-allow-origin'] }).toEqual({ statusCode: status, reading: '*' });
  expect(headers).not.toHaveProperty('authorization');
  expect(Problem.parse(json()).status).toBe(status);
  if (reason === undefined) return;
  const line = JSON.parse(api.lines.at(-1) ?? '{}');
  expect({ operation: line.operation, told: toldBy(line) }).toEqual({ operation: 'gate', told: reason });
};

describe('204', () => {
  beforeEach(() => given());

  test.each([
    ['in the query', (token: string) => ask(inQuery(token))],
    ['in the header', (token: string) => ask('/rtc', { authorization: `Bearer ${token}` })],
    [
      'in both, where LiveKit takes the header',
      (token: string) => ask(inQuery('no.such.token'), { authorization: `Bearer ${token}` }),
    ],
    ['with an empty header', (token: string) => ask(inQuery(token), { authorization: '' })],
  ])('for a token %s', async (_name, asking) => {
    expect(await passed(asking(signed()))).toMatchObject({ sub: 'u-7' });
  });

  test.each(['/rtc', '/rtc/v1', '/rtc/validate', '/rtc/v1/validate'])('at %s, with what clients add', async (path) => {
    const query = `access_token=${signed()}&auto_subscribe=1&sdk=js&protocol=15&reconnect=1&sid=PA_x&os=mac%20os&join_request=CAE%3D&empty=&bare`;
    await passed(ask(`${path}?${query}`));
  });

  test('sends today’s token, of the same person and with today’s rights', async () => {
    const old = {
      name: 'Ann',
      metadata: 'kept',
      attributes: { [attributes.user]: 'u-7', [attributes.device]: 'd1', colour: 'red' },
    };
    given({ member: { role: 'listener' }, facts: { bans: [{ privilege: 'data', untilMs: null, reason: null }] } });
    const claims = await passed(
      ask(
        inQuery(signed({ claims: { ...old, sub: 'u-7:d1', video: toVideoGrant('room-42', roles.host.permissions) } })),
      ),
    );
    expect(claims).toEqual({
      ...old,
      iss: livekitKey.apiKey,
      sub: 'u-7:d1',
      nbf: expect.any(Number),
      exp: (claims.nbf ?? 0) + 60,
      video: toVideoGrant('room-42', permissionsOf('listener', null, ['data'])),
    });
    expect(Math.abs((claims.nbf ?? 0) - secondsFromNow(0))).toBeLessThan(2);
  });

  test('brings no right of the old token along: admin, hidden, recorder, a configuration of the room', async () => {
    const rich = { roomAdmin: true, roomCreate: true, hidden: true, recorder: true, canUpdateOwnMetadata: true };
    const video = { ...toVideoGrant('room-42', roles.speaker.permissions), ...rich };
    const claims = await passed(
      ask(inQuery(signed({ claims: { video, roomPreset: 'p', roomConfig: { egress: {} }, sip: { admin: true } } }))),
    );
    expect(claims['video']).toEqual(toVideoGrant('room-42', roles.speaker.permissions));
    expect(Object.keys(claims).sort()).toEqual(['attributes', 'exp', 'iss', 'name', 'nbf', 'sub', 'video']);
  });

  test('takes the person’s identity of today, whatever session the old token was for', async () => {
    given({ room: { devicePolicy: { mode: 'single_newest' } } });
    const claims = { sub: 'u-7:phone', attributes: { [attributes.user]: 'u-7', [attributes.device]: 'phone' } };
    expect(await passed(ask(inQuery(signed({ claims }))))).toMatchObject({ sub: 'u-7' });
  });

  test('for a token that the SDK or LiveKit’s second key signed', async () => {
    const bySdk = new AccessToken(livekitKey.apiKey, livekitKey.secret, {
      identity: 'u-7',
      attributes: { [attributes.user]: 'u-7' },
    });
    bySdk.addGrant({ room: 'room-42', roomJoin: true });
    await passed(ask(inQuery(await bySdk.toJwt())));
    expect(await passed(ask(inQuery(livekitToken(otherKey))))).toMatchObject({ iss: livekitKey.apiKey });
  });

  test.each([
    ['one that ended half a minute ago', { exp: secondsFromNow(-30) }],
    ['one that begins in half a minute', { nbf: secondsFromNow(30), exp: secondsFromNow(90) }],
    ['one of a standard participant', { kind: 'STANDARD' }],
  ])('for %s', async (_name, claims) => {
    await passed(ask(inQuery(signed({ claims }))));
  });

  test('makes the room first', async () => {
    await passed(ask(inQuery(signed())));
    expect(api.made).toEqual(['room-42']);
  });

  test('takes a seat where the room counts them', async () => {
    given({ room: { maxParticipants: 2 } });
    await passed(ask(inQuery(signed())));
    api.seatsTaken.takenByOthers = 2;
    await expectRefusal(ask(inQuery(signed())), 403, 'full');
  });

  test.each(['agent', 'EGRESS', 'ingress'])('for %s, with the token that others signed', async (kind) => {
    const token = signed({ claims: { kind, sub: 'machine', attributes: undefined } });
    const { headers, statusCode } = await ask(inQuery(token));
    expect({ statusCode, authorization: headers['authorization'] }).toEqual({
      statusCode: 204,
      authorization: `Bearer ${token}`,
    });
    expect(api.made).toEqual([]);
  });

  test('as 200 for Envoy, which appends the path and takes nothing else for a yes', async () => {
    const token = signed();
    const { statusCode, headers } = await ask(inQuery(token), {}, `/api/realtime/gate/rtc?access_token=${token}`);
    expect({ statusCode, isFresh: headers['authorization'] !== undefined }).toEqual({ statusCode: 200, isFresh: true });
    const refused = await ask('/whip/v1', { authorization: `Bearer ${token}` }, '/api/realtime/gate/rtc');
    expect(refused.statusCode).toBe(401);
  });

  test('for whoever is inside, in a room that admits nobody', async () => {
    const ownSessions = [{ identity: 'u-7', deviceId: null, isLive: true, endedAtMs: null, wasRemoved: false }];
    given({ room: { isLocked: true }, facts: { ownSessions, doubt: 'person' } });
    await passed(ask(inQuery(signed())));
  });
});

describe('401', () => {
  beforeEach(() => given());

  test.each<readonly [string, string | undefined, string]>([
    ['no original URI', undefined, 'no_original_uri'],
    ['an empty one', '', 'original_uri'],
    ['two of them', '/rtc?access_token=a.b.c, /rtc', 'original_uri'],
    ['a whole URL', 'http://rtc.example.test/rtc?access_token=a.b.c', 'original_uri'],
    ['another word', 'rtc', 'original_uri'],
    ['a blank', '/rtc ?access_token=a.b.c', 'original_uri'],
    ['a fragment', '/rtc#?access_token=a.b.c', 'original_uri'],
    ...[
      '/',
      '//rtc',
      '/%72tc',
      '/./rtc',
      '/x/../rtc',
      '/rtc/',
      '/rtc/v1/',
      '/rtc/v2',
      '/RTC',
      '/rtcx',
      '/rtc%3F',
      '/rtc/v1/validate/x',
      '/rtc\\v1',
      '/whip/v1',
      '/agent',
      '/twirp/livekit.RoomService/ListRooms',
      '/livekit/rtc',
    ].map((path) => [path, `${path}?access_token=a.b.c`, 'path'] as const),
    ['a query with ;', '/rtc?x=1;access_token=a.b.c', 'query'],
    ['a broken escape', '/rtc?access_token=%zz&access_token=a.b.c', 'query'],
    ['half an escape', '/rtc?access_token=a.b.c&x=%4', 'query'],
    ['two tokens', '/rtc?access_token=a.b.c&access_token=d.e.f', 'several_tokens'],
    ['two tokens, one of them spelled oddly', '/rtc?access_token=a.b.c&access%5Ftoken=d.e.f', 'several_tokens'],
    ['no token', '/rtc?sdk=js', 'no_token'],
    ['an empty token', '/rtc?access_token=', 'no_token'],
    ['two parts', '/rtc?access_token=a.b', 'malformed'],
    ['four parts', '/rtc?access_token=a.b.c.d', 'malformed'],
    ['an encrypted token', '/rtc?access_token=a.b.c.d.e', 'malformed'],
    ['no signature', '/rtc?access_token=a.b.', 'malformed'],
    ['a blank within', '/rtc?access_token=a.b.c+d', 'malformed'],
    ['no token at all in it', '/rtc?access_token=a.b.c', 'invalid'],
  ])('%s', async (_name, uri, reason) => {
    await expectRefusal(ask(uri), 401, reason);
  });

  test.each([
    ['bearer', 'malformed'],
    ['Basic', 'malformed'],
    ['Bearer', 'malformed'],
  ])('the scheme %j, whatever else is there', async (scheme, reason) => {
    const token = signed();
    const authorization = scheme === 'Bearer' ? `Bearer  ${token}` : `${scheme} ${token}`;
    await expectRefusal(ask(inQuery(token), { authorization }), 401, reason);
  });

  const hostile: readonly (readonly [string, () => string, string])[] = [
    ['a key that is none of ours', () => livekitToken(strangersKey), 'unknown_key'],
    [
      'our key’s name and another secret',
      () => livekitToken({ ...strangersKey, apiKey: livekitKey.apiKey }),
      'invalid',
    ],
    [
      'one key’s name and the other’s secret',
      () => livekitToken({ ...otherKey, apiKey: livekitKey.apiKey }),
      'invalid',
    ],
    ['no issuer', () => signed({ claims: { iss: undefined } }), 'unknown_key'],
    ['a number for an issuer', () => signed({ claims: { iss: 1 } }), 'unknown_key'],
    ['a name every object has', () => signed({ claims: { iss: 'constructor' } }), 'unknown_key'],
    ['another algorithm', () => signed({ header: { alg: 'HS384' }, hash: 'sha384' }), 'algorithm'],
    ['the longest algorithm', () => signed({ header: { alg: 'HS512' }, hash: 'sha512' }), 'algorithm'],
    ['an algorithm that does not fit', () => signed({ hash: 'sha512' }), 'invalid'],
    [
      'no algorithm',
      () =>
        `${signed({ header: { alg: 'none' } })
          .split('.')
          .slice(0, 2)
          .join('.')}.x`,
      'algorithm',
    ],
    ['an asymmetric algorithm', () => signed({ header: { alg: 'RS256' } }), 'algorithm'],
    ['a changed claim', () => changed(signed(), { sub: 'u-8' }), 'invalid'],
    ['a signature cut short', () => signed().slice(0, -3), 'invalid'],
    ['no end', () => signed({ claims: { exp: undefined } }), 'claims exp'],
    ['an end that is text', () => signed({ claims: { exp: '9999999999' } }), 'claims exp'],
    ['an end more than a minute ago', () => signed({ claims: { exp: secondsFromNow(-62) } }), 'expired'],
    ['a beginning in more than a minute', () => signed({ claims: { nbf: secondsFromNow(62) } }), 'not_yet_valid'],
    ['no subject', () => signed({ claims: { sub: undefined } }), 'claims sub'],
    ['an empty subject', () => signed({ claims: { sub: '' } }), 'claims sub'],
    ['no grant', () => signed({ claims: { video: undefined } }), 'claims video'],
    ['no right to join', () => signed({ claims: { video: { room: 'room-42' } } }), 'claims video'],
    ['joining denied', () => signed({ claims: { video: { room: 'room-42', roomJoin: false } } }), 'claims video'],
    ['a server’s token', () => signed({ claims: { video: { roomAdmin: true, room: 'room-42' } } }), 'claims video'],
    ['no room', () => signed({ claims: { video: { roomJoin: true } } }), 'claims video'],
    ['an empty room', () => signed({ claims: { video: { roomJoin: true, room: '' } } }), 'claims video'],
    [
      'a room’s id that is too long',
      () => signed({ claims: { video: { roomJoin: true, room: 'x'.repeat(257) } } }),
      'claims video',
    ],
    ['a room’s id with NUL', () => signed({ claims: { video: { roomJoin: true, room: 'a\0b' } } }), 'claims video'],
    [
      'attributes that are no text',
      () => signed({ claims: { attributes: { [attributes.user]: 7 } } }),
      'claims attributes',
    ],
    [
      'a payload that is no object',
      () => signed().replace(/\..+\./, `.${Buffer.from('"x"').toString('base64url')}.`),
      'invalid',
    ],
  ];
  test.each(hostile)('%s', async (_name, token, reason) => {
    await expectRefusal(ask(inQuery(token())), 401, reason);
    await expectRefusal(ask('/rtc/v1/validate', { authorization: `Bearer ${token()}` }), 401, reason);
    expect(api.made).toEqual([]);
  });

  test('a caller’s own access token', async () => {
    await expectRefusal(ask('/rtc', { authorization: `Bearer ${await api.token()}` }), 401, 'unknown_key');
  });

  test('two headers of that name, on the wire', async () => {
    const url = await api.app.listen({ host: '127.0.0.1', port: 0 });
    const uri = `x-original-uri: ${inQuery(signed())}\r\n`;
    const answer = (headers: string) =>
      rawRequest(url, `GET /api/realtime/gate HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${headers}\r\n`).then(
        readAnswer,
      );
    expect((await answer(uri)).status).toBe(204);
    expect((await answer(`${uri}${uri}`)).status).toBe(401);
  });
});

describe('403', () => {
  test.each<readonly [DenyReason, Situation]>([
    ['unknown_room', { room: null, member: null }],
    ['not_a_member', { member: null }],
    ['member_removed', { member: { isRemoved: true } }],
    ['room_closed', { room: { state: 'closed' } }],
    ['banned', { facts: { bans: [{ privilege: 'join', untilMs: null, reason: null }] } }],
    ['user_disabled', { facts: { user: { isDisabled: true } } }],
    ['login_ended', { facts: { isLoginEnded: true } }],
    ['locked', { room: { isLocked: true } }],
    ['not_open', { room: { opensAtMs: Date.now() + 60_000 } }],
    ['schedule_over', { room: { closesAtMs: Date.now() - 1 } }],
  ])('%s', async (reason, situation) => {
    given(situation);
    await expectRefusal(ask(inQuery(signed())), 403, reason);
    expect(api.made).toEqual([]);
  });

  test('the login that the token names has ended, and no other', async () => {
    given();
    api.endedLogins.add('login-2');
    await passed(ask(inQuery(signed())));
    api.endedLogins.add('login-1');
    await expectRefusal(ask(inQuery(signed())), 403, 'login_ended');
  });

  test('the login that the token names has ended by policy', async () => {
    given();
    const until = (seconds: number): string =>
      signed({ claims: { attributes: { [attributes.user]: 'u-7', [attributes.loginEnd]: String(seconds) } } });
    await passed(ask(inQuery(until(secondsFromNow(30)))));
    await expectRefusal(ask(inQuery(until(secondsFromNow(-1)))), 403, 'login_ended');
  });

  test('another device is inside, where a person may have one: the door takes nothing over', async () => {
    given({ room: { devicePolicy: { mode: 'single_oldest' } } });
    api.seatsTaken.ownOtherDevices = 1;
    await expectRefusal(ask(inQuery(signed())), 403, 'device_conflict');
  });

  test('says the same, whatever keeps somebody out', async () => {
    given({ member: { isRemoved: true } });
    const removed = (await ask(inQuery(signed()))).json();
    given({ facts: { bans: [{ privilege: 'join', untilMs: null, reason: null }] } });
    expect((await ask(inQuery(signed()))).json()).toEqual({ ...removed, trace_id: expect.any(String) });
  });

  test.each(['publish=screen', 'publish=', 'x=1&publish=1', '%70ublish=x'])(
    'a session beside the own one: %s',
    async (query) => {
      given();
      await expectRefusal(ask(`${inQuery(signed())}&${query}`), 403, 'publish');
    },
  );

  test.each([
    ['names nobody', 'rt.user', { attributes: undefined }],
    ['names somebody whose identity this is not', 'sub', { sub: 'u-8' }],
    ['names no device, for a device’s identity', 'sub', { sub: 'u-7:phone' }],
    [
      'names another device',
      'sub',
      { sub: 'u-7:phone', attributes: { [attributes.user]: 'u-7', [attributes.device]: 'tv' } },
    ],
    ['names an empty user', 'rt.user', { attributes: { [attributes.user]: '' }, kind: 'agent' }],
    ['is of a kind that may not', 'rt.user', { kind: 'sip', attributes: undefined }],
    [
      'names a device that the desk never names',
      'rt.device',
      { attributes: { [attributes.user]: 'u-7', [attributes.device]: 'a b' } },
    ],
    [
      'names a login that the desk never names',
      'rt.login',
      { attributes: { [attributes.user]: 'u-7', [attributes.login]: 'x'.repeat(256) } },
    ],
  ])('a token that %s', async (_name, unfit, claims) => {
    given();
    await expectRefusal(ask(inQuery(signed({ claims }))), 403, `nobody ${unfit}`);
  });

  test('a person’s token that claims to be an agent’s is a person’s', async () => {
    given({ member: { isRemoved: true } });
    await expectRefusal(ask(inQuery(signed({ claims: { kind: 'agent' } }))), 403, 'member_removed');
  });
});

describe('503', () => {
  test.each<readonly [string, () => void, string]>([
    ['the store is away', () => Object.assign(api.failing, { store: true }), 'store_unavailable'],
    ['facts are too old', () => Object.assign(api.freshness, { isCurrent: false }), 'partition_too_old'],
    [
      'facts about the person are too old',
      () => Object.assign(api.freshness, { outdatedPeople: ['u-7'] }),
      'partition_too_old',
    ],
    ['the room cannot be made', () => Object.assign(api.failing, { livekit: true }), 'livekit_unavailable'],
    ['an event of the room could not be read', () => given({ facts: { doubt: 'person' } }), 'suspect'],
  ])('%s', async (_name, fail, reason) => {
    given({ isRoomLive: true });
    fail();
    await expectRefusal(ask(inQuery(signed())), 503, reason);
  });

  test.each([
    ['this process stood still', performance],
    ['this machine was suspended', Date],
  ])('%s while the room was made', async (_, by) => {
    given();
    using _pause = standStill(api, by);
    await expectRefusal(ask(inQuery(signed())), 503, 'decision_too_old');
  });

  test('seats cannot be counted', async () => {
    given({ room: { maxParticipants: 2 } });
    Object.assign(api.failing, { seats: true });
    await expectRefusal(ask(inQuery(signed())), 503, 'store_unavailable');
  });
});

test('other methods are refused', async () => {
  const statusOf = async (method: 'POST' | 'HEAD' | 'PUT' | 'DELETE', url: string) =>
    (await api.app.inject({ method, url })).statusCode;
  for (const method of ['POST', 'HEAD', 'PUT', 'DELETE'] as const)
    expect(await statusOf(method, '/api/realtime/gate')).toBe(405);
  expect(await statusOf('POST', '/api/realtime/gate/rtc')).toBe(405);
});

test('a token that passed before is refused once it is over', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  const own = await startTestApi(manyAttempts);
  own.situations.set(at('room-42'), {});
  const uri = inQuery(signed({ claims: { exp: secondsFromNow(-30) } }));
  const status = async () =>
    (await own.app.inject({ url: '/api/realtime/gate', headers: { 'x-original-uri': uri } })).statusCode;
  expect(await status()).toBe(204);
  vi.setSystemTime(Date.now() + 32_000);
  expect(await status()).toBe(401);
  await own.close();
});

test('each machine has attempts of its own', async () => {
  const few = await startTestApi({ ...manyAttempts, RATE_LIMIT_GATE_PER_MINUTE: '1' });
  const statuses = ['EG_1', 'EG_2', 'EG_1'].map(async (sub) => {
    const uri = inQuery(signed({ claims: { kind: 'egress', sub, attributes: undefined } }));
    return (await few.app.inject({ url: '/api/realtime/gate', headers: { 'x-original-uri': uri } })).statusCode;
  });
  expect(await Promise.all(statuses)).toEqual([204, 204, 429]);
  await few.close();
});

test('who was let in and which rooms could not be made are counted', async () => {
  const own = await startTestApi(manyAttempts);
  own.situations.set(at('room-42'), {});
  const once = () => own.app.inject({ url: '/api/realtime/gate', headers: { 'x-original-uri': inQuery(signed()) } });
  expect((await once()).statusCode).toBe(204);
  own.failing.livekit = true;
  expect((await once()).statusCode).toBe(503);
  const allowed = { operation: 'gate', outcome: 'allowed', reason: 'speaker' };
  expect((await own.metrics.requests.get()).values).toContainEqual(
    expect.objectContaining({ value: 1, labels: allowed }),
  );
  expect((await own.metrics.roomsNotMade.get()).values).toMatchObject([{ value: 1 }]);
  await own.close();
});

test('no token is logged', async () => {
  given();
  const token = signed();
  await ask(inQuery(token));
  await ask(inQuery(`${token}x`));
  await ask('/rtc', { authorization: `Bearer ${token}` });
  expect(api.lines.join('\n')).not.toContain(token.split('.')[1]);
  expect(JSON.parse(api.lines[0] ?? '{}')).toMatchObject({ room: 'room-42', user: 'u-7', role: 'speaker' });
});

test('each person has attempts of their own, whichever proxy asks; a refusal names who was refused', async () => {
  const few = await startTestApi({ ...manyAttempts, RATE_LIMIT_GATE_PER_MINUTE: '3' });
  const attempt = (userId: string, device = 'x') => {
    const signedAttributes = { [attributes.user]: userId, [attributes.device]: device };
    few.situations.set(at('room-42', userId), {});
    const uri = inQuery(signed({ claims: { sub: `${userId}:${device}`, attributes: signedAttributes } }));
    return few.app.inject({ url: '/api/realtime/gate', headers: { 'x-original-uri': uri } });
  };
  for (const device of ['a', 'b', 'c']) expect((await attempt('u-7', device)).statusCode).toBe(204);
  const { statusCode, headers } = await attempt('u-7');
  expect({ statusCode, reading: headers['access-control-allow-origin'] }).toEqual({ statusCode: 429, reading: '*' });
  expect(JSON.parse(few.lines.at(-1) ?? '{}')).toMatchObject({ reason: 'visitor', room: 'room-42', user: 'u-7' });
  expect((await attempt('u-8')).statusCode).toBe(204);
  await few.close();
});

test('a path that leads elsewhere once its dots are read, as proxies do, is none of the gate, and is counted', async () => {
  const strict = await startTestApi({ RATE_LIMIT_ADDRESS_PER_MINUTE: '4' });
  const url = await strict.app.listen({ host: '127.0.0.1', port: 0 });
  const paths = ['gate/../rooms/x', 'gate/%2e%2e/rooms/x', 'gate/..%2frooms/x', 'gate/rtc/../../x', 'gate/../rooms/x'];
  const statuses: number[] = [];
  for (const path of paths) {
    const request = `GET /api/realtime/${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`;
    statuses.push(readAnswer(await rawRequest(url, request)).status);
  }
  expect(statuses).toEqual([404, 404, 404, 404, 429]);
  await strict.close();
});

test('another header, and LiveKit below a path of its host', async () => {
  const other = await startTestApi({ GATE_URI_HEADER: 'X-Forwarded-Uri', LIVEKIT_URL: 'wss://example.test/livekit/' });
  other.situations.set(at('room-42'), {});
  const status = async (header: string, uri: string) =>
    (await other.app.inject({ url: '/api/realtime/gate', headers: { [header]: uri } })).statusCode;
  expect(await status('x-forwarded-uri', `/livekit${inQuery(signed())}`)).toBe(204);
  expect(await status('x-forwarded-uri', inQuery(signed()))).toBe(401);
  expect(await status('x-original-uri', `/livekit${inQuery(signed())}`)).toBe(401);
  const headers = { 'x-forwarded-uri': `/livekit${inQuery(signed())}` };
  expect((await other.app.inject({ url: '/api/realtime/gate/livekit/rtc', headers })).statusCode).toBe(200);
  expect((await other.app.inject({ url: '/api/realtime/gate/rtc', headers })).statusCode).toBe(404);
  await other.close();
});

const changed = (token: string, changes: object): string => {
  const [header, payload = '', signature] = token.split('.');
  const claims = { ...JSON.parse(Buffer.from(payload, 'base64url').toString()), ...changes };
  return [header, Buffer.from(JSON.stringify(claims)).toString('base64url'), signature].join('.');
};
