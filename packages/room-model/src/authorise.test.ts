import type { Privilege, ProblemCode } from '@realtime-service/contracts';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type Asked,
  added,
  anyOverrides,
  anyPrivilege,
  anyRole,
  dead,
  decide,
  doubtIn,
  fact,
  factsOf,
  fold,
  inSeconds,
  now,
  outcomeOf,
  removed,
  type Situation,
  secondsAgo,
  type Told,
} from '../test/given.ts';
import {
  authorise,
  authoriseModeration,
  type DenyReason,
  endOf,
  type Facts,
  identityOf,
  type Moderation,
  needsSeat,
  type OwnSession,
  replacedBy,
  type Verdict,
} from './authorise.ts';
import { permissionsOf, roles } from './permissions.ts';
import { keyOf } from './room.ts';

const present: readonly Partial<OwnSession>[] = [{ isLive: true }];
const leftSecondsAgo = (seconds: number, wasRemoved = false) => [
  { isLive: false, endedAtMs: secondsAgo(seconds), wasRemoved },
];

interface Row {
  readonly why: string;
  readonly given: Situation;
  readonly enter: 'allow' | DenyReason;
  readonly stay?: 'allow' | DenyReason;
  readonly request?: Partial<Asked>;
}

/** Where `stay` is not said, it is as `enter`. */
const check = (rows: readonly Row[]) =>
  test.each(rows)('$why: enter $enter', ({ given, enter, stay, request }) => {
    expect(outcomeOf(decide(given, { ...request, purpose: 'enter' }))).toBe(enter);
    expect(outcomeOf(decide({ ...given, seats: null }, { ...request, purpose: 'stay' }))).toBe(stay ?? enter);
  });

describe('who belongs here', () => {
  check([
    { why: 'a member', given: {}, enter: 'allow' },
    { why: 'a stranger', given: { member: null }, enter: 'not_a_member' },
    { why: 'a removed member', given: { member: { isRemoved: true } }, enter: 'member_removed' },
    { why: 'somebody of whom only an update is known', given: { member: { role: null } }, enter: 'not_a_member' },
    { why: 'a room that nobody knows', given: { room: null }, enter: 'unknown_room' },
    { why: 'a room that only LiveKit has named', given: { room: { state: 'unknown' } }, enter: 'unknown_room' },
    {
      why: "anybody, where access is 'authenticated'",
      given: { room: { access: 'authenticated' }, member: null },
      enter: 'allow',
    },
    {
      why: 'a removed member there',
      given: { room: { access: 'authenticated' }, member: { isRemoved: true } },
      enter: 'allow',
    },
    {
      why: 'somebody banned there',
      given: { room: { access: 'authenticated' }, member: null, bans: [{ privilege: 'join' }] },
      enter: 'banned',
    },
    { why: 'a disabled user', given: { isDisabled: true }, enter: 'user_disabled' },
    { why: 'a login that ended', given: { isLoginEnded: true }, enter: 'login_ended' },
    { why: 'a closed room', given: { room: { state: 'closed' } }, enter: 'room_closed' },
    {
      why: 'a closed room, for somebody inside',
      given: { room: { state: 'closed' }, sessions: present },
      enter: 'room_closed',
    },
    {
      why: 'a room whose time is over, for somebody inside',
      given: { room: { closesAtMs: now }, sessions: present },
      enter: 'schedule_over',
    },
    {
      why: 'a room whose time is over, for somebody who was put out with it',
      given: { room: { closesAtMs: now }, sessions: leftSecondsAgo(1) },
      enter: 'schedule_over',
    },
    {
      why: 'a room that closes in a moment',
      given: { room: { closesAtMs: now + 1 } },
      enter: 'allow',
    },
    {
      why: 'a removed member who is inside',
      given: { member: { isRemoved: true }, sessions: present },
      enter: 'member_removed',
    },
  ]);

  test.each([
    { member: null, room: { access: 'authenticated', defaultRole: 'observer' }, role: 'observer', displayName: null },
    {
      member: { isRemoved: true, role: 'host', permissions: { publishData: true } },
      room: { access: 'authenticated' },
      role: 'listener',
      displayName: null,
    },
    {
      member: { role: null, permissions: { publishData: true } },
      room: { access: 'authenticated' },
      role: 'listener',
      displayName: null,
    },
    {
      member: { role: 'host', displayName: 'Ann' },
      room: { access: 'authenticated' },
      role: 'host',
      displayName: 'Ann',
    },
  ] as const)('$role as $displayName, of $member where $room', ({ member, room, role, displayName }) => {
    expect(decide({ member, room })).toMatchObject({
      kind: 'allow',
      role,
      displayName,
      permissions: permissionsOf(role, null, []),
    });
  });
});

