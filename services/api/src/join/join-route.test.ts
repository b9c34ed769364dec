import { encodeAtLeast, JoinResponse, Problem, topics } from '@realtime-service/contracts';
import { attributes, roles, toVideoGrant } from '@realtime-service/room-model';
import { decodeJwt } from 'jose';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { at, livekitKey, type Situation, standStill, startTestApi, type TestApi } from '../../test/test-api.ts';

let api: TestApi;
let bearer: string;
beforeAll(async () => {
  api = await startTestApi({ RATE_LIMIT_USER_PER_MINUTE: '100000' });
  bearer = `Bearer ${await api.token({ sid: 'login-1' })}`;
});
afterAll(() => api.close());
beforeEach(() => {
  api.situations.clear();
  api.endedLogins.clear();
  api.made.length = 0;
  api.lines.length = 0;
  Object.assign(api.failing, { store: false, seats: false, livekit: false });
  Object.assign(api.freshness, { isCurrent: true, outdatedPeople: [], reaches: true });
  Object.assign(api.seatsTaken, { takenByOthers: 0, ownOtherDevices: 0 });
});

const join = (body?: object, { room = 'room-42', authorization = bearer } = {}) =>
  api.app.inject({
    method: 'POST',
    url: `/api/realtime/rooms/${encodeURIComponent(room)}/join`,
    headers: { authorization },
    ...(body !== undefined && { payload: body }),
  });

const given = (situation: Situation = {}, room = 'room-42'): void => void api.situations.set(at(room), situation);

/** Asks, and expects this refusal. */
const expectProblem = async (response: ReturnType<typeof join>, status: number, code: string): Promise<Problem> => {
  const { statusCode, headers, json } = await response;
  expect(headers['content-type']).toBe('application/problem+json; charset=utf-8');
  expect(headers['cache-control']).toBe('no-store');
  const problem = Problem.parse(json());
  expect({ statusCode, code: problem.code, status: problem.status }).toEqual({ statusCode: status, code, status });
  return problem;
};

const allowed = async (body?: object, room?: string) => {
  const response = await join(body, room === undefined ? {} : { room });
  expect(response.statusCode, response.body).toBe(200);
  const answer = JoinResponse.parse(response.json());
  return { answer, claims: decodeJwt(answer.participant_token), headers: response.headers };
};

