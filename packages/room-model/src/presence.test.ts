import type { LivekitFact, LivekitParticipant, LivekitRoom } from '@realtime-service/contracts';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { hear, life, livePeople, now, participant, theRoom } from '../test/given.ts';
import { evolvePresence, isSeen, type Session, sessionOwner, wasRemoved } from './presence.ts';
import { loginEndOf } from './signed-attributes.ts';
import type { WorkingSet } from './working-set.ts';

const first = life('RM_1');
const second = life('RM_2', 600);
const started = (room: LivekitRoom): LivekitFact => ({ type: 'room_started', room });
const finished = (room: LivekitRoom): LivekitFact => ({ type: 'room_finished', room });
const joined = (room: LivekitRoom, who: LivekitParticipant): LivekitFact => ({
  type: 'participant_joined',
  room,
  participant: who,
});
const left = (room: LivekitRoom, who: LivekitParticipant, disconnectReason?: string): LivekitFact => ({
  type: 'participant_left',
  room,
  participant: { ...who, version: (who.version ?? 0) + 1, ...(disconnectReason !== undefined && { disconnectReason }) },
});
const aborted = (room: LivekitRoom, who: LivekitParticipant, disconnectReason = 'JOIN_FAILURE'): LivekitFact => ({
  type: 'participant_connection_aborted',
  room,
  participant: { ...who, disconnectReason },
});
const observed = (
  listedAtMs: number,
  room: LivekitRoom | null,
  participants: LivekitParticipant[] = [],
): LivekitFact => ({
  type: 'observed',
  observed: { roomName: theRoom, listedAtMs, room, participants },
});

const ann = participant('PA_1', 'ann', 1);
const annAgain = participant('PA_2', 'ann', 2);
const bob = participant('PA_3', 'bob', 3);
const sids = (set: WorkingSet): string[] => livePeople(set).map(({ participantSid }) => participantSid);
const sessionIn = (set: WorkingSet, room: LivekitRoom, sid: string): Session | undefined =>
  set.session(theRoom, room.sid, sid);

/** A list that was asked for before, or after, all that `hear` hands over. */
const before = now - 1;
const after = now + 1000;

