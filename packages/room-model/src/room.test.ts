import type { RoomEventData } from '@realtime-service/contracts';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type At,
  added,
  anyLog,
  banIn,
  banned,
  changesOf,
  fact,
  fold,
  memberIn,
  originOf,
  placed,
  removed,
  roomIn,
  stateOf,
  type Told,
  tell,
  theRoom,
} from '../test/given.ts';
import { isNewer, versionAfter } from './origin.ts';
import { permissionsOf, roles } from './permissions.ts';
import { keyOf } from './room.ts';
import { WorkingSet } from './working-set.ts';

const host = { userId: 'u1', role: 'host' } as const;

describe('a room event becomes the rows that it changes', () => {
  test.each<{ type: string; given: Told[]; then: (set: WorkingSet) => void }>([
    {
      type: 'room.created with defaults',
      given: [fact('room.created', {})],
      then: (set) =>
        expect(roomIn(set)).toEqual({
          roomId: 'room-42',
          state: 'open',
          name: null,
          access: 'members',
          defaultRole: 'listener',
          opensAtMs: null,
          closesAtMs: null,
          maxParticipants: null,
          devicePolicy: { mode: 'multi' },
          settings: {},
          isLocked: false,
          closingReason: null,
          membersTold: null,
          decided: versionAfter(originOf({ offset: 0 }), null),
          origin: originOf({ offset: 0 }),
        }),
    },
    {
      type: 'room.created with all fields',
      given: [
        fact('room.created', {
          name: 'Standup',
          access: 'authenticated',
          defaultRole: 'observer',
          opensAt: '2026-03-01T10:00:00.123456789+02:00',
          closesAt: '9999-12-31T23:59:59Z',
          maxParticipants: 10,
          devicePolicy: { mode: 'multi', max: 2 },
          settings: { clientName: true },
        }),
      ],
      then: (set) =>
        expect(roomIn(set)).toMatchObject({
          name: 'Standup',
          access: 'authenticated',
          defaultRole: 'observer',
          opensAtMs: Date.UTC(2026, 2, 1, 8, 0, 0, 123),
          closesAtMs: Date.UTC(9999, 11, 31, 23, 59, 59),
          maxParticipants: 10,
          devicePolicy: { mode: 'multi', max: 2 },
          settings: { clientName: true },
        }),
    },
    {
      type: 'room.updated: absent stays, null clears, a value replaces',
      given: [
        fact('room.created', {
          name: 'Standup',
          maxParticipants: 10,
          defaultRole: 'speaker',
          closesAt: '2026-03-01T13:00:00Z',
        }),
        fact('room.updated', { maxParticipants: null, closesAt: null, name: 'Retro' }),
      ],
      then: (set) =>
        expect(roomIn(set)).toMatchObject({
          name: 'Retro',
          maxParticipants: null,
          closesAtMs: null,
          defaultRole: 'speaker',
        }),
    },
    {
      type: 'room.updated of a room that was never created opens it',
      given: [fact('room.updated', { name: 'Standup' })],
      then: (set) => expect(roomIn(set)).toMatchObject({ state: 'open', name: 'Standup', access: 'members' }),
    },
    {
      type: 'room.locked',
      given: [fact('room.created', {}), fact('room.locked', undefined)],
      then: (set) => expect(roomIn(set)).toMatchObject({ isLocked: true, state: 'open' }),
    },
    {
      type: 'room.unlocked',
      given: [fact('room.created', {}), fact('room.locked', undefined), fact('room.unlocked', undefined)],
      then: (set) => expect(roomIn(set)?.isLocked).toBe(false),
    },
    {
      type: 'room.created again keeps the lock, which it does not speak of',
      given: [fact('room.created', {}), fact('room.locked', undefined), fact('room.created', { name: 'Retro' })],
      then: (set) => expect(roomIn(set)).toMatchObject({ isLocked: true, name: 'Retro' }),
    },
    {
      type: 'room.closed is terminal',
      given: [
        fact('room.created', {}),
        fact('room.closed', undefined),
        fact('room.updated', { name: 'Retro' }),
        fact('room.created', {}),
      ],
      then: (set) => expect(roomIn(set)).toMatchObject({ state: 'closed', closingReason: null }),
    },
    {
      type: 'room.closed keeps its reason, whatever a header says later',
      given: [
        fact('room.created', {}),
        fact('room.closed', { reason: 'moved' }),
        fact('room.updated', { name: 'Retro' }),
        fact('room.created', {}),
      ],
      then: (set) => expect(roomIn(set)).toMatchObject({ state: 'closed', closingReason: 'moved' }),
    },
    {
      type: 'room.closed that a newer header overtook still closes',
      given: [
        fact('room.created', {}, { sequence: '1' }),
        fact('room.updated', { name: 'Retro' }, { sequence: '3' }),
        fact('room.closed', { reason: 'moved' }, { sequence: '2' }),
      ],
      then: (set) =>
        expect(roomIn(set)).toMatchObject({
          state: 'closed',
          name: 'Retro',
          closingReason: 'moved',
          origin: { sequence: 3n },
        }),
    },
    {
      type: 'member.added',
      given: [
        fact('member.added', {
          userId: 'u7',
          role: 'speaker',
          displayName: 'Ann',
          permissions: { publishSources: ['camera'] },
        }),
      ],
      then: (set) =>
        expect(memberIn(set, 'u7')).toMatchObject({
          role: 'speaker',
          displayName: 'Ann',
          permissions: { publishSources: ['camera'] },
          isRemoved: false,
        }),
    },
    {
      type: 'member.added again replaces the whole row',
      given: [
        fact('member.added', { userId: 'u7', role: 'host', displayName: 'Ann', permissions: { hidden: true } }),
        added('u7', 'listener'),
      ],
      then: (set) =>
        expect(memberIn(set, 'u7')).toMatchObject({ role: 'listener', displayName: null, permissions: null }),
    },
    {
      type: 'member.updated: absent stays, null clears',
      given: [
        fact('member.added', { userId: 'u7', role: 'speaker', displayName: 'Ann', permissions: { hidden: true } }),
        fact('member.updated', { userId: 'u7', role: 'listener', permissions: null }),
      ],
      then: (set) =>
        expect(memberIn(set, 'u7')).toMatchObject({ role: 'listener', displayName: 'Ann', permissions: null }),
    },
    {
      type: 'member.updated with a new display name keeps role and rights',
      given: [
        fact('member.added', { userId: 'u7', role: 'speaker', permissions: { hidden: true } }),
        fact('member.updated', { userId: 'u7', displayName: 'Ann' }),
      ],
      then: (set) =>
        expect(memberIn(set, 'u7')).toMatchObject({
          role: 'speaker',
          displayName: 'Ann',
          permissions: { hidden: true },
        }),
    },
    {
      type: 'member.updated with a role makes a member of somebody unknown',
      given: [fact('member.updated', { userId: 'u7', role: 'speaker' })],
      then: (set) =>
        expect(memberIn(set, 'u7')).toMatchObject({ role: 'speaker', displayName: null, permissions: null }),
    },
    {
      type: 'member.updated makes nobody a member without a role',
      given: [fact('member.updated', { userId: 'u7', displayName: 'Ann' })],
      then: (set) => expect(memberIn(set, 'u7')).toMatchObject({ role: null, isRemoved: false }),
    },
    {
      type: 'member.updated that overtook its addition: the addition gives what the update did not say',
      given: [
        fact('member.updated', { userId: 'u7', displayName: 'Ann' }, { sequence: '2' }),
        fact(
          'member.added',
          { userId: 'u7', role: 'speaker', displayName: 'Anna', permissions: { hidden: true } },
          { sequence: '1' },
        ),
      ],
      then: (set) =>
        expect(memberIn(set, 'u7')).toMatchObject({
          role: 'speaker',
          displayName: 'Ann',
          permissions: { hidden: true },
          origin: { sequence: 2n },
        }),
    },
    {
      type: 'member.updated that overtook its addition: rights that it took back stay taken back',
      given: [
        fact('member.updated', { userId: 'u7', permissions: null }, { sequence: '2' }),
        fact('member.updated', { userId: 'u7', displayName: 'Ann' }, { sequence: '3' }),
        fact(
          'member.added',
          { userId: 'u7', role: 'listener', permissions: { publishSources: ['microphone'] } },
          { sequence: '1' },
        ),
      ],
      then: (set) => {
        const member = memberIn(set, 'u7');
        expect(member).toMatchObject({ role: 'listener', displayName: 'Ann' });
        expect(permissionsOf('listener', member?.permissions ?? null, [])).toEqual(roles.listener.permissions);
      },
    },
    {
      type: 'member.updated that overtook its addition: the name comes from the addition',
      given: [
        fact('member.updated', { userId: 'u7', permissions: {} }, { sequence: '2' }),
        fact('member.added', { userId: 'u7', role: 'speaker', displayName: 'Ann' }, { sequence: '1' }),
      ],
      then: (set) => expect(memberIn(set, 'u7')).toMatchObject({ role: 'speaker', displayName: 'Ann' }),
    },
    {
      type: 'member.updated brings nobody back',
      given: [added('u7', 'speaker'), removed('u7'), fact('member.updated', { userId: 'u7', role: 'host' })],
      then: (set) => expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true, role: 'speaker' }),
    },
    {
      type: 'member.added that an update of a removed member overtook counts for nothing: it would be without the update',
      given: [
        removed('u7', { sequence: '1' }),
        fact('member.updated', { userId: 'u7', role: 'listener' }, { sequence: '3' }),
        added('u7', 'host', { sequence: '2' }),
      ],
      then: (set) => expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true, role: null }),
    },
    {
      type: 'member.removed leaves a tombstone',
      given: [added('u7', 'speaker'), removed('u7')],
      then: (set) =>
        expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true, removalReason: null, origin: { offset: 1n } }),
    },
    {
      type: 'member.removed keeps its reason, and the next removal its own',
      given: [
        added('u7', 'speaker'),
        ...['spam', 'harassment'].map((reason) => fact('member.removed', { userId: 'u7', reason })),
      ],
      then: (set) => expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true, removalReason: 'harassment' }),
    },
    {
      type: 'member.removed of somebody unknown leaves one too',
      given: [removed('u7', { sequence: '8' }), added('u7', 'speaker', { sequence: '7' })],
      then: (set) => expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true, role: null }),
    },
    {
      type: 'member.added after a removal is a member again',
      given: [
        added('u7', 'speaker'),
        fact('member.removed', { userId: 'u7', reason: 'spam' }),
        added('u7', 'listener'),
      ],
      then: (set) =>
        expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: false, removalReason: null, role: 'listener' }),
    },
    {
      type: 'member.banned, for good and until',
      given: [
        banned('u7', 'join'),
        fact('member.banned', {
          userId: 'u7',
          privilege: 'data',
          until: '2026-03-01T14:00:00+02:00',
          reason: 'spam',
        }),
      ],
      then: (set) => {
        expect(banIn(set, 'u7', 'join')).toMatchObject({ untilMs: null, isLifted: false, reason: null });
        expect(banIn(set, 'u7', 'data')).toMatchObject({
          untilMs: Date.UTC(2026, 2, 1, 12),
          isLifted: false,
          reason: 'spam',
        });
      },
    },
    {
      type: 'member.unbanned lifts one privilege and stays as a tombstone',
      given: [
        banned('u7', 'join', { sequence: '1' }),
        banned('u7', 'data', { sequence: '1' }),
        fact('member.unbanned', { userId: 'u7', privilege: 'join' }, { sequence: '3' }),
        banned('u7', 'join', { sequence: '2' }),
      ],
      then: (set) => {
        expect(banIn(set, 'u7', 'join')).toMatchObject({ isLifted: true });
        expect(banIn(set, 'u7', 'data')).toMatchObject({ isLifted: false });
      },
    },
    {
      type: 'user.disabled and user.enabled, by version',
      given: [
        fact('user.disabled', { userId: 'u7' }, { sequence: '2' }),
        fact('user.enabled', { userId: 'u7' }, { sequence: '1' }),
        fact('user.disabled', { userId: 'u8' }),
        fact('user.enabled', { userId: 'u8' }),
      ],
      then: (set) => {
        expect(set.users.get('u7')?.isDisabled).toBe(true);
        expect(set.users.get('u8')?.isDisabled).toBe(false);
      },
    },
    {
      type: 'login.ended ends that login only, for good',
      given: [fact('login.ended', { userId: 'u7', sid: 's1' }), fact('login.ended', { userId: 'u7', sid: 's1' })],
      then: (set) => {
        expect(set.logins.get(keyOf('u7', 's1'))?.origin.offset).toBe(0n);
        expect(set.logins.has(keyOf('u7', 's2'))).toBe(false);
      },
    },
    {
      type: 'dead_letter.retried changes nothing by itself',
      given: [fact('dead_letter.retried', { topic: 't', partition: 0, offset: '3' })],
      then: (set) => expect([...Object.values(stateOf(set))].every(({ size }) => size === 0)).toBe(true),
    },
  ])('$type', ({ given, then }) => {
    then(fold(given));
  });

  test('participant.kick_requested and track.mute_requested are orders to one session', () => {
    const session = { participantSid: 'PA_1', identity: 'u7', by: 'u1' };
    const orders = [
      fact('participant.kick_requested', { ...session, reason: 'spam' }),
      fact('track.mute_requested', { ...session, trackSid: 'TR_1' }),
    ];
    const told = { roomId: 'room-42', ...session, origin: originOf({}) };
    expect(orders.flatMap((order) => changesOf(new WorkingSet(), order))).toEqual([
      { entity: 'edge', row: { kind: 'kick', trackSid: null, reason: 'spam', ...told } },
      { entity: 'edge', row: { kind: 'mute', trackSid: 'TR_1', reason: null, ...told } },
    ]);
  });

  describe('room.updated', () => {
    const standup = {
      name: 'Standup',
      access: 'authenticated',
      defaultRole: 'observer',
      opensAt: '2026-03-01T10:00:00Z',
      closesAt: '2026-03-01T13:00:00Z',
      maxParticipants: 10,
      devicePolicy: { mode: 'multi', max: 2 },
      settings: { clientName: true },
    } as const satisfies RoomEventData<'room.created'>;
    const retro: Readonly<Record<keyof typeof standup, unknown>> = {
      name: 'Retro',
      access: 'members',
      defaultRole: 'host',
      opensAt: '2026-03-02T10:00:00Z',
      closesAt: '2026-03-02T13:00:00Z',
      maxParticipants: 20,
      devicePolicy: { mode: 'single_newest' },
      settings: { clientMetadata: true },
    };
    const headerOf = (created: object, ...updates: object[]) => {
      const updated = updates.map((update) => fact('room.updated', update));
      return { ...roomIn(fold([fact('room.created', created), ...updated])), decided: null, origin: null };
    };

    test('leaves what it does not name', () => {
      expect(headerOf(standup, {})).toEqual(headerOf(standup));
    });

    test.each(Object.entries(retro))('%s: a value replaces, null clears', (field, value) => {
      expect(headerOf(standup, { [field]: value })).toEqual(headerOf({ ...standup, [field]: value }));
      expect(headerOf(standup, { [field]: null })).toEqual(headerOf({ ...standup, [field]: undefined }));
    });
  });
});

