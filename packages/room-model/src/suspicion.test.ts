import type { RoomEvent } from '@realtime-service/contracts';
import { describe, expect, test } from 'vitest';
import {
  added,
  banIn,
  banned,
  dead,
  fact,
  fold,
  isSuspect,
  memberIn,
  originOf,
  placed,
  removed,
  roomIn,
  type Told,
  tell,
} from '../test/given.ts';
import { evolveRoom, settleDeadLetter } from './room.ts';
import { evolveRetried } from './suspicion.ts';
import { WorkingSet } from './working-set.ts';

describe('whom a dead letter leaves in doubt', () => {
  const people = ['u7', 'u8'];
  test.each<{ why: string; given: Told; then: string[] }>([
    { why: 'a removal: its member', given: dead('member.removed', { userId: 'u7', reason: 7 }), then: ['u7'] },
    { why: 'a ban: its member', given: dead('member.banned', { userId: 'u7', privilege: 'dance' }), then: ['u7'] },
    {
      why: 'an update of the role: its member',
      given: dead('member.updated', { userId: 'u7', role: 'emperor' }),
      then: ['u7'],
    },
    {
      why: 'an update with a field we do not know',
      given: dead('member.updated', { userId: 'u7', displayName: 1, level: 3 }),
      then: ['u7'],
    },
    { why: 'a bad display name: nobody', given: dead('member.updated', { userId: 'u7', displayName: 1 }), then: [] },
    { why: 'a bad room name: nobody', given: dead('room.updated', { name: 1 }), then: [] },
    { why: 'an update of the room: everybody', given: dead('room.updated', { maxParticipants: 'ten' }), then: people },
    { why: 'a lock or a close: everybody', given: dead('room.closed', 7), then: people },
    { why: 'full state: everybody', given: dead('room.created', { members: 'none' }), then: people },
    { why: 'a room of which nothing could be read: everybody', given: dead('room.created', undefined), then: people },
    { why: 'a removal without a user: the room', given: dead('member.removed', {}), then: people },
    {
      why: 'a removal of an impossible user: the room',
      given: dead('member.removed', { userId: 'u7\0' }),
      then: people,
    },
    { why: 'a removal with data that is no object: the room', given: dead('member.removed', ['u7']), then: people },
    { why: 'a disabled user, whatever the room', given: dead('user.disabled', {}, { key: 'u7' }), then: ['u7'] },
    {
      why: 'an ended login that cannot be told: its user',
      given: dead('login.ended', { userId: 'u7' }, { key: 'u7' }),
      then: ['u7'],
    },
    {
      why: 'an ended login: nobody who has another',
      given: dead('login.ended', { userId: 'u7', sid: 's1' }, { key: 'u7' }),
      then: [],
    },
    { why: 'no readable type: the room', given: dead(undefined, undefined), then: people },
    {
      why: 'no readable type: the user, if the key is one',
      given: dead(undefined, undefined, { key: 'u7' }),
      then: ['u7'],
    },
    { why: 'a type that is not ours: nobody', given: dead('invoice.paid', { userId: 'u7' }), then: [] },
    {
      why: 'a name out of Object.prototype is no type of ours',
      given: dead('constructor', { userId: 'u7' }),
      then: [],
    },
    { why: 'facts that give: nobody', given: dead('member.added', { userId: 'u7', role: 'emperor' }), then: [] },
    { why: 'facts that give: nobody', given: dead('member.unbanned', { userId: 'u7' }), then: [] },
    { why: 'an order to one session: nobody', given: dead('participant.kick_requested', { identity: 'u7' }), then: [] },
    { why: 'no key: nobody can be named', given: dead('member.removed', { userId: 'u7' }, { key: null }), then: [] },
    {
      why: 'a key that is no room id',
      given: dead('member.removed', { userId: 'u7' }, { key: 'x'.repeat(257) }),
      then: [],
    },
  ])('$why', ({ given, then }) => {
    const set = fold([given]);
    expect(people.filter((userId) => isSuspect(set, userId))).toEqual(then);
  });

  const longest = 'x'.repeat(191);
  test.each<{ why: string; given: Told; then: object[] }>([
    {
      why: 'a room whose name alone is wrong: its header, and no member',
      given: dead('room.created', { name: 1 }),
      then: [{ scope: 'header' }],
    },
    { why: 'full state: the whole room', given: dead('room.created', { members: 'none' }), then: [{ scope: 'room' }] },
    ...[undefined, null, [], 'text'].flatMap((data) => [
      {
        why: 'a room with unreadable data: the whole room',
        given: dead('room.created', data),
        then: [{ scope: 'room' }],
      },
      { why: 'an update of the room: its header', given: dead('room.updated', data), then: [{ scope: 'header' }] },
      { why: 'an update of somebody: the whole room', given: dead('member.updated', data), then: [{ scope: 'room' }] },
    ]),
    {
      why: 'a ban whose privilege cannot be read: any ban of its member',
      given: dead('member.banned', { userId: 'u7', privilege: 'dance' }),
      then: [{ scope: 'ban', userId: 'u7', detail: '' }],
    },
    {
      why: 'a disabled user, whatever else is said: the user, not one login',
      given: dead('user.disabled', { sid: 's1' }, { key: 'u7' }),
      then: [{ scope: 'user', roomId: '', userId: 'u7' }],
    },
    {
      why: 'no readable type, and the longest key that may be a user: both',
      given: dead(undefined, undefined, { key: longest }),
      then: [
        { scope: 'room', roomId: longest },
        { scope: 'user', roomId: '', userId: longest },
      ],
    },
    {
      why: 'no readable type, and a key that is too long for a user: the room',
      given: dead(undefined, undefined, { key: `${longest}x` }),
      then: [{ scope: 'room', roomId: `${longest}x` }],
    },
    { why: 'a key that is no user id', given: dead('user.disabled', {}, { key: `${longest}x` }), then: [] },
    { why: 'a key that is no room id', given: dead('room.closed', 7, { key: 'x'.repeat(257) }), then: [] },
  ])('as narrowly as it can be said: $why ($given.unreadable.data)', ({ given, then }) => {
    const blank = { roomId: 'room-42', userId: '', detail: '' };
    const origin = originOf({ offset: 0 });
    expect([...fold([given]).suspects.values()]).toMatchObject(then.map((about) => ({ ...blank, ...about, origin })));
  });

  test('the session of an ended login, and no other of that person', () => {
    const set = fold([dead('login.ended', { userId: 'u7', sid: 's1', at: 'noon' }, { key: 'u7' })]);
    expect(isSuspect(set, 'u7', 'room-42', 's1')).toBe(true);
    expect(isSuspect(set, 'u7', 'room-42', 's2')).toBe(false);
  });

  test('only in its own room', () => {
    const set = fold([dead('member.removed', { userId: 'u7' }), dead('room.closed', 7, { room: 'room-43' })]);
    expect(isSuspect(set, 'u7', 'room-44')).toBe(false);
    expect(isSuspect(set, 'u8')).toBe(false);
    expect(isSuspect(set, 'u8', 'room-43')).toBe(true);
  });

  test('no prototype and no role comes out of what was read', () => {
    const set = fold([dead('member.removed', JSON.parse('{"__proto__":{"role":"admin","members":[]},"userId":"u7"}'))]);
    expect([...set.suspects.values()]).toMatchObject([{ scope: 'member', userId: 'u7', isHealed: false }]);
    expect(({} as Record<string, unknown>).role).toBeUndefined();
  });
});