describe('200', () => {
  test('a member gets a token with just the rights of the role', async () => {
    given();
    const { answer, claims, headers } = await allowed();
    expect(headers['cache-control']).toBe('no-store');
    expect(answer).toMatchObject({
      server_url: 'wss://rtc.example.test',
      room_name: 'room-42',
      participant_identity: 'u-7',
      participant_name: 'Ann',
      role: 'speaker',
      permissions: { publishSources: ['camera', 'microphone', 'screen_share', 'screen_share_audio'], moderate: false },
    });
    expect(claims).toEqual({
      iss: livekitKey.apiKey,
      sub: 'u-7',
      nbf: expect.any(Number),
      exp: Date.parse(answer.expires_at) / 1000,
      name: 'Ann',
      attributes: { [attributes.user]: 'u-7', [attributes.login]: 'login-1' },
      video: toVideoGrant('room-42', roles.speaker.permissions),
    });
    expect((claims.exp ?? 0) - (claims.nbf ?? 0)).toBe(60);
    expect(answer.participant_token.length).toBeLessThan(4_096);
  });

  test('the room is made before the token is handed out', async () => {
    given();
    await allowed();
    expect(api.made).toEqual(['room-42']);
  });

  test.each([
    ['an empty object', {}],
    ['a room name', { room_name: 'room-42' }],
    ['a field of a later SDK', { room_name: 'room-42', zzFuture: 1 }],
    ['camel case, which is nobody here', { roomName: 'another', participantIdentity: 'u-8' }],
    ['nulls', { room_name: null, participant_name: null, room_config: null, device_id: null, at_least: null }],
    ['what the server would choose', { participant_identity: 'u-7' }],
    ['empty wishes', { participant_metadata: '', participant_attributes: {}, room_config: { agents: [] } }],
  ])('with %s', async (_name, body) => {
    given();
    const { claims } = await allowed(body);
    expect(Object.keys(claims).sort()).toEqual(['attributes', 'exp', 'iss', 'name', 'nbf', 'sub', 'video']);
    expect(claims).toMatchObject({ sub: 'u-7', attributes: { [attributes.user]: 'u-7' } });
  });

  test.each(['application/json; charset=utf-8', 'Application/JSON', 'application/json;charset="UTF-8"'])(
    'with content type %s',
    async (type) => {
      given();
      const response = await api.app.inject({
        method: 'POST',
        url: '/api/realtime/rooms/room-42/join',
        headers: { authorization: bearer, 'content-type': type },
        payload: '{"room_name":"room-42"}',
      });
      expect(response.statusCode).toBe(200);
    },
  );

  test('a device has an identity of its own', async () => {
    given();
    const { answer, claims } = await allowed({ device_id: 'phone_1' });
    expect(answer.participant_identity).toBe('u-7:phone_1');
    expect(claims).toMatchObject({
      sub: 'u-7:phone_1',
      attributes: { [attributes.device]: 'phone_1', [attributes.user]: 'u-7' },
    });
  });

  test('but not where a person has one device', async () => {
    given({ room: { devicePolicy: { mode: 'single_newest' } } });
    expect((await allowed({ device_id: 'phone_1' })).claims).toMatchObject({
      sub: 'u-7',
      attributes: { [attributes.device]: 'phone_1' },
    });
  });

  test('a name of the client counts where the room lets it', async () => {
    given();
    expect((await allowed({ participant_name: 'Bo' })).claims.name).toBe('Ann');
    given({ room: { settings: { clientName: true } } });
    expect((await allowed({ participant_name: 'Bo' })).claims.name).toBe('Bo');
    expect((await allowed()).claims.name).toBe('Ann');
  });

  test.each([
    ['control characters', '\u0001', ' '],
    ['quotation marks', '"', '"'],
  ])('no name keeps its member out: 512 %s, with the longest ids', async (_, character, shown) => {
    const [room, sub, device_id] = ['r'.repeat(256), 'u'.repeat(191), 'd'.repeat(64)];
    const authorization = `Bearer ${await api.token({ sub, sid: 's'.repeat(255) })}`;
    api.situations.set(at(room, sub), { member: { role: 'host', displayName: character.repeat(512) } });
    const response = await join({ device_id }, { room, authorization });
    expect(response.statusCode, response.body).toBe(200);
    expect(response.json().participant_name).toBe(shown.repeat(512));
  });

  test('metadata and attributes of the client where the room lets it', async () => {
    given({ room: { settings: { clientMetadata: true, clientAttributes: true } } });
    const { claims } = await allowed({ participant_metadata: '{"a":1}', participant_attributes: { mood: 'fine' } });
    expect(claims).toMatchObject({ metadata: '{"a":1}', attributes: { mood: 'fine', [attributes.user]: 'u-7' } });
  });

  test('agents for a role that may dispatch them', async () => {
    given({ member: { role: 'host' } });
    await allowed({ room_config: { agents: [{ agent_name: 'scribe' }] } });
    expect(api.agents.names).toEqual(['scribe']);
    await allowed({ room_config: {} });
    expect(api.agents.names).toEqual([]);
  });

  test('anybody with a valid token where the room is open to all', async () => {
    given({ room: { access: 'authenticated', defaultRole: 'listener' }, member: null });
    expect((await allowed()).answer).toMatchObject({
      role: 'listener',
      participant_name: '',
      permissions: { publishSources: [] },
    });
  });

  test('a live room may be entered while LiveKit cannot be asked', async () => {
    given({ isRoomLive: true });
    api.failing.livekit = true;
    await allowed();
  });

  test('a room without limit and device policy is not counted', async () => {
    api.failing.seats = true;
    for (const devicePolicy of [{ mode: 'multi' }, { mode: 'single_newest' }] as const) {
      given({ room: { devicePolicy } });
      await allowed();
    }
  });

  test('a token by the room as it is when the seat is taken', async () => {
    const change = (before: Situation['room'], after: Situation['room']) =>
      [before, after].reduce(
        (reads, room) => reads.mockReturnValueOnce({ room: { maxParticipants: 10, ...room } }),
        vi.spyOn(api.situations, 'get'),
      );
    using _name = change({ settings: { clientName: true } }, { settings: {} });
    expect((await allowed({ participant_name: 'Bo' })).claims.name).toBe('Ann');
    using _metadata = change({ settings: { clientMetadata: true } }, { settings: {} });
    await expectProblem(join({ participant_metadata: 'm' }), 422, 'invalid_request');
  });

  test('a seat where there is one', async () => {
    given({ room: { maxParticipants: 10 } });
    api.seatsTaken.takenByOthers = 9;
    await allowed();
  });

  test('a position that the projection has reached', async () => {
    given();
    await allowed({ at_least: encodeAtLeast([{ topic: topics.roomEvents, partition: 3, offset: 5n }]) });
  });

  const ids = [
    'a/b',
    'a%2Fb',
    '../admin',
    'a b',
    'a?b#c',
    'a+b',
    'a;b',
    '\u{1f3a5}',
    'caf\u00e9',
    'cafe\u0301',
    'x'.repeat(101),
    '\u{1f3a5}'.repeat(64),
    '"',
    '\\',
    '\n',
    'constructor',
    '__proto__',
  ];
  test.each(ids)('C19: room id %j is used as it is', async (room) => {
    given({}, room);
    const { answer, claims } = await allowed({ room_name: room }, room);
    expect(answer.room_name).toBe(room);
    expect(claims.video).toMatchObject({ room });
    expect(api.made).toEqual([room]);
  });

  test('C19: a member of one spelling is no member of the other', async () => {
    given({}, 'caf\u00e9');
    await expectProblem(join(undefined, { room: 'cafe\u0301' }), 404, 'room_not_found');
  });

  test('one log line says who entered what, without a token', async () => {
    given();
    const { answer } = await allowed();
    const lines = api.lines.map((line) => JSON.parse(line));
    expect(lines.filter(({ level }) => level === 'info')).toEqual([
      expect.objectContaining({ msg: 'join allowed', room: 'room-42', user: 'u-7', role: 'speaker' }),
    ]);
    for (const secret of [answer.participant_token, bearer.slice(7), livekitKey.secret])
      expect(api.lines.join('')).not.toContain(secret);
  });
});