describe('who is live', () => {
  test.each<{ why: string; given: LivekitFact[]; then: string[] }>([
    { why: 'whoever joined', given: [started(first), joined(first, ann), joined(first, bob)], then: ['PA_1', 'PA_3'] },
    { why: 'also where room_started was lost', given: [joined(first, ann)], then: ['PA_1'] },
    { why: 'not who left', given: [joined(first, ann), left(first, ann)], then: [] },
    {
      why: 'not who left before the news of the joining came',
      given: [left(first, ann), joined(first, ann)],
      then: [],
    },
    { why: 'not who never came up', given: [aborted(first, ann), joined(first, ann)], then: [] },
    {
      why: 'not who left, however new the version',
      given: [left(first, ann), joined(first, { ...ann, version: 99 })],
      then: [],
    },
    {
      why: 'a new sid after a full reconnect',
      given: [joined(first, ann), left(first, ann), joined(first, annAgain)],
      then: ['PA_2'],
    },
    { why: "not ended by an older session's end", given: [joined(first, annAgain), left(first, ann)], then: ['PA_2'] },
    { why: 'of one identity the latest to join', given: [joined(first, ann), joined(first, annAgain)], then: ['PA_2'] },
    {
      why: 'of one identity the latest to join, in any order',
      given: [joined(first, annAgain), joined(first, ann)],
      then: ['PA_2'],
    },
    {
      why: 'nobody whom a session that left had replaced',
      given: [joined(first, ann), left(first, annAgain), joined(first, annAgain)],
      then: [],
    },
    {
      why: 'another identity of one user',
      given: [joined(first, ann), joined(first, { ...bob, attributes: { 'rt.user': 'ann' } })],
      then: ['PA_1', 'PA_3'],
    },
    { why: 'nobody after the end', given: [joined(first, ann), joined(first, bob), finished(first)], then: [] },
    { why: 'nobody who is heard of after the end', given: [finished(first), joined(first, ann)], then: [] },
    { why: 'nobody of an older life, after a crash', given: [joined(first, ann), started(second)], then: [] },
    { why: 'nobody of an older life, after a crash', given: [joined(first, ann), joined(second, bob)], then: ['PA_3'] },
    { why: 'nobody of an older life, after a crash', given: [joined(first, ann), left(second, bob)], then: [] },
    {
      why: 'nobody of an older life, after a crash, where no times are said',
      given: [joined({ sid: 'RM_0', name: theRoom }, ann), joined({ sid: 'RM_9', name: theRoom }, bob)],
      then: ['PA_3'],
    },
    {
      why: 'nobody after an end that says no times',
      given: [joined(first, ann), finished({ sid: 'RM_1', name: theRoom })],
      then: [],
    },
    {
      why: 'both of one identity that joined at one time: nothing says which is the later',
      given: [joined(first, ann), joined(first, participant('PA_2', 'ann', 1))],
      then: ['PA_1', 'PA_2'],
    },
    {
      why: 'a late room_started of an older life ends nothing',
      given: [joined(second, bob), started(first)],
      then: ['PA_3'],
    },
    {
      why: 'a late room_finished of an older life ends nothing',
      given: [joined(second, bob), finished(first)],
      then: ['PA_3'],
    },
    { why: 'a late join in an older life is over', given: [joined(second, bob), joined(first, ann)], then: ['PA_3'] },
    {
      why: 'one identity in two lives',
      given: [joined(second, participant('PA_9', 'ann', 1)), joined(first, annAgain)],
      then: ['PA_9'],
    },
    {
      why: 'one identity in two lives, whatever their clocks say',
      given: [joined(second, participant('PA_9', 'ann', 1)), left(first, annAgain)],
      then: ['PA_9'],
    },
    {
      why: 'a room without its times is no newer one',
      given: [joined(second, bob), joined({ sid: 'RM_0', name: theRoom }, ann)],
      then: ['PA_3'],
    },
    {
      why: 'seconds where there are no milliseconds',
      given: [
        joined({ sid: 'RM_9', name: theRoom, creationTime: 1001 }, bob),
        joined({ sid: 'RM_0', name: theRoom, creationTime: 1000 }, ann),
      ],
      then: ['PA_3'],
    },
  ])('$why', ({ given, then }) => {
    expect(sids(hear(given))).toEqual(then);
  });

  test('a room has one life at a time', () => {
    expect(hear([started(first)]).lives.get(theRoom)).toEqual({
      roomId: theRoom,
      roomSid: 'RM_1',
      createdAtMs: first.creationTimeMs,
      isLive: true,
      lastFactAtMs: now,
    });
    expect(hear([started(first), finished(first)]).lives.get(theRoom)?.isLive).toBe(false);
    expect(hear([finished(first), started(first)]).lives.get(theRoom)?.isLive).toBe(false);
    expect(hear([finished(second), started(first)]).lives.get(theRoom)).toMatchObject({
      roomSid: 'RM_2',
      isLive: false,
    });
    expect(hear([started(second), finished(first)]).lives.get(theRoom)).toMatchObject({
      roomSid: 'RM_2',
      isLive: true,
    });
  });
});