describe('bans', () => {
  check([
    { why: 'from joining', given: { bans: [{ privilege: 'join' }] }, enter: 'banned' },
    { why: 'from joining, while inside', given: { bans: [{ privilege: 'join' }], sessions: present }, enter: 'banned' },
    { why: 'until a moment ago', given: { bans: [{ privilege: 'join', untilMs: now }] }, enter: 'allow' },
    { why: 'for another moment', given: { bans: [{ privilege: 'join', untilMs: now + 1 }] }, enter: 'banned' },
    {
      why: 'until the end of time',
      given: { bans: [{ privilege: 'join', untilMs: Date.UTC(9999, 11, 31) }] },
      enter: 'banned',
    },
    {
      why: 'from something else',
      given: { bans: [{ privilege: 'data' }, { privilege: 'publish_audio' }] },
      enter: 'allow',
    },
  ]);

  test('take their rights away, and the answer says until when it holds', () => {
    const bans = [
      { privilege: 'data', untilMs: inSeconds(60) },
      { privilege: 'publish_audio', untilMs: inSeconds(30) },
      { privilege: 'publish_video', untilMs: secondsAgo(1) },
    ] as const;
    expect(decide({ bans })).toMatchObject({
      permissions: permissionsOf('speaker', null, ['data', 'publish_audio']),
      changesAtMs: inSeconds(30),
    });
    expect(decide({ bans: [{ privilege: 'data' }] })).toMatchObject({ changesAtMs: null });
  });
});

describe('a login that ends by policy', () => {
  const outcomes = (loginEndsAtMs: number | null) =>
    (['enter', 'stay', 'act'] as const).map((purpose) => outcomeOf(decide({}, { purpose, loginEndsAtMs })));

  test('counts until then', () => {
    expect(outcomes(now + 1)).toEqual(['allow', 'allow', 'allow']);
    expect(outcomes(now)).toEqual(['login_ended', 'login_ended', 'login_ended']);
    expect(outcomes(null)).toEqual(['allow', 'allow', 'allow']);
  });

  test('is asked about then, or at the end of a ban before it', () => {
    const bans = [{ privilege: 'data', untilMs: inSeconds(30) }] as const;
    expect(decide({ bans }, { loginEndsAtMs: inSeconds(20) })).toMatchObject({ changesAtMs: inSeconds(20) });
    expect(decide({ bans }, { loginEndsAtMs: inSeconds(40) })).toMatchObject({ changesAtMs: inSeconds(30) });
  });
});

describe('what only keeps people from entering throws nobody out', () => {
  const doors: { what: string; given: Situation; reason: DenyReason }[] = [
    { what: 'a locked room', given: { room: { isLocked: true } }, reason: 'locked' },
    { what: 'a room that is not open yet', given: { room: { opensAtMs: now + 1 } }, reason: 'not_open' },
    { what: 'doubt', given: { doubt: 'header' }, reason: 'suspect' },
  ];
  for (const { what, given, reason } of doors)
    describe(what, () => {
      check([
        { why: 'absent', given, enter: reason, stay: 'allow' },
        { why: 'inside', given: { ...given, sessions: present }, enter: 'allow' },
        { why: 'left 5 s ago', given: { ...given, sessions: leftSecondsAgo(5) }, enter: 'allow' },
        { why: 'left 119 s ago', given: { ...given, sessions: leftSecondsAgo(119) }, enter: 'allow' },
        { why: 'left 120 s ago', given: { ...given, sessions: leftSecondsAgo(120) }, enter: reason, stay: 'allow' },
        {
          why: 'left before the clock was set back by 119 s',
          given: { ...given, sessions: leftSecondsAgo(-119) },
          enter: 'allow',
        },
        {
          why: 'left before the clock was set back by more than that',
          given: { ...given, sessions: leftSecondsAgo(-120) },
          enter: reason,
          stay: 'allow',
        },
        {
          why: 'was removed 5 s ago, and added again',
          given: { ...given, sessions: leftSecondsAgo(5, true) },
          enter: reason,
          stay: 'allow',
        },
        {
          why: 'lost the connection 60 s ago, came back and was removed 5 s ago',
          given: { ...given, sessions: [...leftSecondsAgo(60), ...leftSecondsAgo(5, true)] },
          enter: reason,
          stay: 'allow',
        },
        {
          why: 'was removed on one device when another one lost the connection',
          given: {
            ...given,
            sessions: [{ identity: 'u7:phone', isLive: false, endedAtMs: secondsAgo(5) }, ...leftSecondsAgo(5, true)],
          },
          enter: reason,
          stay: 'allow',
        },
        {
          why: 'came back after a removal and lost the connection',
          given: { ...given, sessions: [...leftSecondsAgo(60, true), ...leftSecondsAgo(5)] },
          enter: 'allow',
        },
        {
          why: 'was removed before the clock was set back by an hour, came back and lost the connection',
          given: { ...given, sessions: [...leftSecondsAgo(-3_600, true), ...leftSecondsAgo(5)] },
          enter: 'allow',
        },
        {
          why: 'was removed on one device and is inside with another',
          given: { ...given, sessions: [...leftSecondsAgo(5, true), { identity: 'u7:phone' }] },
          enter: 'allow',
        },
      ]);
    });

  check([
    { why: 'locked, a host', given: { room: { isLocked: true }, member: { role: 'host' } }, enter: 'allow' },
    { why: 'locked, a moderator', given: { room: { isLocked: true }, member: { role: 'moderator' } }, enter: 'allow' },
    {
      why: 'locked, inside with another device',
      given: { room: { isLocked: true }, sessions: [{ identity: 'u7:phone' }] },
      enter: 'allow',
    },
    { why: 'opens now', given: { room: { opensAtMs: now } }, enter: 'allow' },
  ]);

  test('says when it opens', () => {
    expect(decide({ room: { opensAtMs: inSeconds(90) } })).toMatchObject({
      code: 'room_not_open',
      opensAtMs: inSeconds(90),
    });
  });
});