describe('what settles a doubt', () => {
  const lostRemoval = dead('member.removed', { userId: 'u7', reason: 7 });
  const lostLock = dead('room.locked', 7);
  const lostName = dead('member.removed', {});
  const lostUser = dead('user.disabled', {}, { key: 'u7' });
  const lostBanOf = (privilege: unknown) => dead('member.banned', { userId: 'u7', privilege, until: 'soon' });
  const lostBan = lostBanOf('data');
  const position = { topic: 'realtime.room-events.v1', partition: 0 };

  test.each<{ why: string; given: Told[]; suspect: boolean }>([
    { why: 'a newer removal', given: [lostRemoval, removed('u7')], suspect: false },
    { why: 'a newer addition', given: [lostRemoval, added('u7', 'speaker')], suspect: false },
    {
      why: 'a newer update',
      given: [added('u7', 'speaker'), lostRemoval, fact('member.updated', { userId: 'u7', role: 'host' })],
      suspect: false,
    },
    {
      why: 'not a new display name, which says nothing about membership',
      given: [added('u7', 'speaker'), lostRemoval, fact('member.updated', { userId: 'u7', displayName: 'Ann' })],
      suspect: true,
    },
    {
      why: 'not a fact that was told before',
      given: [
        added('u7', 'speaker', { offset: 3 }),
        { ...lostRemoval, at: { offset: 5 } },
        added('u7', 'speaker', { offset: 4 }),
      ],
      suspect: true,
    },
    {
      why: 'not a fact that an older sequence makes void',
      given: [added('u7', 'speaker', { sequence: '9' }), lostRemoval, added('u7', 'speaker', { sequence: '8' })],
      suspect: true,
    },
    { why: 'not a fact about somebody else', given: [lostRemoval, removed('u8')], suspect: true },
    {
      why: 'not a ban, which says nothing about membership',
      given: [lostRemoval, banned('u7', 'data')],
      suspect: true,
    },
    {
      why: 'not the end of a ban',
      given: [lostRemoval, fact('member.unbanned', { userId: 'u7', privilege: 'data' })],
      suspect: true,
    },
    { why: 'not a fact about the room', given: [lostRemoval, fact('room.unlocked', undefined)], suspect: true },
    {
      why: 'full state that names the person',
      given: [lostRemoval, fact('room.created', { members: [{ userId: 'u7', role: 'host' }] })],
      suspect: false,
    },
    { why: 'full state that does not', given: [lostRemoval, fact('room.created', { members: [] })], suspect: false },
    { why: 'not room.created without members', given: [lostRemoval, fact('room.created', {})], suspect: true },
    {
      why: 'not full state that a newer header overtook',
      given: [
        fact('room.updated', {}, { sequence: '9' }),
        lostRemoval,
        fact('room.created', { members: [] }, { sequence: '1' }),
      ],
      suspect: true,
    },
    { why: 'header: a newer header', given: [lostLock, fact('room.unlocked', undefined)], suspect: false },
    {
      why: "header: not the room's new name",
      given: [lostLock, fact('room.updated', { name: 'Retro' })],
      suspect: true,
    },
    { why: 'header: not a member', given: [lostLock, added('u7', 'speaker')], suspect: true },
    {
      why: 'not another header, where a room that could not be read may have been full state',
      given: [dead('room.created', undefined), fact('room.updated', { maxParticipants: 10 })],
      suspect: true,
    },
    {
      why: 'full state, where a room that could not be read may have been that',
      given: [dead('room.created', undefined), fact('room.created', { members: [] })],
      suspect: false,
    },
    { why: 'unnamed member: full state', given: [lostName, fact('room.created', { members: [] })], suspect: false },
    { why: 'unnamed member: not a fact about one of them', given: [lostName, removed('u7')], suspect: true },
    { why: 'unnamed member: not a header', given: [lostName, fact('room.updated', {})], suspect: true },
    {
      why: 'user: a newer fact about the user',
      given: [lostUser, fact('user.enabled', { userId: 'u7' })],
      suspect: false,
    },
    {
      why: 'user: not a logout, which comes with being disabled',
      given: [lostUser, fact('login.ended', { userId: 'u7', sid: 's1' })],
      suspect: true,
    },
    { why: 'ban: a newer one of its privilege', given: [lostBan, banned('u7', 'data')], suspect: false },
    {
      why: 'ban: that it is lifted',
      given: [lostBan, fact('member.unbanned', { userId: 'u7', privilege: 'data' })],
      suspect: false,
    },
    { why: 'ban: not one of another privilege', given: [lostBan, banned('u7', 'join')], suspect: true },
    { why: 'ban: not a fact about the member', given: [lostBan, added('u7', 'speaker')], suspect: true },
    { why: 'ban: not the end of membership', given: [lostBan, removed('u7')], suspect: true },
    { why: 'ban: full state', given: [lostBan, fact('room.created', { members: [] })], suspect: false },
    { why: 'unnamed ban: not one that is named', given: [lostBanOf('dance'), banned('u7', 'data')], suspect: true },
    { why: 'unnamed ban: not a fact about the member', given: [lostBanOf(7), added('u7', 'speaker')], suspect: true },
    {
      why: 'unnamed ban: full state',
      given: [lostBanOf(undefined), fact('room.created', { members: [] })],
      suspect: false,
    },
    {
      why: "user: not a room's full state",
      given: [lostUser, fact('room.created', { members: [{ userId: 'u7', role: 'host' }] })],
      suspect: true,
    },
    {
      why: 'an operator, who discards it',
      given: [lostRemoval, fact('dead_letter.discarded', { ...position, offset: '0' })],
      suspect: false,
    },
    {
      why: 'not the discard of another record',
      given: [lostRemoval, fact('dead_letter.discarded', { ...position, offset: '1' })],
      suspect: true,
    },
    {
      why: 'not the discard of a record elsewhere',
      given: [lostRemoval, fact('dead_letter.discarded', { ...position, partition: 1, offset: '0' })],
      suspect: true,
    },
    {
      why: 'not the discard of a record of another topic',
      given: [lostRemoval, fact('dead_letter.discarded', { ...position, topic: 'other', offset: '0' })],
      suspect: true,
    },
    {
      why: 'not for ever: another dead letter is another doubt',
      given: [lostRemoval, added('u7', 'speaker'), lostRemoval],
      suspect: true,
    },
  ])('$why', ({ given, suspect }) => {
    expect(isSuspect(fold(given), 'u7')).toBe(suspect);
  });

  test('login: that the same one has ended, and no other', () => {
    const lostLogout = dead('login.ended', { userId: 'u7', sid: 's1' }, { key: 'u7' });
    const isDoubted = (sid: string): boolean =>
      isSuspect(fold([lostLogout, fact('login.ended', { userId: 'u7', sid })]), 'u7', 'room-42', 's1');
    expect(['s1', 's2'].map(isDoubted)).toEqual([false, true]);
  });

  test('a dead letter that is read again raises no doubt that was settled', () => {
    const log = placed([lostRemoval, fact('dead_letter.discarded', { ...position, offset: '0' })]);
    const set = new WorkingSet();
    tell(set, log);
    expect(tell(set, log.slice(0, 1))).toBe(0);
    expect(isSuspect(set, 'u7')).toBe(false);
  });
});