describe('what a session remembers', () => {
  test('user, device, login and trace are the signed attributes, never parts of the identity', () => {
    const trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const attributes = {
      'rt.user': 'f:1:ann',
      'rt.device': 'phone',
      'rt.login': 's1',
      'rt.trace': trace,
      other: 'x',
    };
    const set = hear([joined(first, { ...ann, identity: 'f:1:ann:phone', attributes })]);
    expect(sessionIn(set, first, 'PA_1')).toMatchObject({
      userId: 'f:1:ann',
      deviceId: 'phone',
      loginId: 's1',
      trace,
    });
    const { attributes: _, ...stranger } = ann;
    expect(sessionIn(hear([joined(first, { ...stranger, identity: 'bob:phone' })]), first, 'PA_1')).toMatchObject({
      userId: null,
      deviceId: null,
    });
  });

  test.each([
    ['rt.user', { userId: null }],
    ['rt.device', { deviceId: null }],
    ['rt.login', { loginId: null }],
    ['rt.trace', { trace: null }],
  ])('an attribute %s that the desk would never have signed was not said', (name, unsaid) => {
    for (const value of ['', 'x'.repeat(5_000), 'a\0b']) {
      const set = hear([joined(first, { ...ann, attributes: { [name]: value } })]);
      expect(sessionIn(set, first, 'PA_1')).toMatchObject(unsaid);
    }
  });

  test('an end of the login that the desk would never have signed was not said', () => {
    expect(loginEndOf({ attributes: { 'rt.login_end': '1767225600' } })).toBe(1_767_225_600_000);
    expect(loginEndOf({})).toBeNull();
    for (const value of ['', 'soon', '-1', '1.5', '1e9', '0x10', '9'.repeat(13)])
      expect(loginEndOf({ attributes: { 'rt.login_end': value } })).toBeNull();
  });

  test('kind and visibility are kept apart', () => {
    const set = hear([
      joined(first, { ...ann, kind: 'EGRESS', permission: { hidden: true } }),
      joined(first, { ...bob, identity: 'EG_bob' }),
    ]);
    expect(sessionIn(set, first, 'PA_1')).toMatchObject({ kind: 'EGRESS', isHidden: true });
    expect(sessionIn(set, first, 'PA_3')).toMatchObject({ kind: 'STANDARD', isHidden: false });
  });

  test.each<{ given: LivekitFact[]; reason: string }>([
    { given: [joined(first, ann), left(first, ann, 'PARTICIPANT_REMOVED')], reason: 'PARTICIPANT_REMOVED' },
    { given: [joined(first, ann), left(first, ann, 'QUANTUM_DRIFT')], reason: 'QUANTUM_DRIFT' },
    { given: [joined(first, ann), left(first, ann)], reason: 'UNKNOWN_REASON' },
    { given: [joined(first, ann), aborted(first, ann)], reason: 'CONNECTION_ABORTED' },
    { given: [joined(first, ann), aborted(first, ann, 'PARTICIPANT_REMOVED')], reason: 'PARTICIPANT_REMOVED' },
    {
      given: [joined(first, ann), left(first, ann, 'PARTICIPANT_REMOVED'), aborted(first, ann), finished(first)],
      reason: 'PARTICIPANT_REMOVED',
    },
    { given: [joined(first, ann), joined(first, annAgain)], reason: 'DUPLICATE_IDENTITY' },
    { given: [joined(first, annAgain), joined(first, ann)], reason: 'DUPLICATE_IDENTITY' },
    { given: [joined(first, ann), finished(first)], reason: 'ROOM_CLOSED' },
    { given: [joined(first, ann), started(second)], reason: 'room_replaced' },
    { given: [joined(second, bob), joined(first, ann)], reason: 'room_replaced' },
    { given: [joined(first, ann), observed(after, first, [])], reason: 'not_listed' },
    { given: [joined(first, ann), observed(after, null)], reason: 'not_listed' },
    { given: [joined(first, ann), observed(after, first, [annAgain])], reason: 'DUPLICATE_IDENTITY' },
  ])('why it ended: $reason', ({ given, reason }) => {
    expect(sessionIn(hear(given), first, 'PA_1')).toMatchObject({
      isLive: false,
      endReason: reason,
      endedAtMs: expect.any(Number),
    });
  });

  test('all of a participant that says the least, with times in seconds', () => {
    const room: LivekitRoom = { sid: 'RM_1', name: theRoom, creationTime: 1_000 };
    const set = hear([joined(room, { sid: 'PA_1', identity: 'ann', kind: 'STANDARD', joinedAt: 1_001 })]);
    expect(set.lives.get(theRoom)).toMatchObject({ createdAtMs: 1_000_000 });
    expect(sessionIn(set, room, 'PA_1')).toEqual({
      roomId: theRoom,
      roomSid: 'RM_1',
      participantSid: 'PA_1',
      identity: 'ann',
      userId: null,
      deviceId: null,
      loginId: null,
      trace: null,
      kind: 'STANDARD',
      isHidden: false,
      isLive: true,
      joinedAtMs: 1_001_000,
      version: 0,
      endReason: null,
      endedAtMs: null,
      isEndTold: false,
      lastFactAtMs: now,
    });
  });

  test('whose it was, where the news of the leaving does not say it', () => {
    const { attributes: _, ...nobody } = ann;
    const set = hear([joined(first, ann), left(first, nobody)]);
    expect(sessionIn(set, first, 'PA_1')).toMatchObject({ isLive: false, userId: 'ann' });
  });

  test('others are told whose it is as far as it is known, and of machines and hidden people nothing', () => {
    const named = { participantSid: 'PA_1', identity: 'ann:phone', userId: 'ann', deviceId: 'phone' };
    expect(sessionOwner(named)).toEqual(named);
    const nameless = { participantSid: 'PA_1', identity: 'EG_1' };
    expect(Object.keys(sessionOwner({ ...nameless, userId: null, deviceId: null }))).toEqual(Object.keys(nameless));
    expect(isSeen({ kind: 'STANDARD', isHidden: false })).toBe(true);
    expect(isSeen({ kind: 'STANDARD', isHidden: true })).toBe(false);
    expect(isSeen({ kind: 'EGRESS', isHidden: false })).toBe(false);
    expect(['PARTICIPANT_REMOVED', 'ROOM_CLOSED'].map((endReason) => wasRemoved({ endReason }))).toEqual([true, false]);
  });

  test('within a sid the newest version counts', () => {
    const newer = { ...ann, version: 5, permission: { hidden: true } };
    const { version: _, ...oldest } = ann;
    for (const given of [
      [joined(first, newer), joined(first, oldest)],
      [joined(first, newer), joined(first, ann)],
      [joined(first, ann), joined(first, newer)],
    ])
      expect(sessionIn(hear(given), first, 'PA_1')).toMatchObject({ version: 5, isHidden: true, isLive: true });
  });

  test.each([
    ['ann', { 'rt.user': 'ann' }],
    [null, {}],
  ])('it stays whose it was when it began, whatever its attributes become: %s', (userId, named) => {
    const asSigned = { ...named, 'rt.device': 'phone', 'rt.login': 'login' };
    const began = { ...ann, attributes: asSigned };
    const rewritten = { ...ann, version: 5, attributes: { 'rt.user': 'bob', 'rt.device': 'tv', 'rt.login': 'other' } };
    for (const told of [
      joined(first, rewritten),
      observed(after, first, [rewritten]),
      observed(after, first, [{ ...rewritten, attributes: {} }]),
    ])
      expect(sessionIn(hear([joined(first, began), told]), first, 'PA_1')).toMatchObject({
        version: 5,
        userId,
        deviceId: 'phone',
        loginId: 'login',
      });
  });

  test('the newest fact about it does not grow older', () => {
    const set = hear([joined(first, ann), observed(before, first, [ann])]);
    expect(sessionIn(set, first, 'PA_1')?.lastFactAtMs).toBe(now);
  });
});