describe('seats', () => {
  const limited = (takenByOthers: number, sessions: Situation['sessions'] = []): Situation => ({
    room: { maxParticipants: 10 },
    seats: { takenByOthers, ownOtherDevices: sessions.length },
    sessions,
  });
  check([
    { why: 'the last one', given: limited(9), enter: 'allow' },
    { why: 'one more', given: limited(10), enter: 'full', stay: 'allow' },
    {
      why: 'far too many, after the limit was lowered',
      given: { ...limited(30), room: { maxParticipants: 9 } },
      enter: 'full',
      stay: 'allow',
    },
    { why: 'no limit', given: { seats: { takenByOthers: 1000, ownOtherDevices: 0 } }, enter: 'allow' },
    { why: 'a host needs one too', given: { ...limited(10), member: { role: 'host' } }, enter: 'full', stay: 'allow' },
    {
      why: 'the same device again',
      given: { ...limited(10), seats: { takenByOthers: 10, isHeld: true } },
      enter: 'allow',
    },
    {
      why: 'somebody whom nobody sees',
      given: { ...limited(10), member: { role: 'observer' } },
      enter: 'allow',
    },
    {
      why: 'one more device of somebody inside',
      given: limited(10, [{ identity: 'u7:phone' }]),
      request: { identity: 'u7:laptop' },
      enter: 'full',
      stay: 'allow',
    },
    { why: 'take_over makes no seat', given: limited(10), request: { takeOver: true }, enter: 'full', stay: 'allow' },
  ]);

  const devices = (
    mode: 'multi' | 'single_oldest' | 'single_newest',
    ownOtherDevices: number,
    max?: number,
  ): Situation => ({
    room: { devicePolicy: mode === 'multi' ? { mode, max } : { mode } },
    seats: { takenByOthers: ownOtherDevices, ownOtherDevices },
  });
  check([
    { why: 'multi, without a limit', given: devices('multi', 50), enter: 'allow' },
    { why: 'multi(2), the second device', given: devices('multi', 1, 2), enter: 'allow' },
    { why: 'multi(2), the third device', given: devices('multi', 2, 2), enter: 'device_conflict', stay: 'allow' },
    {
      why: 'multi(2), take_over ends no one device',
      given: devices('multi', 2, 2),
      request: { takeOver: true },
      enter: 'device_conflict',
      stay: 'allow',
    },
    {
      why: 'multi(1), lowered while two are inside',
      given: { ...devices('multi', 1, 1), seats: { ownOtherDevices: 1, isHeld: true } },
      enter: 'allow',
    },
    {
      why: 'multi, two other devices with tokens that are not used',
      given: { ...devices('multi', 2), seats: { ownOtherDevices: 2, ownUnusedTokens: 2 } },
      enter: 'device_conflict',
      stay: 'allow',
    },
    {
      why: 'multi, one other device with a token that is not used',
      given: { ...devices('multi', 9), seats: { ownOtherDevices: 9, ownUnusedTokens: 1 } },
      enter: 'allow',
    },
    {
      why: 'multi, the same device again',
      given: { ...devices('multi', 2), seats: { ownOtherDevices: 2, ownUnusedTokens: 2, isHeld: true } },
      enter: 'allow',
    },
    {
      why: 'single_newest, with tokens of the time when there were several devices',
      given: { ...devices('single_newest', 2), seats: { ownOtherDevices: 2, ownUnusedTokens: 2 } },
      enter: 'allow',
    },
    { why: 'single_oldest, alone', given: devices('single_oldest', 0), enter: 'allow' },
    {
      why: 'single_oldest, another device is inside',
      given: { ...devices('single_oldest', 1), sessions: present },
      enter: 'device_conflict',
      stay: 'allow',
    },
    {
      why: 'single_oldest, take_over',
      given: { ...devices('single_oldest', 1), sessions: present },
      request: { takeOver: true },
      enter: 'allow',
    },
    {
      why: 'single_oldest, at the door with the token that took over',
      given: { ...devices('single_oldest', 1), seats: { ownOtherDevices: 1, isHeld: true, isReserved: true } },
      enter: 'allow',
    },
    {
      why: 'single_oldest, the device that was taken over from',
      given: { ...devices('single_oldest', 1), seats: { ownOtherDevices: 1, isHeld: true }, sessions: present },
      enter: 'device_conflict',
      stay: 'allow',
    },
    { why: 'single_newest, the newcomer takes over', given: devices('single_newest', 1), enter: 'allow' },
  ]);

  describe('taking over', () => {
    const one = { devicePolicy: { mode: 'single_newest' } } as const;
    const both = [{ identity: 'u7:phone', deviceId: 'phone' }, { identity: 'u7' }];
    const phone = { purpose: 'stay', identity: 'u7:phone', dueIdentity: 'u7' } as const;
    test.each([
      [
        'an identity that the policy gives no more, with its successor inside',
        { room: one, sessions: both },
        phone,
        'device_conflict',
      ],
      ['the successor', { room: one, sessions: both }, { purpose: 'stay', dueIdentity: 'u7' }, 'allow'],
      ['before the successor is inside', { room: one, sessions: both.slice(0, 1) }, phone, 'allow'],
      [
        'after the successor left',
        { room: one, sessions: [both[0] ?? {}, { isLive: false, endedAtMs: secondsAgo(1) }] },
        phone,
        'allow',
      ],
      ['where people may have several devices', { sessions: both }, phone, 'allow'],
      ['at the door', { room: one, sessions: both }, { ...phone, purpose: 'enter' }, 'allow'],
    ] as const)('%s', (_, given, request, outcome) => {
      expect(outcomeOf(decide(given, request))).toBe(outcome);
    });

    test('names whom it ends: live ones by other identities, where there is one device', () => {
      const sessions = [...both, { identity: 'u7:desk', deviceId: 'desk', isLive: false, endedAtMs: now }];
      expect(replacedBy(factsOf({ room: one, sessions }), 'u7', 'u7')).toEqual(['u7:phone']);
      expect(replacedBy(factsOf({ room: one, sessions }), 'u7', 'u7:phone')).toEqual([]);
      expect(replacedBy(factsOf({ sessions }), 'u7', 'u7')).toEqual([]);
      expect(replacedBy(factsOf({ room: null, sessions }), 'u7', 'u7')).toEqual([]);
    });
  });

  test.each([
    [{ mode: 'multi' }, 'phone', 'f:1:ann:phone'],
    [{ mode: 'multi' }, null, 'f:1:ann'],
    [{ mode: 'multi', max: 2 }, 'phone', 'f:1:ann:phone'],
    [{ mode: 'single_newest' }, 'phone', 'f:1:ann'],
    [{ mode: 'single_oldest' }, 'phone', 'f:1:ann'],
  ] as const)('identity where %o with device %s is %s', (devicePolicy, deviceId, identity) => {
    expect(identityOf({ devicePolicy }, 'f:1:ann', deviceId)).toBe(identity);
  });

  test.each([
    [{ maxParticipants: null, devicePolicy: { mode: 'multi' } }, false],
    [{ maxParticipants: null, devicePolicy: { mode: 'single_newest' } }, false],
    [{ maxParticipants: 10, devicePolicy: { mode: 'multi' } }, true],
    [{ maxParticipants: null, devicePolicy: { mode: 'multi', max: 2 } }, true],
    [{ maxParticipants: null, devicePolicy: { mode: 'single_oldest' } }, true],
  ] as const)('%o needs a seat: %s', (room, needed) => {
    expect(needsSeat(room)).toBe(needed);
  });
});

