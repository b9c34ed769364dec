import { describe, expect, test } from 'vitest';
import { added, banned, dead, fact, fold, isSuspect, placed, removed, type Told, tell } from '../test/given.ts';
import { keyOf } from './room.ts';
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
    { why: 'a removal without a user: the room', given: dead('member.removed', {}), then: people },
    {
      why: 'a removal of an impossible user: the room',
      given: dead('member.removed', { userId: 'u7\0' }),
      then: people,
    },
    { why: 'a removal with data that is no object: the room', given: dead('member.removed', ['u7']), then: people },
    { why: 'a disabled user, whatever the room', given: dead('user.disabled', {}, { key: 'u7' }), then: ['u7'] },
    { why: 'an ended login', given: dead('login.ended', { userId: 'u7' }, { key: 'u7' }), then: ['u7'] },
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

  test('only in its own room', () => {
    const set = fold([dead('member.removed', { userId: 'u7' }), dead('room.closed', 7, { room: 'room-43' })]);
    expect(isSuspect(set, 'u7', 'room-44')).toBe(false);
    expect(isSuspect(set, 'u8')).toBe(false);
    expect(isSuspect(set, 'u8', 'room-43')).toBe(true);
  });

  test('no prototype and no role comes out of what was read', () => {
    const set = fold([dead('member.removed', JSON.parse('{"__proto__":{"role":"admin","members":[]},"userId":"u7"}'))]);
    expect(set.suspects.get(keyOf('member', 'room-42', 'u7'))?.isHealed).toBe(false);
    expect(({} as Record<string, unknown>).role).toBeUndefined();
  });
});

describe('what settles a doubt', () => {
  const lostRemoval = dead('member.removed', { userId: 'u7', reason: 7 });
  const lostLock = dead('room.locked', 7);
  const lostName = dead('member.removed', {});
  const lostUser = dead('user.disabled', {}, { key: 'u7' });
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
    { why: 'header: not a member', given: [lostLock, added('u7', 'speaker')], suspect: true },
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
      why: 'not for ever: another dead letter is another doubt',
      given: [lostRemoval, added('u7', 'speaker'), lostRemoval],
      suspect: true,
    },
  ])('$why', ({ given, suspect }) => {
    expect(isSuspect(fold(given), 'u7')).toBe(suspect);
  });

  test('a dead letter that is read again raises no doubt that was settled', () => {
    const log = placed([lostRemoval, fact('dead_letter.discarded', { ...position, offset: '0' })]);
    const set = new WorkingSet();
    tell(set, log);
    tell(set, log);
    expect(isSuspect(set, 'u7')).toBe(false);
  });
});