describe('what a list says', () => {
  test.each<{ why: string; given: LivekitFact[]; then: string[] }>([
    { why: 'who is listed is there', given: [observed(after, first, [ann, bob])], then: ['PA_1', 'PA_3'] },
    {
      why: 'who is not listed is gone',
      given: [joined(first, ann), joined(first, bob), observed(after, first, [bob])],
      then: ['PA_3'],
    },
    { why: 'not whom a later fact named', given: [joined(first, ann), observed(before, first, [])], then: ['PA_1'] },
    { why: 'no room, nobody', given: [joined(first, ann), observed(after, null)], then: [] },
    { why: 'no room, but somebody joined since', given: [joined(first, ann), observed(before, null)], then: ['PA_1'] },
    {
      why: 'who left stays away',
      given: [joined(first, ann), left(first, ann), observed(after, first, [ann])],
      then: [],
    },
    { why: 'a new life ends the old one', given: [joined(first, ann), observed(after, second, [bob])], then: ['PA_3'] },
    {
      why: 'an old life, listed before, ends nothing',
      given: [joined(second, bob), observed(before, first, [ann])],
      then: ['PA_3'],
    },
    {
      why: 'of one identity the latest to join',
      given: [joined(first, ann), observed(before, first, [annAgain])],
      then: ['PA_2'],
    },
    {
      why: 'a stale list is made good by the next',
      given: [joined(first, ann), observed(after, first, []), observed(after + 1, first, [ann])],
      then: ['PA_1'],
    },
    {
      why: 'a stale list is not made good by an older one',
      given: [joined(first, ann), observed(after, first, []), observed(after - 1, first, [ann])],
      then: [],
    },
    {
      why: 'nor by a webhook that was late',
      given: [joined(first, ann), observed(now + 1, first, []), joined(first, ann)],
      then: [],
    },
  ])('$why', ({ given, then }) => {
    expect(sids(hear(given))).toEqual(then);
  });

  test('the room is over only if nothing newer is known of it', () => {
    expect(hear([started(first), observed(after, null)]).lives.get(theRoom)).toMatchObject({
      isLive: false,
      lastFactAtMs: after,
    });
    const between = observed(now + 1, null);
    expect(hear([started(first), joined(first, ann), between]).lives.get(theRoom)?.isLive).toBe(true);
    expect(hear([started(first), aborted(first, ann), between]).lives.get(theRoom)?.isLive).toBe(false);
    expect(hear([started(first), joined(first, ann), observed(before, null)]).lives.get(theRoom)?.isLive).toBe(true);
    expect(hear([started(first), observed(before, null)]).lives.get(theRoom)?.isLive).toBe(true);
    expect(hear([observed(after, null)]).lives.size).toBe(0);
  });

  test('a life that is known begins once, however often it is listed', () => {
    const set = hear([started(first), observed(after, first, [ann])]);
    expect(set.lives.get(theRoom)).toMatchObject({ isLive: true, lastFactAtMs: now });
  });

  test('a room that was over since the list is over', () => {
    expect(hear([finished(first), observed(before, first, [ann])]).lives.get(theRoom)?.isLive).toBe(false);
    expect(hear([finished(first), observed(after, first, [ann])]).lives.get(theRoom)?.isLive).toBe(true);
  });
});