/** Each refusal with the one situation that causes it alone, in the order in which they come before one another. */
const precedence: readonly { reason: DenyReason; code: ProblemCode; evidence: 'fact' | 'absence'; cause: Situation }[] =
  [
    { reason: 'user_disabled', code: 'user_disabled', evidence: 'fact', cause: { isDisabled: true } },
    { reason: 'login_ended', code: 'unauthenticated', evidence: 'fact', cause: { isLoginEnded: true } },
    { reason: 'not_a_member', code: 'room_not_found', evidence: 'absence', cause: { member: null } },
    { reason: 'room_closed', code: 'room_closed', evidence: 'fact', cause: { room: { state: 'closed' } } },
    { reason: 'banned', code: 'banned', evidence: 'fact', cause: { bans: [{ privilege: 'join' }] } },
    { reason: 'schedule_over', code: 'room_closed', evidence: 'fact', cause: { room: { closesAtMs: secondsAgo(1) } } },
    { reason: 'suspect', code: 'projection_stale', evidence: 'fact', cause: { doubt: 'person' } },
    { reason: 'not_open', code: 'room_not_open', evidence: 'fact', cause: { room: { opensAtMs: inSeconds(1) } } },
    { reason: 'locked', code: 'room_locked', evidence: 'fact', cause: { room: { isLocked: true } } },
    {
      reason: 'full',
      code: 'room_full',
      evidence: 'fact',
      cause: { room: { maxParticipants: 2 }, seats: { takenByOthers: 5, ownOtherDevices: 0 } },
    },
    {
      reason: 'device_conflict',
      code: 'device_conflict',
      evidence: 'fact',
      cause: { room: { devicePolicy: { mode: 'multi', max: 2 } }, seats: { takenByOthers: 5, ownOtherDevices: 2 } },
    },
  ];

describe('refusals', () => {
  test.each(precedence)('$reason answers $code, by $evidence', ({ reason, code, evidence, cause }) => {
    expect(decide(cause)).toMatchObject({ kind: 'deny', reason, code, evidence });
  });

  test.each(precedence.map((row, at) => ({ ...row, at })))(
    '$reason comes before all that follow',
    ({ reason, cause, at }) => {
      for (const later of precedence.slice(at)) {
        const room = { ...later.cause.room, ...cause.room };
        expect(outcomeOf(decide({ ...later.cause, ...cause, room }))).toBe(reason);
      }
    },
  );

  test('a stranger and a removed member learn nothing about the room', () => {
    const rooms: Situation[] = [
      ...precedence.map(({ cause }) => cause).filter(({ isDisabled, isLoginEnded }) => !isDisabled && !isLoginEnded),
      { room: null },
    ];
    const answers = rooms.flatMap((given) => [
      decide({ ...given, member: null }),
      decide({ ...given, member: { isRemoved: true } }),
    ]);
    expect(new Set(answers.map((answer) => answer.kind === 'deny' && answer.code))).toEqual(
      new Set(['room_not_found']),
    );
  });

  test.each<{ why: string; given: Situation; evidence: 'fact' | 'absence' }>([
    { why: 'no room', given: { room: null }, evidence: 'absence' },
    { why: 'no header yet', given: { room: { state: 'unknown' } }, evidence: 'absence' },
    { why: 'no member', given: { member: null }, evidence: 'absence' },
    { why: 'a member without a role', given: { member: { role: null } }, evidence: 'absence' },
    { why: 'a tombstone', given: { member: { isRemoved: true } }, evidence: 'fact' },
    { why: 'no member, and banned', given: { member: null, bans: [{ privilege: 'join' }] }, evidence: 'fact' },
    {
      why: 'no member, and once banned',
      given: { member: null, bans: [{ privilege: 'join', untilMs: now }] },
      evidence: 'absence',
    },
    { why: 'no member, and the room is closed', given: { member: null, room: { state: 'closed' } }, evidence: 'fact' },
    {
      why: "no member, and the room's time is over",
      given: { member: null, room: { closesAtMs: now } },
      evidence: 'fact',
    },
  ])('$why rests on $evidence', ({ given, evidence }) => {
    expect(decide(given, { purpose: 'stay' })).toMatchObject({ kind: 'deny', code: 'room_not_found', evidence });
  });
});

