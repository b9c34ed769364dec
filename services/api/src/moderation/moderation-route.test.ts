import { decodeAtLeast, ModerationAccepted, Problem, topics } from '@realtime-service/contracts';
import type { NewRecord } from '@realtime-service/event-log';
import type { PresentPerson } from '@realtime-service/room-store';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { at, type Situation, startTestApi, type TestApi } from '../../test/test-api.ts';

let api: TestApi;
let bearer: string;
beforeAll(async () => {
  api = await startTestApi({ RATE_LIMIT_USER_PER_MINUTE: '100000' });
  bearer = `Bearer ${await api.token({ sid: 'login-1' })}`;
});
afterAll(() => api.close());
beforeEach(() => {
  api.situations.clear();
  api.present.clear();
  api.endedLogins.clear();
  api.appended.length = 0;
  api.lines.length = 0;
  Object.assign(api.failing, { store: false, log: false });
  Object.assign(api.freshness, { isCurrent: true, outdatedPeople: [] });
});

const rooms = '/api/realtime/rooms';
/** The routes, each with a request that is good: u-7 moderates tom in room-42. */
const good = {
  kick: { method: 'POST', url: `${rooms}/room-42/participants/tom%3Aphone/kick`, payload: { reason: 'off topic' } },
  mute: { method: 'POST', url: `${rooms}/room-42/participants/tom%3Aphone/tracks/TR_1/mute`, payload: {} },
  ban: { method: 'POST', url: `${rooms}/room-42/bans`, payload: { userId: 'tom', privilege: 'data' } },
  unban: { method: 'DELETE', url: `${rooms}/room-42/bans/tom?privilege=data` },
} as const;
type Action = keyof typeof good;
const actions = Object.keys(good) as Action[];

interface Asked {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly url: string;
  readonly payload?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}
const send = ({ method, url, payload, headers }: Asked) =>
  api.app.inject({
    method,
    url,
    headers: { authorization: bearer, ...headers },
    ...(payload !== undefined && { payload: payload as object }),
  });

const tom: PresentPerson = {
  identity: 'tom:phone',
  participantSid: 'PA_tom',
  userId: 'tom',
  joinedAtMs: 1_000,
  member: { role: 'speaker', displayName: 'Tom', permissions: null, isRemoved: false },
};
const member = (role: 'host' | 'moderator' | 'speaker' | 'listener'): Situation => ({ member: { role } });
/** u-7 has this standing, and tom that one, inside too. */
const given = (own: Situation = member('moderator'), of: Situation = member('speaker')): void => {
  api.situations.set(at('room-42'), own);
  api.situations.set(at('room-42', 'tom'), of);
  const role = of.member?.role ?? null;
  api.present.set('room-42', [
    { ...tom, participantSid: 'PA_earlier' },
    { ...tom, member: of.member === null ? null : { role, displayName: 'Tom', permissions: null, isRemoved: false } },
  ]);
};

const refused = async (asked: Asked, status: number, code: string): Promise<Problem> => {
  const response = await send(asked);
  const problem = Problem.parse(response.json());
  expect({ status: response.statusCode, code: problem.code }).toEqual({ status, code });
  expect(response.headers['cache-control']).toBe('no-store');
  expect(api.appended).toEqual([]);
  return problem;
};
const accepted = async (asked: Asked) => {
  const response = await send(asked);
  expect(response.statusCode, response.body).toBe(202);
  const { at_least } = ModerationAccepted.parse(response.json());
  expect(decodeAtLeast(at_least)).toEqual([{ topic: topics.roomEvents, partition: 3, offset: 0n }]);
  expect(api.appended).toHaveLength(1);
  const [{ key, value, headers = {} }] = api.appended as [NewRecord];
  return { key, headers, data: JSON.parse(String(value)) };
};