describe('401', () => {
  test('a login that has ended gets the same answer as no login', async () => {
    given();
    api.endedLogins.add('login-2');
    await allowed();
    api.endedLogins.add('login-1');
    const { trace_id: _, ...ended } = await expectProblem(join(), 401, 'unauthenticated');
    const { trace_id: __, ...none } = await expectProblem(
      join(undefined, { authorization: '' }),
      401,
      'unauthenticated',
    );
    expect(ended).toEqual(none);
  });

  test('comes before anything is said about the body', async () => {
    const response = api.app.inject({
      method: 'POST',
      url: '/api/realtime/rooms/room-42/join',
      headers: { 'content-type': 'application/json' },
      payload: '{"room_name":',
    });
    await expectProblem(response, 401, 'unauthenticated');
  });
});

describe('403', () => {
  test('banned', async () => {
    given({ facts: { bans: [{ privilege: 'join', untilMs: null, reason: null }] } });
    const response = join();
    await expectProblem(response, 403, 'banned');
    expect((await response).headers).not.toHaveProperty('retry-after');
  });
  test('disabled, in every room', async () => {
    given({ facts: { user: { isDisabled: true } } });
    await expectProblem(join(), 403, 'user_disabled');
    given({ room: null, facts: { user: { isDisabled: true } } });
    await expectProblem(join(), 403, 'user_disabled');
  });
});