test('a ban says to people what was said for it', () => {
  const bans = [
    { privilege: 'data', reason: 'spam' },
    { privilege: 'join', untilMs: now, reason: 'an earlier one' },
  ] as const;
  expect(decide({ bans })).toMatchObject({ kind: 'allow' });
  expect(decide({ bans: [...bans, { privilege: 'join', reason: 'harassment' }] })).toMatchObject({
    reason: 'banned',
    message: 'harassment',
  });
  expect(decide({ bans: [{ privilege: 'join' }] })).toMatchObject({ reason: 'banned', message: null });
});

test('a removal and a closing say what was said for them, each to whom it puts out', () => {
  const member = { isRemoved: true, removalReason: 'left the team' };
  const room = { state: 'closed', closingReason: 'moved' } as const;
  expect(decide({ member })).toMatchObject({ reason: 'member_removed', message: 'left the team' });
  expect(decide({ member, room })).toMatchObject({ reason: 'member_removed', message: 'left the team' });
  expect(decide({ room })).toMatchObject({ reason: 'room_closed', message: 'moved' });
  expect(decide({ room, member: null })).toMatchObject({ reason: 'not_a_member', message: null });
  expect(decide({ member, room: { access: 'authenticated' } })).toMatchObject({ kind: 'allow' });
});

test.each([
  [{ state: 'open', closesAtMs: null }, null],
  [{ state: 'open', closesAtMs: now + 1 }, null],
  [{ state: 'open', closesAtMs: now }, 'schedule_over'],
  [{ state: 'closed', closesAtMs: null }, 'room_closed'],
  [{ state: 'closed', closesAtMs: now }, 'room_closed'],
] as const)('%o is over: %s', (room, end) => {
  expect(endOf(room, now)).toBe(end);
});

describe('moderation', () => {
  const everyRole = Object.keys(roles) as (keyof typeof roles)[];
  const memberOf = (given: Situation): Facts['member'] => factsOf(given).member;
  const moderate = (given: Situation, changes: Partial<Moderation> = {}): string =>
    outcomeOf(
      authoriseModeration(
        factsOf(given),
        {
          byUserId: 'mia',
          loginEndsAtMs: null,
          target: { userId: 'tom', member: memberOf({ member: { role: 'listener' } }) },
          concerns: 'rights',
          ...changes,
        },
        now,
      ),
    );

  test.each(everyRole.flatMap((by) => everyRole.map((of) => ({ by, of }))))(
    '$by on $of: hosts on everybody, moderators on all but hosts, others on nobody',
    ({ by, of }) => {
      const wanted = {
        host: 'allow',
        moderator: of === 'host' ? 'higher_role' : 'allow',
        speaker: 'no_moderator',
        listener: 'no_moderator',
        observer: 'no_moderator',
      }[by];
      const target = { userId: 'tom', member: memberOf({ member: { role: of } }) };
      for (const concerns of ['session', 'rights'] as const)
        expect(moderate({ member: { role: by } }, { target, concerns })).toBe(wanted);
    },
  );

  const host: Situation = { member: { role: 'host' } };
  const moderator: Situation = { member: { role: 'moderator' } };
  test.each<readonly [string, Situation, Partial<Moderation>, string]>([
    ['a host on the own rights, the last one or not', host, { target: { userId: 'mia', member: null } }, 'own_rights'],
    [
      'a moderator on the own rights',
      moderator,
      { target: { userId: 'mia', member: memberOf(moderator) } },
      'own_rights',
    ],
    [
      'a host on an own session, of another device',
      host,
      { target: { userId: 'mia', member: memberOf(host) }, concerns: 'session' },
      'allow',
    ],
    [
      'a listener on the own rights',
      { member: { role: 'listener' } },
      { target: { userId: 'mia', member: null } },
      'no_moderator',
    ],
    ['a host whose login is over', host, { loginEndsAtMs: now }, 'login_ended'],
    ['a host whose login goes on', host, { loginEndsAtMs: now + 1 }, 'allow'],
    ['a moderator on a stranger', moderator, { target: { userId: 'x', member: null } }, 'allow'],
    [
      'a moderator on somebody who was a host once',
      moderator,
      { target: { userId: 'x', member: memberOf({ member: { role: 'host', isRemoved: true } }) } },
      'allow',
    ],
    ['a moderator on a session of nobody known', moderator, { target: { userId: null, member: null } }, 'allow'],
    ['a moderator on whoever is not there', moderator, { target: null }, 'allow'],
    ['a listener on whoever is not there', { member: { role: 'listener' } }, { target: null }, 'no_moderator'],
    ['a stranger', { member: null }, {}, 'not_a_member'],
    ['a moderator who was removed', { member: { role: 'moderator', isRemoved: true } }, {}, 'member_removed'],
    ['a moderator who is banned', { ...moderator, bans: [{ privilege: 'join' }] }, {}, 'banned'],
    ['a moderator who may not speak', { ...moderator, bans: [{ privilege: 'publish_audio' }] }, {}, 'allow'],
    ['a moderator in doubt', { ...moderator, doubt: 'person' }, {}, 'suspect'],
    ['a moderator in doubt, inside', { ...moderator, doubt: 'person', sessions: present }, {}, 'suspect'],
    ['a moderator of a room whose header is in doubt', { ...moderator, doubt: 'header' }, {}, 'allow'],
    [
      'a guest who is a moderator by a header that is in doubt',
      { room: { access: 'authenticated', defaultRole: 'moderator' }, member: null, doubt: 'header' },
      {},
      'suspect',
    ],
    ['a moderator of a closed room', { ...moderator, room: { state: 'closed' } }, {}, 'room_closed'],
    ['a moderator of a room whose time is over', { ...moderator, room: { closesAtMs: now } }, {}, 'schedule_over'],
    ['a moderator of a room that is not open yet', { ...moderator, room: { opensAtMs: now + 1 } }, {}, 'allow'],
    ['a moderator who is not inside a locked room', { ...moderator, room: { isLocked: true } }, {}, 'allow'],
    [
      'everybody on everybody, where all who come are moderators',
      { room: { access: 'authenticated', defaultRole: 'moderator' }, member: null },
      { target: { userId: 'tom', member: null } },
      'allow',
    ],
    [
      'a moderator on a guest of a room whose guests are hosts',
      { ...moderator, room: { access: 'authenticated', defaultRole: 'host' } },
      { target: { userId: 'tom', member: null } },
      'higher_role',
    ],
  ])('%s', (_why, given, changes, outcome) => {
    expect(moderate(given, changes)).toBe(outcome);
  });
});