describe('room.created with members is full state', () => {
  const members = [host, { userId: 'u7', role: 'listener' as const }];

  test('whoever is not named becomes removed, the others become what it says', () => {
    const set = fold([added('u7', 'speaker'), added('u8', 'speaker'), fact('room.created', { members })]);
    expect(memberIn(set, 'u1')).toMatchObject({ role: 'host', isRemoved: false });
    expect(memberIn(set, 'u7')).toMatchObject({ role: 'listener', isRemoved: false });
    expect(memberIn(set, 'u8')).toMatchObject({ role: 'speaker', isRemoved: true });
  });

  test('an empty list removes everybody, no list nobody', () => {
    expect(memberIn(fold([added('u7', 'speaker'), fact('room.created', { members: [] })]), 'u7')?.isRemoved).toBe(true);
    expect(memberIn(fold([added('u7', 'speaker'), fact('room.created', {})]), 'u7')?.isRemoved).toBe(false);
  });

  test('whoever was removed before stays as that removal left them', () => {
    expect(
      memberIn(fold([added('u7', 'speaker'), removed('u7'), fact('room.created', { members: [] })]), 'u7')?.origin
        .offset,
    ).toBe(1n);
  });

  test('whoever was removed is not looked at again with each, however many they are', () => {
    const set = fold([fact('room.created', { members: [host] }), removed('u1'), added('u2', 'speaker')]);
    expect([...set.membersOf(theRoom)].map(({ userId }) => userId)).toEqual(['u2']);
  });

  test('other rooms and bans are left alone', () => {
    const set = fold([
      added('u7', 'speaker', { room: 'room-43' }),
      banned('u8', 'join'),
      fact('room.created', { members }),
    ]);
    expect(memberIn(set, 'u7', 'room-43')?.isRemoved).toBe(false);
    expect(banIn(set, 'u8', 'join')?.isLifted).toBe(false);
  });

  test("the room's sequence does not become the members' version", () => {
    const set = fold([
      added('u7', 'speaker', { sequence: '1' }),
      fact('room.created', { members }, { sequence: '50' }),
      removed('u7', { sequence: '2' }),
    ]);
    expect(memberIn(set, 'u7')?.isRemoved).toBe(true);
    const later = fold([fact('room.created', { members }, { sequence: '50' }), removed('u7', { sequence: '2' })]);
    expect(memberIn(later, 'u7')?.isRemoved).toBe(true);
  });

  test("nor does it make the members' own versions forgotten", () => {
    const set = fold([
      removed('u8', { sequence: '5' }),
      fact('room.created', { members }, { sequence: '1' }),
      added('u8', 'host', { sequence: '4' }),
      removed('u7', { sequence: '9' }),
      fact('room.created', { members }, { sequence: '2' }),
      removed('u7', { sequence: '8' }),
    ]);
    expect(memberIn(set, 'u8')?.isRemoved).toBe(true);
    expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: false, origin: { offset: 4n, sequence: 9n } });
  });

  test('overtaken by a newer header it only adds people of whom nothing is known', () => {
    const set = fold([
      fact('room.updated', { name: 'Retro' }, { sequence: '9' }),
      added('u8', 'speaker'),
      removed('u7'),
      fact('room.created', { name: 'Standup', members }, { sequence: '1' }),
    ]);
    expect(roomIn(set)?.name).toBe('Retro');
    expect(memberIn(set, 'u1')).toMatchObject({ role: 'host', isRemoved: false, origin: { sequence: null } });
    expect(memberIn(set, 'u7')?.isRemoved).toBe(true);
    expect(memberIn(set, 'u8')?.isRemoved).toBe(false);
  });

  test('overtaken by newer full state it adds nobody', () => {
    const set = fold([
      fact('room.created', { members: [host] }, { sequence: '2' }),
      fact('room.updated', { name: 'Retro' }, { sequence: '3' }),
      fact('room.created', { members: [host, { userId: 'u9', role: 'host' }] }, { sequence: '1' }),
    ]);
    expect(memberIn(set, 'u9')).toBeUndefined();
    expect(roomIn(set)).toMatchObject({ name: 'Retro', membersTold: { offset: 0n, sequence: 2n } });
  });

  test('a name that stands twice counts once, as last said', () => {
    const set = fold([fact('room.created', { members: [host, { userId: 'u1', role: 'listener' }] })]);
    expect(memberIn(set, 'u1')?.role).toBe('listener');
  });
});