describe('each doubt is one', () => {
  const position = { topic: 'realtime.room-events.v1', partition: 0 };
  const lostRemoval = dead('member.removed', { userId: 'u7', reason: 7 });
  const discard = (offset: number) => fact('dead_letter.discarded', { ...position, offset: String(offset) });

  test('to give one dead letter of a person up leaves the doubt of another', () => {
    const two = [lostRemoval, lostRemoval];
    expect(isSuspect(fold([...two, discard(0)]), 'u7')).toBe(true);
    expect(isSuspect(fold([...two, discard(1)]), 'u7')).toBe(true);
    expect(isSuspect(fold([...two, discard(0), discard(1)]), 'u7')).toBe(false);
  });

  test('one newer fact settles all of them', () => {
    expect(isSuspect(fold([lostRemoval, lostRemoval, added('u7', 'speaker')]), 'u7')).toBe(false);
  });

  test('both doubts of a record that does not say its type end with it', () => {
    const set = fold([dead(undefined, undefined, { key: 'u7' }), discard(0)]);
    expect(isSuspect(set, 'u7')).toBe(false);
    expect([...set.suspects.values()].map(({ scope, isHealed }) => [scope, isHealed])).toEqual([
      ['room', true],
      ['user', true],
    ]);
  });

  test('what settled it is its provenance, what raised it stays its cause', () => {
    const [suspect] = fold([lostRemoval, added('u8', 'host'), removed('u7')]).suspects.values();
    expect(suspect).toMatchObject({ cause: { offset: 0n }, origin: { offset: 2n }, isHealed: true });
  });
});