/**
 * The rule once more, as the documents tell it and as naively as can be: a list of refusals, of which the first that
 * applies counts. Shares nothing with the rule but the types.
 */
const restated = (
  { room, member, bans, user, isLoginEnded, doubt, ownSessions, seats }: Facts,
  { purpose, takeOver }: Asked,
): Verdict => {
  const isBanned = (privilege: Privilege): boolean =>
    bans.some((ban) => ban.privilege === privilege && !(ban.untilMs !== null && ban.untilMs <= now));
  const isMember = !!member && !!member.role && !member.isRemoved;
  const role = isMember ? member.role : room?.access === 'authenticated' ? room.defaultRole : null;
  const removals = ownSessions.flatMap(({ wasRemoved, endedAtMs }) =>
    wasRemoved && endedAtMs !== null ? [endedAtMs] : [],
  );
  const since = Math.max(now - 2 * 60 * 1000, ...removals);
  const counted = ownSessions.filter(({ isLive, endedAtMs }) => isLive || (endedAtMs !== null && endedAtMs > since));
  const enters = purpose === 'enter';
  const isOutside = enters && counted.length === 0;
  const isSeen = !((isMember ? member.permissions?.hidden : undefined) ?? role === 'observer');
  const counts = enters && seats !== null && isSeen;
  const needsNewSeat = counts && !seats.isHeld;
  const isKnown = room !== null && room.state !== 'unknown';
  const isOver = room !== null && room.closesAtMs !== null && room.closesAtMs <= now;
  const removal = room?.state === 'closed' || isOver || isBanned('join') ? 'fact' : 'absence';
  const { mode, max = Number.POSITIVE_INFINITY } = { mode: undefined, max: undefined, ...room?.devicePolicy };
  const refusals: [applies: boolean, reason: DenyReason, code: ProblemCode, evidence?: 'fact' | 'absence'][] = [
    [user?.isDisabled === true, 'user_disabled', 'user_disabled'],
    [isLoginEnded, 'login_ended', 'unauthenticated'],
    [!isKnown, 'unknown_room', 'room_not_found', 'absence'],
    [role === null && member?.isRemoved === true, 'member_removed', 'room_not_found'],
    [role === null, 'not_a_member', 'room_not_found', removal],
    [room?.state === 'closed', 'room_closed', 'room_closed'],
    [isBanned('join'), 'banned', 'banned'],
    [isOver, 'schedule_over', 'room_closed'],
    [purpose === 'act' && (isMember ? doubt === 'person' : doubt !== null), 'suspect', 'projection_stale'],
    [isOutside && doubt !== null, 'suspect', 'projection_stale'],
    [isOutside && (room?.opensAtMs ?? 0) > now, 'not_open', 'room_not_open'],
    [isOutside && room?.isLocked === true && role !== 'host' && role !== 'moderator', 'locked', 'room_locked'],
    [
      counts && mode === 'single_oldest' && seats.ownOtherDevices > 0 && !takeOver && !seats.isReserved,
      'device_conflict',
      'device_conflict',
    ],
    [
      needsNewSeat && (seats?.takenByOthers ?? 0) >= (room?.maxParticipants ?? Number.POSITIVE_INFINITY),
      'full',
      'room_full',
    ],
    [needsNewSeat && mode === 'multi' && (seats?.ownOtherDevices ?? 0) >= max, 'device_conflict', 'device_conflict'],
    [needsNewSeat && mode === 'multi' && (seats?.ownUnusedTokens ?? 0) >= 2, 'device_conflict', 'device_conflict'],
  ];
  const refusal = refusals.find(([applies]) => applies);
  if (refusal !== undefined) {
    const [, reason, code, evidence = 'fact'] = refusal;
    return {
      kind: 'deny',
      code,
      reason,
      evidence,
      opensAtMs: reason === 'not_open' ? (room?.opensAtMs ?? null) : null,
      message: null,
    };
  }
  const own = isMember ? (member.permissions ?? {}) : {};
  const mayPublish = role === 'host' || role === 'moderator' || role === 'speaker';
  const maySend = (
    source: 'camera' | 'microphone' | 'screen_share' | 'screen_share_audio',
    ...privileges: Privilege[]
  ) => ((own.publishSources?.includes(source) ?? mayPublish) && !privileges.some(isBanned) ? [source] : []);
  const ends = bans
    .filter(({ privilege, untilMs }) => untilMs !== null && isBanned(privilege) && untilMs > now)
    .map(({ untilMs }) => untilMs ?? 0);
  return {
    kind: 'allow',
    role: role ?? 'listener',
    displayName: isMember ? member.displayName : null,
    permissions: {
      publishSources: [
        ...maySend('camera', 'publish_video'),
        ...maySend('microphone', 'publish_audio'),
        ...maySend('screen_share', 'publish_video', 'screen_share'),
        ...maySend('screen_share_audio', 'publish_audio', 'screen_share'),
      ],
      subscribe: own.subscribe ?? true,
      publishData: (own.publishData ?? mayPublish) && !(own.hidden ?? role === 'observer') && !isBanned('data'),
      hidden: own.hidden ?? role === 'observer',
      moderate: role === 'host' || role === 'moderator',
      dispatchAgents: own.dispatchAgents ?? role === 'host',
    },
    changesAtMs: ends.length === 0 ? null : Math.min(...ends),
  };
};