test('a room of which a list inferred the end, and LiveKit told it later, does not come back by a list from between', () => {
  const over = hear([finished(first)], hear([started(first), observed(now + 10, null)]), now + 1_000);
  hear([observed(now + 500, first, [ann])], over, now + 2_000);
  expect(over.lives.get(theRoom)?.isLive).toBe(false);
  expect(sids(over)).toEqual([]);
});

test('what is told of an end later than a list inferred it counts', () => {
  const gone = hear([joined(first, ann), observed(after, first), left(first, ann, 'PARTICIPANT_REMOVED')]);
  expect(sessionIn(gone, first, 'PA_1')).toMatchObject({ endReason: 'PARTICIPANT_REMOVED', isEndTold: true });
});

describe('what a list says of a LiveKit whose clock was set back', () => {
  /** The next life, older than the first one by its time. */
  const next = life('RM_2', -600);
  const bobLater = participant('PA_4', 'bob', 2);
  const bobAgain = participant('PA_7', 'bob', 1);
  const dan = participant('PA_5', 'dan', -500);

  test.each<{ why: string; given: LivekitFact[]; then: string[] }>([
    {
      why: 'the next life of a room that was finished is there',
      given: [joined(first, ann), finished(first), started(next), joined(next, dan), observed(after, next, [dan])],
      then: ['PA_5'],
    },
    {
      why: 'so is that of a room that nobody told of',
      given: [joined(first, ann), joined(next, dan), observed(after, next, [dan])],
      then: ['PA_5'],
    },
    {
      why: 'so is one in which nobody is',
      given: [joined(first, ann), started(next), observed(after, next, [])],
      then: [],
    },
    {
      why: 'not where somebody came since the list',
      given: [joined(first, ann), observed(before, next, [dan])],
      then: ['PA_1'],
    },
    {
      why: 'nor where somebody came since the list into a room that was there before',
      given: [started(first), joined(first, ann), observed(now + 1, next, [dan])],
      then: ['PA_1'],
    },
    {
      why: 'also where somebody left the life before since the list',
      given: [joined(first, ann), left(first, ann), observed(now + 1, next, [dan])],
      then: ['PA_5'],
    },
    {
      why: 'who was replaced since the list by somebody who left is there until the next one',
      given: [joined(first, bobLater), left(first, bobLater), observed(before, first, [bobAgain])],
      then: ['PA_7'],
    },
    {
      why: 'nor where the room was started since the list',
      given: [started(first), observed(before, next, [dan])],
      then: [],
    },
    {
      why: 'what the next life tells after the list counts',
      given: [joined(first, ann), observed(after, next, [dan]), joined(next, participant('PA_6', 'eve', -499))],
      then: ['PA_5', 'PA_6'],
    },
    {
      why: 'who is taken for replaced by an end of the life before is there again with the next list',
      given: [joined(first, ann), observed(after, next, [dan]), finished(first), observed(after + 1, next, [dan])],
      then: ['PA_5'],
    },
    {
      why: 'who came back is there',
      given: [
        joined(first, bobLater),
        left(first, bobLater),
        joined(first, bobAgain),
        observed(after, first, [bobAgain]),
      ],
      then: ['PA_7'],
    },
    {
      why: 'who came back is there, though nothing was told of it',
      given: [joined(first, bobLater), observed(after, first, [bobAgain])],
      then: ['PA_7'],
    },
    {
      why: 'not who was replaced since the list',
      given: [joined(first, bobLater), observed(before, first, [bobAgain])],
      then: ['PA_4'],
    },
    {
      why: 'whoever left stays away',
      given: [joined(first, ann), left(first, ann, 'DUPLICATE_IDENTITY'), observed(after, first, [ann])],
      then: [],
    },
    {
      why: 'whoever left stays away, also who was taken for gone before',
      given: [joined(first, ann), joined(first, annAgain), left(first, ann), observed(after, first, [ann])],
      then: [],
    },
  ])('$why', ({ given, then }) => {
    expect(sids(hear(given))).toEqual(then);
  });

  test('the room is over', () => {
    const ahead = life('RM_9', 7200);
    expect(hear([started(ahead), observed(after, null)]).lives.get(theRoom)?.isLive).toBe(false);
  });

  test('who was inside when the room was finished stays away', () => {
    const given = [joined(first, ann), finished(first), observed(after, first, [ann, bob])];
    expect(sids(hear(given))).toEqual(['PA_3']);
  });
});