describe('versions', () => {
  test.each<{ stored: At; incoming: At; newer: boolean; why: string }>([
    { why: 'later in the log', stored: { offset: 4 }, incoming: { offset: 5 }, newer: true },
    { why: 'the same record', stored: { offset: 4 }, incoming: { offset: 4 }, newer: false },
    { why: 'earlier in the log', stored: { offset: 4 }, incoming: { offset: 3 }, newer: false },
    {
      why: 'a higher sequence, later in the log',
      stored: { offset: 4, sequence: '7' },
      incoming: { offset: 5, sequence: '8' },
      newer: true,
    },
    {
      why: 'a higher sequence that was told before',
      stored: { offset: 4, sequence: '7' },
      incoming: { offset: 3, sequence: '8' },
      newer: false,
    },
    {
      why: 'a lower sequence, later in the log',
      stored: { offset: 4, sequence: '8' },
      incoming: { offset: 5, sequence: '7' },
      newer: false,
    },
    {
      why: 'numbers, not text',
      stored: { offset: 4, sequence: '9' },
      incoming: { offset: 5, sequence: '10' },
      newer: true,
    },
    {
      why: 'padding does not count',
      stored: { offset: 4, sequence: '00000000000000000010' },
      incoming: { offset: 5, sequence: '9' },
      newer: false,
    },
    {
      why: 'equal but for padding: the log decides',
      stored: { offset: 4, sequence: '0010' },
      incoming: { offset: 5, sequence: '10' },
      newer: true,
    },
    {
      why: 'equal, repeated record',
      stored: { offset: 4, sequence: '10' },
      incoming: { offset: 4, sequence: '10' },
      newer: false,
    },
    {
      why: '30 digits that differ in the last',
      stored: { offset: 4, sequence: `${'9'.repeat(29)}8` },
      incoming: { offset: 5, sequence: '9'.repeat(30) },
      newer: true,
    },
    {
      why: '30 digits that differ in the last',
      stored: { offset: 4, sequence: '9'.repeat(30) },
      incoming: { offset: 5, sequence: `${'9'.repeat(29)}8` },
      newer: false,
    },
    {
      why: 'only one side has a sequence: the log decides',
      stored: { offset: 4, sequence: '8' },
      incoming: { offset: 5 },
      newer: true,
    },
    {
      why: 'only one side has a sequence: the log decides',
      stored: { offset: 4 },
      incoming: { offset: 3, sequence: '8' },
      newer: false,
    },
    {
      why: 'another partition, no sequences: as it arrives',
      stored: { offset: 9 },
      incoming: { offset: 1, partition: 1 },
      newer: true,
    },
    {
      why: 'another partition, sequences decide',
      stored: { offset: 1, sequence: '8' },
      incoming: { offset: 9, partition: 1, sequence: '7' },
      newer: false,
    },
  ])('$why: $incoming after $stored', ({ stored, incoming, newer }) => {
    expect(isNewer(originOf(incoming), originOf(stored))).toBe(newer);
  });

  test('are per entity: what is known of one person says nothing about another', () => {
    for (const known of [removed('u8', { sequence: '11' }), added('u8', 'host', { sequence: '11' })]) {
      const set = fold([known, added('u7', 'speaker', { sequence: '10' })]);
      expect(memberIn(set, 'u7')?.isRemoved).toBe(false);
    }
  });

  test('a fact without a sequence does not make an older one pass for new', () => {
    const set = fold([removed('u7', { sequence: '8' }), removed('u7'), added('u7', 'host', { sequence: '7' })]);
    expect(memberIn(set, 'u7')).toMatchObject({ isRemoved: true, origin: { offset: 1n, sequence: 8n } });
    const lowered = fold([
      added('u7', 'host', { sequence: '8' }),
      fact('member.updated', { userId: 'u7', role: 'listener' }),
      added('u7', 'host', { sequence: '7' }),
    ]);
    expect(memberIn(lowered, 'u7')).toMatchObject({ role: 'listener', origin: { offset: 1n, sequence: 8n } });
  });

  test('another topic, no sequences: as it arrives', () => {
    expect(isNewer({ ...originOf({ offset: 1 }), topic: 'other' }, originOf({ offset: 9 }))).toBe(true);
  });

  test('time never orders facts', () => {
    const set = new WorkingSet();
    tell(set, placed([removed('u7', { sequence: '2' })]));
    const late = { ...originOf({ offset: 9, sequence: '1' }), timeMs: Date.UTC(9999, 11, 31) };
    expect(isNewer(late, memberIn(set, 'u7')?.origin ?? null)).toBe(false);
  });
});