describe('a dead letter that is retried', () => {
  /** A log whose record after `before` was a dead letter, retried at its end. `unread`: what could not be read then. */
  const retried = (lost: Extract<Told, { kind: 'fact' }>, before: Told[], after: Told[], unread?: object) => {
    const { type, data, subject } = lost.event;
    const set = fold([...before, dead(type, unread ?? data, { key: subject }), ...after]);
    const original = originOf({ ...lost.at, offset: before.length });
    let end = before.length + after.length;
    const again = (): number => {
      end += 1;
      const now = originOf({ offset: end });
      const settled = settleDeadLetter(set, original, now);
      for (const change of settled) set.put(change);
      const applied = evolveRetried(set, lost.event, original);
      for (const change of applied) set.put(change);
      return applied.length + settled.length;
    };
    return { set, again, changes: again() };
  };
  const lost = (told: Told): Extract<Told, { kind: 'fact' }> => {
    if (told.kind !== 'fact') throw new Error('only a fact can become readable');
    return told;
  };
  const lostRemoval = lost(removed('u7'));

  test('applies where nothing newer is known, with its own place as provenance', () => {
    const { set } = retried(lostRemoval, [added('u7', 'speaker')], [added('u8', 'host')]);
    expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true, origin: { offset: 1n } });
    expect(isSuspect(set, 'u7')).toBe(false);
    expect([...set.suspects.values()]).toMatchObject([{ cause: { offset: 1n }, origin: { offset: 3n } }]);
  });

  test.each<{
    why: string;
    lost: Told;
    unread?: object;
    before: Told[];
    after: Told[];
    seen: (set: WorkingSet) => unknown;
  }>([
    {
      why: 'a removal before the person was added again',
      lost: removed('u7'),
      before: [added('u7', 'speaker')],
      after: [added('u7', 'host')],
      seen: (set) => memberIn(set, 'u7'),
    },
    {
      why: 'an addition before an update, which it would complete in its own order',
      lost: added('u7', 'host'),
      before: [],
      after: [fact('member.updated', { userId: 'u7', permissions: {} })],
      seen: (set) => memberIn(set, 'u7'),
    },
    {
      why: 'a close before the room was changed, terminal as it is',
      lost: fact('room.closed', undefined),
      before: [fact('room.created', {})],
      after: [fact('room.updated', { access: 'members' })],
      seen: (set) => roomIn(set),
    },
    {
      why: 'a higher sequence at an older place',
      lost: fact('member.removed', { userId: 'u7' }, { sequence: '9' }),
      before: [],
      after: [added('u7', 'host', { sequence: '3' })],
      seen: (set) => memberIn(set, 'u7'),
    },
    {
      why: 'a ban before it was lifted',
      lost: banned('u7', 'join'),
      before: [],
      after: [fact('member.unbanned', { userId: 'u7', privilege: 'join' })],
      seen: (set) => banIn(set, 'u7', 'join'),
    },
    {
      why: 'a disabled user who was enabled since',
      lost: fact('user.disabled', { userId: 'u7' }),
      before: [],
      after: [fact('user.enabled', { userId: 'u7' })],
      seen: (set) => set.users.get('u7'),
    },
    {
      why: 'a ban whose privilege could not be read, before it was lifted',
      lost: banned('u7', 'join'),
      unread: { userId: 'u7', privilege: 'dance' },
      before: [],
      after: [fact('member.unbanned', { userId: 'u7', privilege: 'join' })],
      seen: (set) => banIn(set, 'u7', 'join'),
    },
    {
      why: 'a higher role of an older sequence',
      lost: fact('member.updated', { userId: 'u7', role: 'host' }, { sequence: '3' }),
      before: [added('u7', 'listener', { sequence: '9' })],
      after: [],
      seen: (set) => memberIn(set, 'u7'),
    },
    {
      why: 'a higher role, before an addition that a name had overtaken',
      lost: fact('member.updated', { userId: 'u7', role: 'host' }, { sequence: '1' }),
      before: [],
      after: [
        fact('member.updated', { userId: 'u7', displayName: 'Ann' }, { sequence: '3' }),
        added('u7', 'listener', { sequence: '2' }),
      ],
      seen: (set) => memberIn(set, 'u7'),
    },
    {
      why: 'a removal of an older sequence',
      lost: fact('member.removed', { userId: 'u7' }, { sequence: '3' }),
      before: [added('u7', 'listener', { sequence: '9' })],
      after: [],
      seen: (set) => memberIn(set, 'u7'),
    },
    {
      why: 'full state of an older sequence',
      lost: fact(
        'room.created',
        { access: 'authenticated', members: [{ userId: 'u7', role: 'host' }] },
        { sequence: '3' },
      ),
      before: [fact('room.created', {}, { sequence: '9' }), removed('u7')],
      after: [],
      seen: (set) => [roomIn(set), memberIn(set, 'u7')],
    },
    {
      why: 'a disabled user of an older sequence',
      lost: fact('user.disabled', { userId: 'u7' }, { sequence: '3' }),
      before: [fact('user.enabled', { userId: 'u7' }, { sequence: '9' })],
      after: [],
      seen: (set) => set.users.get('u7'),
    },
  ])('changes nothing that is newer: $why', ({ lost: told, unread, before, after, seen }) => {
    const untouched = fold([...before, dead(undefined, undefined, { key: null }), ...after]);
    const { set } = retried(lost(told), before, after, unread);
    expect(seen(set)).toBeDefined();
    expect(seen(set)).toEqual(seen(untouched));
    expect(isSuspect(set, 'u7')).toBe(false);
  });

  test.each<{
    why: string;
    lost: Told;
    before: Told[];
    after: Told[];
    taken: object;
    seen: (set: WorkingSet) => object | undefined;
  }>([
    {
      why: 'a removal, before a new display name',
      lost: fact('member.removed', { userId: 'u7', reason: 'spam' }, { sequence: '2' }),
      before: [added('u7', 'speaker', { sequence: '1' })],
      after: [fact('member.updated', { userId: 'u7', displayName: 'Ann' }, { sequence: '3' })],
      taken: { isRemoved: true, removalReason: 'spam' },
      seen: (set) => memberIn(set, 'u7'),
    },
    {
      why: 'a close, before a new name',
      lost: fact('room.closed', { reason: 'over' }),
      before: [fact('room.created', {})],
      after: [fact('room.updated', { name: 'Retro' })],
      taken: { state: 'closed', closingReason: 'over' },
      seen: (set) => roomIn(set),
    },
    {
      why: 'a lower role, before a new display name, which stays',
      lost: fact('member.updated', { userId: 'u7', role: 'listener', displayName: 'Anna', permissions: {} }),
      before: [added('u7', 'host')],
      after: [fact('member.updated', { userId: 'u7', displayName: 'Ann' })],
      taken: { role: 'listener', displayName: 'Ann', permissions: {} },
      seen: (set) => memberIn(set, 'u7'),
    },
    {
      why: 'who may enter, before a new name, which stays',
      lost: fact('room.updated', { access: 'members', name: 'Standup' }),
      before: [fact('room.created', { access: 'authenticated' })],
      after: [fact('room.updated', { name: 'Retro' })],
      taken: { access: 'members', name: 'Retro' },
      seen: (set) => roomIn(set),
    },
    {
      why: 'a room told anew, before a new name, which stays',
      lost: fact('room.created', { name: 'Standup', defaultRole: 'observer' }),
      before: [fact('room.created', { access: 'authenticated' })],
      after: [fact('room.updated', { name: 'Retro' })],
      taken: { access: 'members', defaultRole: 'observer', name: 'Retro' },
      seen: (set) => roomIn(set),
    },
    {
      why: 'a room told anew, before its name was taken back, which stays away',
      lost: fact('room.created', { name: 'Standup' }),
      before: [fact('room.created', { access: 'authenticated' })],
      after: [fact('room.updated', { name: null })],
      taken: { access: 'members', name: null },
      seen: (set) => roomIn(set),
    },
  ])('counts at its own place where only names were told since: $why', ({ lost: told, before, after, taken, seen }) => {
    const untouched = seen(fold([...before, dead(undefined, undefined, { key: null }), ...after]));
    const { set } = retried(lost(told), before, after);
    expect(seen(set)).toEqual({ ...untouched, ...taken, decided: expect.objectContaining({ offset: 1n }) });
    expect([...set.suspects.values()].every(({ isHealed }) => isHealed)).toBe(true);
  });

  test.each<{ why: string; lost: Told; unread?: object; before: Told[]; after: Told[]; taken: object }>([
    {
      why: 'full state, before a new display name of whom it leaves out',
      lost: fact('room.created', { members: [] }),
      before: [added('u7', 'speaker')],
      after: [fact('member.updated', { userId: 'u7', displayName: 'Ann' })],
      taken: { isRemoved: true, displayName: 'Ann' },
    },
    {
      why: 'a removal whose member could not be read, before a new display name',
      lost: removed('u7'),
      unread: {},
      before: [added('u7', 'speaker')],
      after: [fact('member.updated', { userId: 'u7', displayName: 'Ann' })],
      taken: { isRemoved: true },
    },
    {
      why: 'a removal that was discarded by mistake, before a new display name',
      lost: removed('u7'),
      before: [added('u7', 'speaker')],
      after: [
        fact('member.updated', { userId: 'u7', displayName: 'Ann' }),
        fact('dead_letter.discarded', { topic: 'realtime.room-events.v1', partition: 0, offset: '1' }),
      ],
      taken: { isRemoved: true },
    },
    {
      why: 'not a higher role that an older sequence makes void, before a new display name',
      lost: fact('member.updated', { userId: 'u7', role: 'host' }, { sequence: '2' }),
      before: [added('u7', 'listener', { sequence: '5' })],
      after: [fact('member.updated', { userId: 'u7', displayName: 'Ann' }, { sequence: '6' })],
      taken: { role: 'listener' },
    },
    {
      why: 'not an addition after a removal, before full state that leaves the person out',
      lost: added('u7', 'host'),
      before: [removed('u7')],
      after: [fact('room.created', { members: [] })],
      taken: { isRemoved: true },
    },
    {
      why: 'not an addition after a removal, before an update that lowered its role',
      lost: added('u7', 'host'),
      before: [removed('u7')],
      after: [fact('member.updated', { userId: 'u7', role: 'listener' })],
      taken: { isRemoved: true },
    },
  ])('gives back no right that it or a newer fact took: $why', ({ lost: told, unread, before, after, taken }) => {
    const { set } = retried(lost(told), before, after, unread);
    expect(memberIn(set, 'u7')).toMatchObject(taken);
    expect(isSuspect(set, 'u7')).toBe(false);
  });

  test('full state says who may enter, also where the room has got a new name since, which stays', () => {
    const { set } = retried(
      lost(fact('room.created', { access: 'members', name: 'Standup', members: [] })),
      [fact('room.created', { access: 'authenticated' })],
      [fact('room.updated', { name: 'Retro' })],
    );
    expect(roomIn(set)).toMatchObject({ access: 'members', name: 'Retro' });
  });

  test('a name that was taken back stays so', () => {
    const { set } = retried(
      lost(fact('room.created', { name: 'Standup' })),
      [],
      [fact('room.updated', { name: null })],
    );
    expect(roomIn(set)?.name).toBeNull();
  });

  test('full state removes whom an older letter, retried before it, gave a role', () => {
    const letters: [number, RoomEvent][] = [
      [1, { type: 'member.updated', subject: 'room-42', data: { userId: 'u7', role: 'host' } }],
      [3, { type: 'room.created', subject: 'room-42', data: { members: [] } }],
    ];
    const set = fold([
      added('u7', 'speaker'),
      dead('member.updated', { userId: 'u7', role: 7 }),
      fact('member.updated', { userId: 'u7', displayName: 'Ann' }),
      dead('room.created', { members: 'none' }),
    ]);
    for (const [offset, event] of letters) {
      const [letter, now] = [originOf({ offset }), originOf({ offset: 10 + offset })];
      for (const change of settleDeadLetter(set, letter, now)) set.put(change);
      for (const change of evolveRetried(set, event, letter)) set.put(change);
    }
    expect(memberIn(set, 'u7')).toMatchObject({ role: 'host', isRemoved: true });
  });

  test('counts at its own place beside an older letter that is retried after it', () => {
    const older = lost(fact('member.updated', { userId: 'u7', role: 'host' }));
    const { set } = retried(
      lost(fact('member.updated', { userId: 'u7', role: 'listener' })),
      [added('u7', 'speaker'), dead('member.updated', { userId: 'u7', role: 7 })],
      [fact('member.updated', { userId: 'u7', displayName: 'Ann' })],
    );
    expect(memberIn(set, 'u7')).toMatchObject({ role: 'listener', origin: { offset: 3n }, decided: { offset: 2n } });
    const [letter, now] = [originOf({ offset: 1 }), originOf({ offset: 5 })];
    for (const change of settleDeadLetter(set, letter, now)) set.put(change);
    expect(evolveRetried(set, older.event, letter)).toEqual([]);
  });

  test('gives nothing where names stand in another partition, since a right may have been told there, too', () => {
    const { set } = retried(
      lost(fact('member.updated', { userId: 'u7', role: 'host' })),
      [added('u7', 'listener', { partition: 1 })],
      [],
    );
    expect(memberIn(set, 'u7')).toMatchObject({ role: 'listener' });
  });

  test('gives nothing where what decides stands in another partition, whatever name was told in its own', () => {
    const { set } = retried(
      lost(fact('member.updated', { userId: 'u7', role: 'host' })),
      [added('u7', 'listener', { partition: 1 }), fact('member.updated', { userId: 'u7', displayName: 'Ann' })],
      [],
    );
    expect(memberIn(set, 'u7')).toMatchObject({ role: 'listener' });
  });

  test('settles no doubt of a newer letter where names were told since', () => {
    const { set } = retried(
      lostRemoval,
      [added('u7', 'speaker')],
      [
        fact('member.updated', { userId: 'u7', displayName: 'Ann' }),
        dead('member.removed', { userId: 'u7', reason: 7 }),
      ],
    );
    expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true, displayName: 'Ann' });
    expect(isSuspect(set, 'u7')).toBe(true);
  });

  test('beside facts of another partition, of which none is known to be newer, it takes rights away and gives none', () => {
    const elsewhere = { partition: 1 };
    const { set: given } = retried(lost(added('u7', 'host')), [], [removed('u7', elsewhere)]);
    expect(memberIn(given, 'u7')).toMatchObject({ isRemoved: true });
    const { set: taken } = retried(lost(removed('u7')), [], [added('u7', 'host', elsewhere)]);
    expect(memberIn(taken, 'u7')).toMatchObject({ isRemoved: true });
  });

  const bannedUntil = (until: string, at = {}): Told =>
    fact('member.banned', { userId: 'u7', privilege: 'join', until }, at);

  test.each<{ what: string; told: Told; contrary: Told; seen: (set: WorkingSet) => unknown }>([
    {
      what: 'a ban',
      told: banned('u7', 'join'),
      contrary: fact('member.unbanned', { userId: 'u7', privilege: 'join' }, { partition: 1 }),
      seen: (set) => banIn(set, 'u7', 'join')?.isLifted === false,
    },
    {
      what: 'a ban for good, beside one that ends,',
      told: banned('u7', 'join'),
      contrary: bannedUntil('2026-01-01T00:00:00Z', { partition: 1 }),
      seen: (set) => banIn(set, 'u7', 'join')?.untilMs === null,
    },
    {
      what: 'the longer of two bans',
      told: bannedUntil('2026-01-02T00:00:00Z'),
      contrary: bannedUntil('2026-01-01T00:00:00Z', { partition: 1 }),
      seen: (set) => banIn(set, 'u7', 'join')?.untilMs === Date.parse('2026-01-02T00:00:00Z'),
    },
    {
      what: 'a disabled user',
      told: fact('user.disabled', { userId: 'u7' }),
      contrary: fact('user.enabled', { userId: 'u7' }, { partition: 1 }),
      seen: (set) => set.users.get('u7')?.isDisabled,
    },
    {
      what: 'a lock',
      told: fact('room.locked', undefined),
      contrary: fact('room.unlocked', undefined, { partition: 1 }),
      seen: (set) => roomIn(set)?.isLocked,
    },
  ])('beside its contrary in another partition: $what holds, whichever of them is retried', (row) => {
    const [told, contrary] = [lost(row.told), lost(row.contrary)];
    expect(row.seen(retried(told, [], [contrary]).set)).toBe(true);
    expect(row.seen(retried(contrary, [], [told]).set)).toBe(true);
  });

  test('a lock settles no doubt of another partition, where it may be the older one', () => {
    const elsewhere = { partition: 1 };
    const { set } = retried(
      lost(fact('room.locked', undefined)),
      [fact('room.created', {}, elsewhere)],
      [dead('room.updated', { access: 7 }, elsewhere)],
    );
    expect(roomIn(set)).toMatchObject({ isLocked: true });
    expect(isSuspect(set, 'u7')).toBe(true);
  });

  test('full state: entity by entity', () => {
    const members = [
      { userId: 'u7', role: 'host' as const },
      { userId: 'u8', role: 'host' as const },
    ];
    const { set } = retried(lost(fact('room.created', { members })), [added('u9', 'speaker')], [removed('u7')]);
    expect(roomIn(set)).toMatchObject({ state: 'open' });
    expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true });
    expect(memberIn(set, 'u8')).toMatchObject({ role: 'host', isRemoved: false });
    expect(memberIn(set, 'u9')).toMatchObject({ isRemoved: true });
    expect(isSuspect(set, 'u9')).toBe(false);
  });

  test('full state changes a header that stands below it, too', () => {
    const { set } = retried(
      lost(fact('room.created', { access: 'members', members: [] })),
      [fact('room.created', { access: 'authenticated' })],
      [],
    );
    expect(roomIn(set)).toMatchObject({ access: 'members', origin: { offset: 1n } });
  });

  test('full state takes away what stands below it, also where the header stands above it', () => {
    const members = [{ userId: 'u7', role: 'host' as const }];
    const { set } = retried(
      lost(fact('room.created', { name: 'Standup', members })),
      [added('u9', 'speaker')],
      [fact('room.updated', { name: 'Retro' }), added('u10', 'speaker')],
    );
    expect(roomIn(set)?.name).toBe('Retro');
    expect(memberIn(set, 'u7')).toMatchObject({ role: 'host', isRemoved: false });
    expect(memberIn(set, 'u9')).toMatchObject({ isRemoved: true });
    expect(memberIn(set, 'u10')).toMatchObject({ isRemoved: false });
  });

  test('full state beside facts of another partition removes whom it does not name, and gives them nothing else', () => {
    const elsewhere = { partition: 1 };
    const members = [{ userId: 'u7', role: 'host' as const }];
    const { set } = retried(
      lost(fact('room.created', { name: 'Standup', members })),
      [fact('room.created', { name: 'Retro' }, elsewhere), added('u7', 'listener', elsewhere)],
      [added('u9', 'speaker', elsewhere)],
    );
    expect(roomIn(set)?.name).toBe('Retro');
    expect(memberIn(set, 'u7')).toMatchObject({ role: 'listener', isRemoved: false });
    expect(memberIn(set, 'u9')).toMatchObject({ isRemoved: true });
  });

  describe('brings in nobody whom newer full state left out:', () => {
    const members = [{ userId: 'u7', role: 'host' as const }];
    const told = fact('room.created', { members });
    const renamed = fact('room.updated', { name: 'Retro' });
    const stranger = lost(added('u9', 'host'));

    test('an addition', () => {
      const { set } = retried(stranger, [], [told, renamed]);
      expect(memberIn(set, 'u9')).toBeUndefined();
    });

    test('older full state', () => {
      const both = [...members, { userId: 'u9', role: 'host' as const }];
      const { set } = retried(lost(fact('room.created', { members: both })), [], [told, renamed]);
      expect(memberIn(set, 'u9')).toBeUndefined();
      expect(roomIn(set)).toMatchObject({ name: 'Retro', membersTold: { offset: 1n } });
    });

    test('an addition, where the full state was a dead letter too, and retried before', () => {
      const { set } = retried(lost(told), [dead('member.added', {})], [renamed]);
      expect(roomIn(set)).toMatchObject({ name: 'Retro', origin: { offset: 2n }, membersTold: { offset: 1n } });
      expect(evolveRetried(set, stranger.event, originOf({ offset: 0 }))).toEqual([]);
    });

    test('an addition, where full state was retried before it and the header stands in another partition', () => {
      const { set } = retried(lost(told), [fact('room.created', {}, { partition: 1 }), dead('member.added', {})], []);
      expect(evolveRetried(set, stranger.event, originOf({ offset: 1 }))).toEqual([]);
    });

    test('an addition, where the header was decided after full state and named in another partition, which it keeps', () => {
      const decided = fact('room.updated', { access: 'authenticated' });
      const { set } = retried(
        lost(told),
        [dead('member.added', {})],
        [decided, fact('room.updated', { name: 'Retro' }, { partition: 1 })],
      );
      expect(roomIn(set)).toMatchObject({
        name: 'Retro',
        origin: { partition: 1, offset: 3n },
        membersTold: { offset: 1n },
      });
      expect(evolveRetried(set, stranger.event, originOf({ offset: 0 }))).toEqual([]);
    });

    test('but one who was added after it', () => {
      const { set } = retried(stranger, [told], [renamed]);
      expect(memberIn(set, 'u9')).toMatchObject({ role: 'host', origin: { offset: 1n } });
    });
  });

  test('settles no doubt of another dead letter that is newer', () => {
    const { set } = retried(
      lostRemoval,
      [added('u7', 'speaker')],
      [dead('member.removed', { userId: 'u7', reason: 7 })],
    );
    expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true });
    expect(isSuspect(set, 'u7')).toBe(true);
  });

  test.each<{ why: string; lost: Told }>([
    { why: 'an addition', lost: added('u7', 'host') },
    { why: 'full state', lost: fact('room.created', { members: [{ userId: 'u7', role: 'host' }] }) },
  ])('settles no doubt of another partition, where it may be the older one: $why', ({ lost: told }) => {
    const elsewhere = { partition: 1 };
    const { set } = retried(
      lost(told),
      [fact('room.created', {}, elsewhere), added('u7', 'speaker', elsewhere)],
      [dead('member.removed', { userId: 'u7', reason: 7 }, elsewhere)],
    );
    expect(memberIn(set, 'u7')).toMatchObject({ role: 'speaker', isRemoved: false });
    expect(isSuspect(set, 'u7')).toBe(true);
  });

  test('twice changes nothing more', () => {
    const { again, changes } = retried(lostRemoval, [added('u7', 'speaker')], []);
    expect(changes).toBe(2);
    expect(again()).toBe(0);
  });

  test('what follows it in the log is compared with its own place', () => {
    const { set } = retried(lostRemoval, [added('u7', 'speaker')], []);
    for (const change of evolveRoom(
      set,
      { type: 'member.added', subject: 'room-42', data: { userId: 'u7', role: 'host' } },
      originOf({ offset: 5 }),
    ))
      set.put(change);
    expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: false, role: 'host' });
  });
});