describe('202', () => {
  test('a kick names the newest session of the identity, and who asked for it why', async () => {
    given();
    const { key, headers, data } = await accepted(good.kick);
    expect(key).toBe('room-42');
    expect(headers).toMatchObject({ ce_type: 'participant.kick_requested', ce_subject: 'room-42' });
    expect(Math.abs(Date.parse(String(headers['ce_time'])) - Date.now())).toBeLessThan(5_000);
    expect(data).toEqual({ participantSid: 'PA_tom', identity: 'tom:phone', by: 'u-7', reason: 'off topic' });
  });

  test('a kick needs no body', async () => {
    given();
    expect((await accepted({ ...good.kick, payload: undefined })).data).not.toHaveProperty('reason');
  });

  test('a mute names the track too', async () => {
    given();
    const { headers, data } = await accepted(good.mute);
    expect(headers).toMatchObject({ ce_type: 'track.mute_requested' });
    expect(data).toEqual({ participantSid: 'PA_tom', identity: 'tom:phone', trackSid: 'TR_1', by: 'u-7' });
  });

  test('a ban for a while ends by the database’s clock', async () => {
    const nowMs = Date.now() + 3_600_000;
    given({ ...member('moderator'), nowMs });
    const payload = { userId: 'tom', privilege: 'publish_audio', seconds: 90, reason: 'noise' };
    const { headers, data } = await accepted({ ...good.ban, payload });
    expect(headers).toMatchObject({ ce_type: 'member.banned', ce_subject: 'room-42' });
    const { until, ...rest } = data;
    expect(rest).toEqual({ userId: 'tom', privilege: 'publish_audio', by: 'u-7', reason: 'noise' });
    expect(Date.parse(String(headers['ce_time']))).toBe(nowMs);
    expect(Date.parse(until)).toBe(nowMs + 90_000);
  });

  test('a ban without an end has none', async () => {
    given();
    expect((await accepted(good.ban)).data).toEqual({ userId: 'tom', privilege: 'data', by: 'u-7' });
  });

  test('a ban lifted', async () => {
    given();
    const { headers, data } = await accepted(good.unban);
    expect(headers).toMatchObject({ ce_type: 'member.unbanned' });
    expect(data).toEqual({ userId: 'tom', privilege: 'data', by: 'u-7' });
  });

  test('a ban of somebody who is no member, before anything happens', async () => {
    given(member('moderator'), { member: null });
    await accepted(good.ban);
  });

  test('whose identity looks like another person’s device is who LiveKit’s attributes say', async () => {
    given();
    const member = { role: 'host' as const, displayName: null, permissions: null, isRemoved: false };
    api.present.set('room-42', [{ ...tom, identity: 'tom:phone', userId: 'hans', member }]);
    await refused(good.kick, 403, 'forbidden');
    api.present.set('room-42', [{ ...tom, identity: 'hans', userId: 'tom' }]);
    await accepted({ ...good.kick, url: `${rooms}/room-42/participants/hans/kick` });
  });

  test('a kick of one’s own other device', async () => {
    given(member('moderator'));
    api.present.set('room-42', [{ ...tom, userId: 'u-7' }]);
    await accepted(good.kick);
  });

  test.each(['a/b', 'a%b', 'é', '\u{1F3A5}', 'tom#screen'])(
    'identity and room %j are used byte for byte',
    async (name) => {
      api.situations.set(at(name), member('host'));
      api.present.set(name, [{ ...tom, identity: name }]);
      const encoded = encodeURIComponent(name);
      const { key, data } = await accepted({ ...good.kick, url: `${rooms}/${encoded}/participants/${encoded}/kick` });
      expect([key, data.identity]).toEqual([name, name]);
    },
  );

  test('is logged with ids only, and counted without them', async () => {
    given();
    await accepted({ ...good.ban, payload: { userId: 'tom', privilege: 'join', reason: 'SECRET-REASON' } });
    const line = api.lines.map((each) => JSON.parse(each)).find(({ msg }) => msg === 'moderation appended');
    expect(line).toMatchObject({ operation: 'ban_user', room: 'room-42', user: 'u-7' });
    expect(api.lines.join('')).not.toContain('SECRET-REASON');
    const { values } = await api.metrics.requests.get();
    const labels = values.map((each) => each.labels);
    expect(labels).toContainEqual({ operation: 'ban_user', outcome: 'accepted', reason: 'valid' });
    expect(JSON.stringify(labels)).not.toMatch(/room-42|tom/);
  });
});