describe('404', () => {
  const strangers: readonly (readonly [string, Situation])[] = [
    ['no such room', { room: null, member: null }],
    ['a room that only LiveKit has named', { room: { state: 'unknown' } }],
    ['no member', { member: null }],
    ['a member who was removed', { member: { isRemoved: true } }],
    ['a member of whom only an update is known', { member: { role: null } }],
    ['no member of a closed room', { room: { state: 'closed' }, member: null }],
    ['no member of a locked room', { room: { isLocked: true }, member: null }],
    ['no member, with wishes that nobody may have', { member: null }],
    ['no member of a full room', { room: { maxParticipants: 1 }, member: null }],
  ];

  test('every stranger gets the same bytes and headers, but for the trace', async () => {
    const answers = [];
    for (const [name, situation] of strangers) {
      given(situation);
      api.seatsTaken.takenByOthers = 1;
      const { statusCode, headers, body } = await join(
        name.includes('wishes') ? { participant_identity: 'u-8', room_config: { agents: [{ agent_name: 'a' }] } } : {},
      );
      const { date: _, ...stable } = headers;
      answers.push({ statusCode, headers: stable, body: body.replace(/"trace_id":"[^"]*"/, '') });
    }
    expect(answers[0]).toMatchObject({ statusCode: 404 });
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    expect(api.made).toEqual([]);
  });

  test.each(strangers)('but operators are told: %s', async (_name, situation) => {
    given(situation);
    await join({});
    const refusal = api.lines.map((line) => JSON.parse(line)).find(({ msg }) => msg === 'request refused');
    expect(['unknown_room', 'not_a_member', 'member_removed']).toContain(refusal.reason);
    expect(refusal).toMatchObject({ operation: 'join', code: 'room_not_found', room: 'room-42', user: 'u-7' });
  });
});

describe('409', () => {
  test('another device where the first one stays', async () => {
    given({ room: { devicePolicy: { mode: 'single_oldest' } } });
    api.seatsTaken.ownOtherDevices = 1;
    await expectProblem(join({ device_id: 'phone' }), 409, 'device_conflict');
    await allowed({ device_id: 'phone', take_over: true });
  });
  test('one device too many where several may be inside: to take over changes nothing, and is not the advice', async () => {
    given({ room: { devicePolicy: { mode: 'multi', max: 2 } } });
    api.seatsTaken.ownOtherDevices = 2;
    const { detail } = await expectProblem(join({ device_id: 'phone' }), 409, 'device_conflict');
    await expectProblem(join({ device_id: 'phone', take_over: true }), 409, 'device_conflict');
    expect(detail).toMatch(/^Leave with another device/);
  });
  test('a full room says when to ask again', async () => {
    given({ room: { maxParticipants: 10 } });
    api.seatsTaken.takenByOthers = 10;
    await expectProblem(join(), 409, 'room_full');
    expect((await join()).headers['retry-after']).toBe('5');
    expect(api.made).toEqual([]);
  });
});

test('410: a closed room', async () => {
  given({ room: { state: 'closed' } });
  await expectProblem(join(), 410, 'room_closed');
});

test('423: a locked room', async () => {
  given({ room: { isLocked: true } });
  await expectProblem(join(), 423, 'room_locked');
});

test('425: a room that is not open yet says when it opens', async () => {
  const opensAtMs = Date.now() + 90_000;
  given({ room: { opensAtMs } });
  const response = await join();
  expect(response.statusCode).toBe(425);
  expect(response.json()).toMatchObject({ code: 'room_not_open', opens_at: new Date(opensAtMs).toISOString() });
  expect(Number(response.headers['retry-after'])).toBeGreaterThan(85);
  expect(Number(response.headers['retry-after'])).toBeLessThanOrEqual(90);
});

describe('422: what the caller may not choose (C32)', () => {
  test.each([
    ['another room', { room_name: 'room-43' }, '/room_name'],
    ['another identity', { participant_identity: 'u-8' }, '/participant_identity'],
    ['an identity of a device that was not named', { participant_identity: 'u-7:phone' }, '/participant_identity'],
    ['metadata', { participant_metadata: '{"role":"admin"}' }, '/participant_metadata'],
    ['attributes', { participant_attributes: { role: 'admin' } }, '/participant_attributes'],
    ['agents', { room_config: { agents: [{ agent_name: 'a1' }] } }, '/room_config/agents'],
    ['egress', { room_config: { egress: {} } }, '/room_config'],
    ['the size of the room', { room_config: { max_participants: 999 } }, '/room_config'],
    ['a position of its own making', { at_least: 'AAAA' }, '/at_least'],
  ])('%s', async (_name, body, path) => {
    given();
    const { errors } = await expectProblem(join(body), 422, 'invalid_request');
    expect(errors?.map((fault) => fault.path)).toEqual([path]);
    expect(api.made).toEqual([]);
  });

  test.each(['rt.user', 'rt.login', 'rt.anything', 'lk.agent'])(
    'attribute %s, not even where attributes are allowed',
    async (name) => {
      given({ room: { settings: { clientAttributes: true } } });
      await expectProblem(join({ participant_attributes: { [name]: 'u-8' } }), 422, 'invalid_request');
    },
  );

  test('more than a token holds', async () => {
    given({ room: { settings: { clientMetadata: true, clientAttributes: true } } });
    const most = { participant_metadata: 'm'.repeat(2_048), participant_attributes: { a: 'b'.repeat(2_000) } };
    await expectProblem(join(most), 422, 'invalid_request');
    await allowed({ participant_metadata: 'm'.repeat(1_500) });
  });
});

test('429: too many requests of one caller say when to ask again', async () => {
  const strict = await startTestApi({ RATE_LIMIT_USER_PER_MINUTE: '3' });
  try {
    const ask = async (sub: string) =>
      strict.app.inject({
        method: 'POST',
        url: '/api/realtime/rooms/r/join',
        headers: { authorization: `Bearer ${await strict.token({ sub })}` },
      });
    for (let n = 0; n < 3; n += 1) expect((await ask('u-7')).statusCode).toBe(404);
    const refused = await ask('u-7');
    expect(refused.statusCode).toBe(429);
    expect(Problem.parse(refused.json()).code).toBe('rate_limited');
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
    expect((await ask('u-8')).statusCode).toBe(404);
  } finally {
    await strict.close();
  }
});

describe('503: no token without a fresh decision', () => {
  const expectTryAgain = async (code: string, body?: object): Promise<void> => {
    const response = await join(body);
    expect(response.json()).toMatchObject({ status: 503, code });
    expect(Number(response.headers['retry-after'])).toBeGreaterThan(0);
  };

  test('the database is away', async () => {
    given();
    api.failing.store = true;
    await expectTryAgain('store_unavailable');
    expect(api.lines.join('')).toContain('the database is away');
  });
  test('the seat cannot be taken', async () => {
    given({ room: { maxParticipants: 10 } });
    api.failing.seats = true;
    await expectTryAgain('store_unavailable');
  });
  test("the room's partition is too old", async () => {
    given();
    api.freshness.isCurrent = false;
    await expectTryAgain('projection_stale');
  });
  test("the person's partition is too old", async () => {
    given();
    api.freshness.outdatedPeople = ['u-7'];
    await expectTryAgain('projection_stale');
  });
  test('the position is not reached', async () => {
    given();
    api.freshness.reaches = false;
    await expectTryAgain('projection_stale', {
      at_least: encodeAtLeast([{ topic: topics.roomEvents, partition: 3, offset: 5n }]),
    });
    await allowed();
  });
  test('a fact about the member could not be read', async () => {
    given({ facts: { doubt: 'person' } });
    await expectTryAgain('projection_stale');
  });
  test('LiveKit cannot be asked to make the room', async () => {
    given();
    api.failing.livekit = true;
    await expectTryAgain('livekit_unavailable');
  });
  test.each([{}, { maxParticipants: 2 }])(
    'this process stood still while the room was made, though it is live: %j',
    async (room) => {
      given({ room, isRoomLive: true });
      using _pause = standStill(api);
      await expectTryAgain('store_unavailable');
    },
  );
  test('this machine was suspended while the room was made: only the time of day shows it', async () => {
    given({ isRoomLive: true });
    using _pause = standStill(api, Date);
    await expectTryAgain('store_unavailable');
  });
});

test('reasons are counted, and no id is a label', async () => {
  given({ member: { isRemoved: true } });
  await join();
  given();
  await allowed();
  const text = await api.metrics.registry.metrics();
  expect(text).toContain('realtime_requests_total{operation="join",outcome="room_not_found",reason="member_removed"}');
  expect(text).toContain('realtime_requests_total{operation="join",outcome="allowed",reason="speaker"}');
  expect(text).not.toMatch(/room-42|u-7/);
});