/** What happens in a LiveKit server, and what it tells of it. */
type Happening = {
  readonly what: 'join' | 'signal_only' | 'leave' | 'abort' | 'finish' | 'crash';
  readonly who: string;
  readonly isSloppy: boolean;
};

interface History {
  readonly told: readonly LivekitFact[];
  readonly room: LivekitRoom | null;
  readonly inside: readonly LivekitParticipant[];
}

/**
 * A small LiveKit: rooms of one name with one life after the other, and its webhooks in order. `clock` is what it
 * shows, in seconds, when each of this happens.
 */
const play = (happenings: readonly Happening[], clock: (at: number) => number = (at) => at): History => {
  const told: LivekitFact[] = [];
  let room: LivekitRoom | null = null;
  let inside = new Map<string, LivekitParticipant>();
  const replace = (current: LivekitRoom, who: string, isTold: boolean): void => {
    const other = inside.get(who);
    inside.delete(who);
    if (other !== undefined && isTold) told.push(left(current, other, 'DUPLICATE_IDENTITY'));
  };
  for (const [at, { what, who, isSloppy }] of happenings.entries()) {
    const someone = inside.get(who);
    if (what === 'join' || what === 'signal_only') {
      if (room === null) {
        room = life(`RM_${at}`, clock(at));
        told.push(started(room));
      }
      const entering = participant(`PA_${at}`, who, clock(at));
      replace(room, who, !isSloppy);
      if (what === 'join') inside.set(who, entering);
      told.push(what === 'join' ? joined(room, entering) : aborted(room, entering));
    } else if (room === null) {
    } else if (what === 'leave' || what === 'abort') {
      if (someone === undefined) continue;
      told.push(what === 'leave' ? left(room, someone) : aborted(room, someone));
      inside.delete(who);
    } else {
      if (what === 'finish' && !isSloppy)
        for (const each of inside.values()) told.push(left(room, each, 'ROOM_CLOSED'));
      if (what === 'finish') told.push(finished(room));
      room = null;
      inside = new Map();
    }
  }
  return { told, room, inside: [...inside.values()] };
};

const happeningsAtMost = 16;
const anyHappenings: fc.Arbitrary<Happening[]> = fc.array(
  fc.record({
    what: fc.constantFrom(
      'join' as const,
      'join' as const,
      'join' as const,
      'signal_only' as const,
      'leave' as const,
      'abort' as const,
      'finish' as const,
      'crash' as const,
    ),
    who: fc.constantFrom('ann', 'bob', 'cleo'),
    isSloppy: fc.boolean(),
  }),
  { maxLength: happeningsAtMost },
);
const anyHistory = anyHappenings.map((happenings) => play(happenings));
/** Of a LiveKit whose clock is set on and back at will. */
const anyHistoryOfWrongClock = fc
  .tuple(anyHappenings, fc.array(fc.integer({ min: -9, max: 9 }), { minLength: happeningsAtMost }))
  .map(([happenings, shown]) => play(happenings, (at) => shown[at] ?? 0));