describe('403: nobody moderates a higher role, or the own rights', () => {
  const roles = ['host', 'moderator', 'speaker', 'listener'] as const;
  test.each(roles.flatMap((by) => roles.map((of) => [by, of] as const)))('a %s on a %s', async (by, of) => {
    given(member(by), member(of));
    const mayDo = by === 'host' || (by === 'moderator' && of !== 'host');
    for (const action of actions) {
      api.appended.length = 0;
      if (mayDo) await accepted(good[action]);
      else await refused(good[action], 403, 'forbidden');
    }
  });

  test.each(['host', 'moderator'] as const)('a %s may not ban, nor unban, who is asking', async (role) => {
    given(member(role));
    await refused({ ...good.ban, payload: { userId: 'u-7', privilege: 'join' } }, 403, 'forbidden');
    await refused({ ...good.unban, url: `${rooms}/room-42/bans/u-7?privilege=publish_audio` }, 403, 'forbidden');
  });

  test('who moderates nobody learns nothing of who is there', async () => {
    given(member('listener'));
    api.present.clear();
    await refused(good.kick, 403, 'forbidden');
  });
});

describe('404', () => {
  test('whoever is not there, for those who moderate', async () => {
    given();
    api.present.clear();
    await refused(good.kick, 404, 'participant_not_found');
    await refused(good.mute, 404, 'participant_not_found');
  });

  const strangers: readonly (readonly [string, Situation])[] = [
    ['no such room', { room: null, member: null }],
    ['no member', { member: null }],
    ['a host who was removed', { member: { role: 'host', isRemoved: true } }],
    ['no member of a closed room', { room: { state: 'closed' }, member: null }],
    ['no member, and banned', { member: null, facts: { bans: [{ privilege: 'join', untilMs: null, reason: null }] } }],
  ];
  test.each(actions)('every stranger gets the same bytes, and those of a join: %s', async (action) => {
    const answers = [];
    for (const [, situation] of strangers) {
      given(situation, member('host'));
      for (const asked of [good[action], { method: 'POST', url: `${rooms}/room-42/join` } as const]) {
        const { statusCode, headers, body } = await send(asked);
        const { date: _, ...stable } = headers;
        answers.push({ statusCode, headers: stable, body: body.replace(/"trace_id":"[^"]*"/, '') });
      }
    }
    expect(answers[0]).toMatchObject({ statusCode: 404 });
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    expect(api.appended).toEqual([]);
  });
});

test.each<readonly [string, Situation, number, string]>([
  ['banned', { facts: { bans: [{ privilege: 'join', untilMs: null, reason: null }] } }, 403, 'banned'],
  ['disabled', { facts: { user: { isDisabled: true } } }, 403, 'user_disabled'],
  ['logged out', { facts: { isLoginEnded: true } }, 401, 'unauthenticated'],
  ['of a closed room', { room: { state: 'closed' } }, 410, 'room_closed'],
  ['of a room whose time is over', { room: { closesAtMs: Date.now() - 1 } }, 410, 'room_closed'],
  ['in doubt', { facts: { doubt: 'person' } }, 503, 'projection_stale'],
])('a host who is %s moderates nobody', async (_, situation, status, code) => {
  for (const action of actions) {
    given({ ...situation, member: { role: 'host' } });
    await refused(good[action], status, code);
  }
});

test.each(actions)('a host moderates nobody by a login that is over, and by another does: %s', async (action) => {
  given(member('host'));
  api.endedLogins.add('login-1');
  await refused(good[action], 401, 'unauthenticated');
  const authorization = `Bearer ${await api.token({ sid: 'login-2' })}`;
  await accepted({ ...good[action], headers: { authorization } });
});

test.each<readonly [string, Situation]>([
  ['locked', { room: { isLocked: true } }],
  ['not open yet', { room: { opensAtMs: Date.now() + 90_000 } }],
  ['full', { room: { maxParticipants: 1 } }],
])('a host moderates a room that is %s, from outside', async (_, situation) => {
  given({ ...situation, member: { role: 'host' } });
  await accepted(good.ban);
});

describe('401', () => {
  test.each(actions)('%s: without a token, with a broken one, before anything else is said', async (action) => {
    given();
    for (const authorization of ['', 'Bearer x', 'Basic dTpw'])
      await refused({ ...good[action], headers: { authorization } }, 401, 'unauthenticated');
    await refused({ ...good[action], payload: { reason: 7 }, headers: { authorization: '' } }, 401, 'unauthenticated');
  });
});

describe('503: nothing is appended without a fresh decision, or reported without a position', () => {
  test.each(actions)('%s', async (action) => {
    given();
    api.failing.store = true;
    await refused(good[action], 503, 'store_unavailable');
    api.failing.store = false;
    api.freshness.isCurrent = false;
    await refused(good[action], 503, 'projection_stale');
    api.freshness.isCurrent = true;
    api.freshness.outdatedPeople = ['u-7'];
    await refused(good[action], 503, 'projection_stale');
    // Nothing that is decided by is keyed by the other person.
    api.freshness.outdatedPeople = ['tom'];
    expect((await send(good[action])).statusCode).toBe(202);
    api.appended.length = 0;
    api.failing.log = true;
    await refused(good[action], 503, 'store_unavailable');
    const response = await send(good[action]);
    expect(response.headers['retry-after']).toBe('1');
  });
});

describe('503: this process stood still while the facts were on their way', () => {
  test.each(actions)('%s', async (action) => {
    given();
    const answer = Promise.withResolvers<void>();
    const { asked } = api.facts;
    api.facts.answer = answer.promise;
    const sent = refused(good[action], 503, 'store_unavailable');
    await vi.waitFor(() => expect(api.facts.asked).toBeGreaterThan(asked));
    const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 5_001);
    answer.resolve();
    await sent.finally(() => clock.mockRestore());
    expect(api.lines.join()).toContain('decision_too_old');
  });
});

describe('bad requests', () => {
  const long = 'x'.repeat(257);
  const rows: readonly (readonly [string, Asked, number, string | undefined])[] = [
    ['a kick with a field of its own', { ...good.kick, payload: { until: 1 } }, 422, ''],
    ['a kick that names another session', { ...good.kick, payload: { participantSid: 'PA_x' } }, 422, ''],
    ['a kick on whose behalf', { ...good.kick, payload: { by: 'somebody' } }, 422, ''],
    ['a reason that is a number', { ...good.kick, payload: { reason: 7 } }, 422, '/reason'],
    ['a reason that is null', { ...good.kick, payload: { reason: null } }, 422, '/reason'],
    ['a reason of 513 bytes', { ...good.kick, payload: { reason: 'x'.repeat(513) } }, 422, '/reason'],
    ['a reason of 257 umlauts', { ...good.kick, payload: { reason: 'ä'.repeat(257) } }, 422, '/reason'],
    ['a reason with NUL', { ...good.kick, payload: { reason: 'a\0' } }, 422, '/reason'],
    ['a body that is a list', { ...good.kick, payload: [] }, 422, ''],
    ['an identity of 257 bytes', { ...good.kick, url: `${rooms}/room-42/participants/${long}/kick` }, 422, '/identity'],
    ['an identity with NUL', { ...good.kick, url: `${rooms}/room-42/participants/a%00/kick` }, 422, '/identity'],
    ['an identity in broken UTF-8', { ...good.kick, url: `${rooms}/room-42/participants/%ff/kick` }, 400, undefined],
    ['no identity', { ...good.kick, url: `${rooms}/room-42/participants//kick` }, 422, '/identity'],
    ['a room of 257 bytes', { ...good.kick, url: `${rooms}/${long}/participants/tom/kick` }, 422, '/roomId'],
    [
      'a track of 129 bytes',
      { ...good.mute, url: `${rooms}/room-42/participants/tom/tracks/${'T'.repeat(129)}/mute` },
      422,
      '/trackSid',
    ],
    ['a ban without a body', { ...good.ban, payload: undefined }, 422, ''],
    ['a ban of nobody', { ...good.ban, payload: { privilege: 'join' } }, 422, '/userId'],
    ['a ban of a list', { ...good.ban, payload: { userId: ['tom'], privilege: 'join' } }, 422, '/userId'],
    [
      'a ban of a name of 192 bytes',
      { ...good.ban, payload: { userId: 'x'.repeat(192), privilege: 'join' } },
      422,
      '/userId',
    ],
    ['a ban of nothing', { ...good.ban, payload: { userId: 'tom' } }, 422, '/privilege'],
    ['a ban of everything', { ...good.ban, payload: { userId: 'tom', privilege: '*' } }, 422, '/privilege'],
    ['a ban for 0 s', { ...good.ban, payload: { userId: 'tom', privilege: 'join', seconds: 0 } }, 422, '/seconds'],
    ['a ban for -1 s', { ...good.ban, payload: { userId: 'tom', privilege: 'join', seconds: -1 } }, 422, '/seconds'],
    ['a ban for 1.5 s', { ...good.ban, payload: { userId: 'tom', privilege: 'join', seconds: 1.5 } }, 422, '/seconds'],
    [
      'a ban for "60" s',
      { ...good.ban, payload: { userId: 'tom', privilege: 'join', seconds: '60' } },
      422,
      '/seconds',
    ],
    [
      'a ban for 11 years',
      { ...good.ban, payload: { userId: 'tom', privilege: 'join', seconds: 346_896_000 } },
      422,
      '/seconds',
    ],
    [
      'a ban until a time of the client',
      { ...good.ban, payload: { userId: 'tom', privilege: 'join', until: '2030-01-01T00:00:00Z' } },
      422,
      '',
    ],
    ['an unban of nothing', { ...good.unban, url: `${rooms}/room-42/bans/tom` }, 422, '/privilege'],
    ['an unban of everything', { ...good.unban, url: `${rooms}/room-42/bans/tom?privilege=all` }, 422, '/privilege'],
    [
      'an unban of two',
      { ...good.unban, url: `${rooms}/room-42/bans/tom?privilege=join&privilege=data` },
      422,
      '/privilege',
    ],
    ['an unban with more', { ...good.unban, url: `${rooms}/room-42/bans/tom?privilege=join&force=1` }, 422, ''],
    [
      'an unban of a name of 192 bytes',
      { ...good.unban, url: `${rooms}/room-42/bans/${'x'.repeat(192)}?privilege=join` },
      422,
      '/userId',
    ],
    [
      'half a document',
      { ...good.ban, payload: '{"userId":', headers: { 'content-type': 'application/json' } },
      400,
      undefined,
    ],
    [
      'a name twice',
      {
        ...good.ban,
        payload: '{"userId":"tom","userId":"ann","privilege":"join"}',
        headers: { 'content-type': 'application/json' },
      },
      400,
      undefined,
    ],
    [
      'a form',
      { ...good.ban, payload: 'userId=tom', headers: { 'content-type': 'application/x-www-form-urlencoded' } },
      415,
      undefined,
    ],
    [
      '17 KiB',
      { ...good.ban, payload: { userId: 'tom', privilege: 'join', reason: 'x'.repeat(17_000) } },
      413,
      undefined,
    ],
  ];
  test.each(rows)('%s', async (_, asked, status, path) => {
    given();
    const response = await send(asked);
    expect(response.statusCode, response.body).toBe(status);
    const problem = Problem.parse(response.json());
    if (path !== undefined) expect(problem.errors?.map((fault) => fault.path)).toContain(path);
    expect(api.appended).toEqual([]);
  });

  test.each(actions)('405: %s by another method', async (action) => {
    given();
    const others = (['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'] as const).filter(
      (method) => method !== good[action].method,
    );
    for (const method of others) {
      const response = await send({ method, url: good[action].url });
      expect([method, response.statusCode, response.headers.allow]).toEqual([method, 405, good[action].method]);
    }
    expect(api.appended).toEqual([]);
  });
});

test('429: one caller’s views and moderations count together, and not with joins', async () => {
  const limited = await startTestApi({ RATE_LIMIT_USER_PER_MINUTE: '3' });
  try {
    limited.situations.set(at('room-42'), member('host'));
    const authorization = `Bearer ${await limited.token()}`;
    const ask = async (asked: Asked): Promise<number> =>
      (await limited.app.inject({ method: asked.method, url: asked.url, headers: { authorization } })).statusCode;
    expect(await ask(good.unban)).toBe(202);
    expect(await ask({ method: 'GET', url: `${rooms}/room-42` })).toBe(200);
    expect(await ask(good.unban)).toBe(202);
    expect(await ask(good.unban)).toBe(429);
    expect(await ask({ method: 'POST', url: `${rooms}/room-42/join` })).toBe(200);
  } finally {
    await limited.close();
  }
});