type Sample<T> = T extends fc.Arbitrary<infer Value> ? Value : never;
const sample = <T>(arbitrary: fc.Arbitrary<T>, numRuns: number): T[] =>
  fc.sample(arbitrary, { seed: 20260301, numRuns });
const rarely = fc.nat(11).map((chance) => chance === 0);
const isoNear = fc.constantFrom(secondsAgo(60), now, inSeconds(60)).map((ms) => new Date(ms).toISOString());
const sometimes = <T>(arbitrary: fc.Arbitrary<T>, freq = 3) => fc.option(arbitrary, { freq, nil: undefined });

const anyRoom = fc.record({
  header: fc.record({
    access: fc.constantFrom('members' as const, 'members' as const, 'authenticated' as const),
    defaultRole: anyRole,
    opensAt: sometimes(isoNear),
    closesAt: sometimes(isoNear),
    maxParticipants: sometimes(fc.integer({ min: 1, max: 5 })),
    devicePolicy: fc.constantFrom(
      { mode: 'multi' as const },
      { mode: 'multi' as const, max: 2 },
      { mode: 'single_oldest' as const },
      { mode: 'single_newest' as const },
    ),
  }),
  isKnown: rarely.map((unknown) => !unknown),
  isLocked: rarely,
  isClosed: rarely,
  isDoubted: rarely,
});

const roomLog = (room: string, { header, isKnown, isLocked, isClosed, isDoubted }: Sample<typeof anyRoom>): Told[] => [
  ...(isKnown ? [fact('room.created', header, { room })] : []),
  ...(isKnown && isLocked ? [fact('room.locked', undefined, { room })] : []),
  ...(isKnown && isClosed ? [fact('room.closed', undefined, { room })] : []),
  ...(isDoubted ? [dead('room.locked', 7, { room })] : []),
];

const anyPerson = fc.record({ isDisabled: rarely, isEnabled: fc.boolean(), isEnded: rarely });

const personLog = (userId: string, { isDisabled, isEnabled, isEnded }: Sample<typeof anyPerson>): Told[] => [
  ...(isDisabled ? [fact('user.disabled', { userId })] : []),
  ...(isDisabled && isEnabled ? [fact('user.enabled', { userId })] : []),
  ...(isEnded ? [fact('login.ended', { userId, sid: 'login' })] : []),
];

/** What is said about one person in one room, and the person's own sessions and seats there. */
const anyCell = fc.record({
  role: sometimes(anyRole, 5),
  overrides: anyOverrides,
  isUpdatedOnly: rarely,
  isRemoved: rarely,
  isDoubted: rarely,
  bans: fc.uniqueArray(fc.record({ privilege: anyPrivilege, until: sometimes(isoNear), isLifted: rarely }), {
    maxLength: 2,
    selector: ({ privilege }) => privilege,
  }),
  sessions: fc.array(
    fc.record({
      identity: fc.constantFrom('me', 'me:phone'),
      deviceId: fc.constant(null),
      isLive: fc.boolean(),
      endedAtMs: fc.option(fc.constantFrom(secondsAgo(5), secondsAgo(119), secondsAgo(120), secondsAgo(3600))),
      wasRemoved: rarely,
    }),
    { maxLength: 2 },
  ),
  seats: fc.option(
    fc.record({
      takenByOthers: fc.nat(6),
      ownOtherDevices: fc.nat(3),
      ownUnusedTokens: fc.nat(3),
      isHeld: fc.constantFrom(true, false, false),
      isReserved: rarely,
    }),
    { freq: 2 },
  ),
  request: fc
    .record({
      purpose: fc.constantFrom('enter' as const, 'enter' as const, 'stay' as const, 'act' as const),
      identity: fc.constantFrom('me', 'me:phone'),
      takeOver: fc.boolean(),
    })
    .map((asked): Asked => ({ ...asked, dueIdentity: asked.identity, loginEndsAtMs: null })),
});