describe('C19: ids are bytes', () => {
  test.each([
    ['caf\u00e9', 'cafe\u0301'],
    ['a/b', 'a%2Fb'],
    ['U7', 'u7'],
    ['u7 ', 'u7'],
    ['f:1:x', 'f:1'],
    ['__proto__', 'constructor'],
  ])('%j and %j are two people and two rooms', (one, other) => {
    const set = fold([
      added(one, 'host'),
      added(other, 'host'),
      removed(one),
      fact('room.created', {}, { room: one }),
      fact('room.closed', {}, { room: other }),
    ]);
    expect(memberIn(set, one)?.isRemoved).toBe(true);
    expect(memberIn(set, other)?.isRemoved).toBe(false);
    expect(roomIn(set, one)?.state).toBe('open');
    expect(roomIn(set, other)?.state).toBe('closed');
  });
});

/** The one entity that a fact is about; null for what is about many or about none. */
const entityOf = (told: Told): string | null => {
  if (told.kind === 'dead') return null;
  const { type, subject, data } = told.event;
  switch (type) {
    case 'room.created':
      return data.members === undefined ? `room ${subject}` : null;
    case 'room.updated':
    case 'room.locked':
    case 'room.unlocked':
    case 'room.closed':
      return `room ${subject}`;
    case 'member.added':
    case 'member.updated':
    case 'member.removed':
      return `member ${subject} ${data.userId}`;
    case 'member.banned':
    case 'member.unbanned':
      return `ban ${subject} ${data.userId} ${data.privilege}`;
    case 'user.disabled':
    case 'user.enabled':
      return `user ${data.userId}`;
    case 'login.ended':
      return `login ${data.userId} ${data.sid}`;
    default:
      return null;
  }
};