describe('a clock that was ahead', () => {
  const day = 86_400_000;
  /** As the log has it, at `receivedAtMs`. */
  const apply = (set: WorkingSet, fact: LivekitFact, receivedAtMs: number, nowMs = receivedAtMs): WorkingSet => {
    for (const change of evolvePresence(set, fact, receivedAtMs, nowMs)) set.put(change);
    return set;
  };

  test('dates no list later than the log does', () => {
    const set = apply(hear([joined(first, ann)]), observed(now + day, first, [ann, bob]), now + 10);
    expect(sids(hear([observed(now + 20, first, [bob])], set))).toEqual(['PA_3']);
    expect(sids(hear([observed(now + 30, null)], set))).toEqual([]);
    expect(set.lives.get(theRoom)?.isLive).toBe(false);
  });

  test('excuses nobody from a list', () => {
    const ahead = () => hear([joined(first, ann), joined(first, bob)], undefined, now + day);
    expect(sids(hear([observed(after, first, [bob])], ahead()))).toEqual(['PA_3']);
    expect(hear([observed(after, null)], ahead()).lives.get(theRoom)?.isLive).toBe(false);
    expect(sids(hear([observed(after, second, [annAgain])], ahead()))).toEqual(['PA_2']);
    expect(sids(hear([observed(after, first, []), observed(after + 1, first, [ann])], ahead()))).toEqual(['PA_1']);
    expect(sids(hear([observed(after, first, [annAgain])], ahead()))).toEqual(['PA_2']);
  });

  test('by less than a minute is believed', () => {
    const set = hear([joined(first, ann)], undefined, after + 60_000);
    expect(sids(hear([observed(after, first, [])], set))).toEqual(['PA_1']);
  });

  test('keeps nobody among those who left a moment ago for longer', () => {
    const set = hear([joined(first, ann), joined(first, bob), joined(first, participant('PA_4', 'cleo', 4))]);
    apply(set, left(first, ann), now + day, now + 10);
    apply(set, observed(now + day, first, [bob]), now + day, now + 20);
    apply(set, finished(first), now + day, now + 30);
    const ends = ['PA_1', 'PA_4', 'PA_3'].map((sid) => sessionIn(set, first, sid)?.endedAtMs);
    expect(ends).toEqual([now + 10, now + 20, now + 30]);
  });

  test('set back does not keep a room from ending', () => {
    expect(apply(hear([started(first)]), finished(first), now - 1_000).lives.get(theRoom)?.isLive).toBe(false);
  });

  test('is not what makes somebody who left long ago leave when it is folded', () => {
    const set = apply(hear([joined(first, ann)]), left(first, ann), now + 10, now + day);
    expect(sessionIn(set, first, 'PA_1')?.endedAtMs).toBe(now + 10);
  });

  test('is not what the lists of a topic show that is read again from its beginning', () => {
    const set = hear([]);
    const log: readonly (readonly [LivekitFact, number])[] = [
      [joined(first, bob), now - day],
      [observed(now - day + 1_000, first, [bob]), now - day + 1_000],
      [observed(now - day + 2_000, null), now - day + 2_000],
      [joined(second, annAgain), now],
    ];
    for (const _ of ['once', 'again']) {
      for (const [fact, receivedAtMs] of log) apply(set, fact, receivedAtMs, now + 10);
      expect(sids(set)).toEqual(['PA_2']);
      expect(set.lives.get(theRoom)).toMatchObject({ roomSid: second.sid, isLive: true });
    }
  });

  test('is not what a list shows that was read again long after', () => {
    const set = hear([joined(first, ann)]);
    expect(sids(apply(set, observed(now - day, first, []), now - day, now + 10))).toEqual(['PA_1']);
  });
});

const shuffled = (facts: readonly LivekitFact[]) => fc.shuffledSubarray([...facts], { minLength: facts.length });
const pictureOf = (set: WorkingSet) => {
  const { lastFactAtMs: _, ...life } = set.lives.get(theRoom) ?? {};
  return { people: livePeople(set), life };
};