const cellLog = (
  room: string,
  userId: string,
  { role, overrides, isUpdatedOnly, isRemoved, isDoubted, bans }: Sample<typeof anyCell>,
): Told[] => [
  ...(isDoubted ? [dead('member.banned', { userId }, { room })] : []),
  ...(isUpdatedOnly ? [fact('member.updated', { userId, permissions: overrides }, { room, sequence: '2' })] : []),
  ...(role !== undefined && !isUpdatedOnly
    ? [
        fact(
          'member.added',
          { userId, role, displayName: `${userId} of ${room}`, permissions: overrides ?? undefined },
          { room },
        ),
      ]
    : []),
  ...(isRemoved ? [removed(userId, { room, sequence: '3' }), added(userId, 'host', { room, sequence: '1' })] : []),
  ...bans.flatMap(({ privilege, until, isLifted }) => [
    fact('member.banned', { userId, privilege, until }, { room }),
    ...(isLifted ? [fact('member.unbanned', { userId, privilege }, { room })] : []),
  ]),
];

describe('every person in every room', () => {
  const size = 200;
  const rooms = sample(anyRoom, size).map((told, at) => ({ room: `room-${at}`, told }));
  const people = sample(anyPerson, size).map((told, at) => ({ userId: `user-${at}`, told }));
  const cells = sample(anyCell, size * size).map((cell, at) => ({
    room: `room-${Math.floor(at / size)}`,
    userId: `user-${at % size}`,
    cell,
  }));
  const set = fold([
    ...rooms.flatMap(({ room, told }) => roomLog(room, told)),
    ...people.flatMap(({ userId, told }) => personLog(userId, told)),
    ...cells.flatMap(({ room, userId, cell }) => cellLog(room, userId, cell)),
  ]);
  const bansOf = Map.groupBy(set.bans.values(), ({ roomId, userId }) => keyOf(roomId, userId));
  const asked = cells.map(({ room, userId, cell }) => ({
    facts: {
      room: set.rooms.get(room) ?? null,
      member: set.members.get(keyOf(room, userId)) ?? null,
      bans: (bansOf.get(keyOf(room, userId)) ?? []).filter(({ isLifted }) => !isLifted),
      user: set.users.get(userId) ?? null,
      isLoginEnded: set.logins.has(keyOf(userId, 'login')),
      doubt: doubtIn(set, userId, room),
      ownSessions: cell.sessions,
      seats: cell.request.purpose === 'stay' ? null : cell.seats,
    } satisfies Facts,
    request: cell.request,
  }));

  test('is judged as the documents say: 40,000 verdicts', () => {
    const outcomes = new Map<string, number>();
    for (const { facts, request } of asked) {
      const verdict = authorise(facts, request, now);
      expect(verdict).toEqual(restated(facts, request));
      outcomes.set(outcomeOf(verdict), (outcomes.get(outcomeOf(verdict)) ?? 0) + 1);
    }
    expect(asked).toHaveLength(40_000);
    // A matrix in which a rule never comes up would say nothing about it.
    const reasons: DenyReason[] = [...precedence.map(({ reason }) => reason), 'unknown_room', 'member_removed'];
    for (const outcome of ['allow', ...reasons])
      expect([outcome, (outcomes.get(outcome) ?? 0) >= 20]).toEqual([outcome, true]);
  });

  test("'stay' never refuses where 'enter' allows, and gives the same rights", () => {
    for (const { facts, request } of asked) {
      const enter = authorise(facts, { ...request, purpose: 'enter' }, now);
      if (enter.kind === 'allow')
        expect(authorise({ ...facts, seats: null }, { ...request, purpose: 'stay' }, now)).toEqual(enter);
    }
  });

  test('nobody without overrides has more than the row of the role', () => {
    for (const { facts, request } of asked) {
      const verdict = authorise(
        { ...facts, member: facts.member && { ...facts.member, permissions: null } },
        request,
        now,
      );
      if (verdict.kind === 'deny') continue;
      const row = permissionsOf(verdict.role, null, []);
      for (const source of verdict.permissions.publishSources) expect(row.publishSources).toContain(source);
      expect({ ...verdict.permissions, publishSources: [], publishData: true }).toEqual({
        ...row,
        publishSources: [],
        publishData: true,
      });
      expect(verdict.permissions.publishData && !row.publishData).toBe(false);
    }
  });

  test('is judged without being changed', () => {
    const facts = factsOf({
      bans: [{ privilege: 'data' }],
      sessions: [{}],
      seats: { takenByOthers: 1, ownOtherDevices: 1 },
    });
    const before = structuredClone(facts);
    authorise(facts, { purpose: 'enter', takeOver: false, loginEndsAtMs: null }, now);
    expect(facts).toEqual(before);
  });
});