const after = (...logs: (readonly Told[])[]): ReturnType<typeof stateOf> => {
  const set = new WorkingSet();
  for (const log of logs) tell(set, log);
  return stateOf(set);
};

describe('properties', () => {
  test('replaying any prefix changes nothing', () => {
    fc.assert(
      fc.property(anyLog, fc.nat(), (log, cut) => {
        expect(after(log, log.slice(0, cut % (log.length + 1)))).toEqual(after(log));
      }),
      { numRuns: 2000 },
    );
  });

  test('a record that comes twice in a row changes no row the second time', () => {
    fc.assert(
      fc.property(anyLog, (log) => {
        const set = new WorkingSet();
        for (const told of log) {
          tell(set, [told]);
          expect(tell(set, [told])).toBe(0);
        }
      }),
      { numRuns: 500 },
    );
  });

  test('facts of different entities commute', () => {
    fc.assert(
      fc.property(anyLog, (log) => {
        const [before, [left, right]] = [log.slice(0, -2), log.slice(-2)];
        fc.pre(left !== undefined && right !== undefined);
        const entities = [entityOf(left), entityOf(right)];
        fc.pre(entities[0] !== null && entities[1] !== null && entities[0] !== entities[1]);
        expect(after(before, [left, right])).toEqual(after(before, [right, left]));
      }),
      { numRuns: 2000 },
    );
  });

  test('a removed member never re-appears by older facts, in whatever order they come', () => {
    fc.assert(
      fc.property(
        anyLog.chain((log) => fc.tuple(fc.constant(log), fc.shuffledSubarray(log, { minLength: log.length }))),
        ([log, late]) => {
          const set = new WorkingSet();
          tell(set, log);
          tell(set, [removed('u1', { offset: 20, sequence: '10' })]);
          tell(set, late);
          expect(memberIn(set, 'u1')?.isRemoved).toBe(true);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test('facts that say all about an entity, each with its own sequence, end alike in any order', () => {
    const whole = fc.constantFrom(
      added('u1', 'host'),
      added('u1', 'listener'),
      removed('u1'),
      banned('u1', 'join'),
      fact('member.unbanned', { userId: 'u1', privilege: 'join' }),
      fact('user.disabled', { userId: 'u1' }),
      fact('user.enabled', { userId: 'u1' }),
      fact('room.closed', undefined),
    );
    const versioned = fc
      .array(whole, { minLength: 1, maxLength: 8 })
      .map((log) => log.map((told, at): Told => ({ ...told, at: { sequence: String(at + 1), offset: at } })));
    const contentOf = (told: readonly Told[]) => {
      const set = fold(told.map((each): Told => ({ ...each, at: { sequence: each.at.sequence ?? '' } })));
      const versionOf = ({ origin, ...row }: { readonly origin: { readonly sequence: bigint | null } | null }) => [
        { ...row, decided: undefined },
        origin?.sequence,
      ];
      return {
        room: roomIn(set)?.state,
        rows: [memberIn(set, 'u1'), banIn(set, 'u1', 'join'), set.users.get('u1')].map(
          (row) => row && versionOf(withoutRemains(row)),
        ),
      };
    };
    fc.assert(
      fc.property(
        versioned.chain((log) => fc.tuple(fc.constant(log), fc.shuffledSubarray(log, { minLength: log.length }))),
        ([log, shuffled]) => {
          expect(contentOf(shuffled)).toEqual(contentOf(log));
        },
      ),
      { numRuns: 1000 },
    );
  });
});

/** A tombstone keeps what the member was, which depends on what came before it and decides nothing. */
const withoutRemains = <T extends { readonly origin: { readonly sequence: bigint | null } }>(row: T): T =>
  'isRemoved' in row && row.isRemoved === true ? { ...row, role: null, displayName: null, permissions: null } : row;