describe('properties', () => {
  test('any order, with repeats, ends as the order in which it happened', () => {
    fc.assert(
      fc.property(
        anyHistory.chain(({ told }) =>
          fc.tuple(
            fc.constant(told),
            fc.subarray([...told]).chain((again) => shuffled([...told, ...again])),
          ),
        ),
        ([told, mixed]) => {
          expect(pictureOf(hear(mixed))).toEqual(pictureOf(hear(told)));
        },
      ),
      { numRuns: 3000 },
    );
  });

  test('the order in which it happened ends as it is, but for a crash that nobody told of', () => {
    fc.assert(
      fc.property(anyHistory, ({ told, room, inside }) => {
        fc.pre(room !== null);
        expect(livePeople(hear(told)).map(({ participantSid }) => participantSid)).toEqual(
          inside.map(({ sid }) => sid).sort(),
        );
      }),
      { numRuns: 1000 },
    );
  });

  test.each([
    ['', anyHistory],
    [", whatever LiveKit's clock shows", anyHistoryOfWrongClock],
  ])('whatever was lost, a list of what is true repairs it%s', (_, anyOf) => {
    fc.assert(
      fc.property(
        anyOf.chain((history) => fc.tuple(fc.constant(history), fc.subarray([...history.told]).chain(shuffled))),
        ([{ room, inside }, heard]) => {
          const set = hear([...heard, observed(after, room, [...inside])]);
          expect(livePeople(set).map(({ participantSid }) => participantSid)).toEqual(
            inside.map(({ sid }) => sid).sort(),
          );
          expect(set.lives.get(theRoom)?.isLive ?? false).toBe(room !== null);
          expect(set.lives.get(theRoom)?.roomSid ?? room?.sid).toBe(room?.sid ?? set.lives.get(theRoom)?.roomSid);
        },
      ),
      { numRuns: 3000 },
    );
  });

  test('a list that is older than all that was told changes nothing of it', () => {
    fc.assert(
      fc.property(
        anyHappenings.chain((happenings) =>
          fc.tuple(
            fc.constant(play(happenings).told),
            fc.nat(happenings.length).map((at) => play(happenings.slice(0, at))),
            fc.nat(2 * happenings.length),
          ),
        ),
        ([told, { room, inside }, at]) => {
          const list = observed(before, room, [...inside]);
          expect(pictureOf(hear(told.toSpliced(at, 0, list)))).toEqual(pictureOf(hear(told)));
        },
      ),
      { numRuns: 3000 },
    );
  });

  test('where all was told, a list changes nothing of it, however late it is heard', () => {
    const allTold = anyHappenings.map((happenings) =>
      happenings.filter(({ what }) => what !== 'crash').map((happening) => ({ ...happening, isSloppy: false })),
    );
    fc.assert(
      fc.property(
        allTold.chain((happenings) =>
          fc.tuple(
            fc.constant(play(happenings).told),
            fc.nat(happenings.length).map((at) => play(happenings.slice(0, at))),
            fc.nat(3 * happenings.length),
          ),
        ),
        ([told, { told: toldBefore, room, inside }, late]) => {
          const list = observed(now + toldBefore.length, room, [...inside]);
          const heard = told.toSpliced(toldBefore.length + late, 0, list);
          expect(pictureOf(hear(heard))).toEqual(pictureOf(hear(told)));
        },
      ),
      { numRuns: 3000 },
    );
  });

  test('a fact that comes again changes nobody', () => {
    fc.assert(
      fc.property(anyHistory, ({ told }) => {
        const set = hear(told);
        const before = livePeople(set);
        const isLive = set.lives.get(theRoom);
        for (const each of told) {
          for (const change of evolvePresence(set, each, now)) set.put(change);
          expect(livePeople(set)).toEqual(before);
          expect(set.lives.get(theRoom)).toEqual(isLive);
        }
      }),
      { numRuns: 500 },
    );
  });

  test('a session that ended for good never lives again', () => {
    fc.assert(
      fc.property(
        anyHistory.chain(({ told }) => shuffled([...told, ...told])),
        (mixed) => {
          const set = hear([]);
          const ended = new Set<string>();
          for (const each of mixed) {
            hear([each], set);
            if (each.type === 'participant_left' || each.type === 'participant_connection_aborted')
              ended.add(each.participant.sid);
            for (const { participantSid } of livePeople(set)) expect(ended.has(participantSid)).toBe(false);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
