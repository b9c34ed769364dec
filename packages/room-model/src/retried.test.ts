/**
 * Dead letters against a second opinion: one that keeps the whole log, has no versions, and folds all of it anew, with
 * each retried letter at its own place.
 */
import type { MemberData, PermissionOverrides, Role, RoomEvent } from '@realtime-service/contracts';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { anyRole, banned, dead, fact, originOf, removed, type Told, tell } from '../test/given.ts';
import { keyOf, type RoomChange, settleDeadLetter } from './room.ts';
import { evolveRetried } from './suspicion.ts';
import { WorkingSet } from './working-set.ts';

/** What stands at an offset. Of a record that was `hidden` when it came, no more could be read than its key. */
type Entry =
  | { readonly kind: 'fact' | 'lost' | 'hidden'; readonly event: RoomEvent }
  | { readonly kind: 'retry' | 'discard'; readonly letter: number };

const rooms = ['room-42', 'room-43'];
const people = ['u7', 'u8'];
const privileges = ['join', 'data'] as const;

const eventOf = (told: Told): RoomEvent => {
  if (told.kind === 'dead') throw new Error('only a fact says all');
  return told.event;
};
const anyUser = fc.constantFrom(...people);
const anyPermissions = fc.constantFrom<PermissionOverrides>({}, { publishData: true }, { subscribe: false });
const anyMember: fc.Arbitrary<MemberData> = fc
  .tuple(anyUser, anyRole, fc.option(anyPermissions))
  .map(([userId, role, permissions]) => ({ userId, role, ...(permissions !== null && { permissions }) }));
const anyHeader = fc.record(
  { access: fc.constantFrom('members', 'authenticated'), maxParticipants: fc.constantFrom(1, 2) },
  { requiredKeys: [] },
);
const anyRename = fc.oneof(
  anyUser.map((userId) => fact('member.updated', { userId, displayName: 'Ann' })),
  fc.constant(fact('room.updated', { name: 'Retro' })),
);
const anyDecision = fc.oneof(
  anyHeader.map((data) => fact('room.created', data)),
  fc
    .tuple(anyHeader, fc.uniqueArray(anyMember, { selector: ({ userId }) => userId }))
    .map(([data, members]) => fact('room.created', { ...data, members })),
  anyHeader.map((data) => fact('room.updated', { ...data, defaultRole: 'speaker' })),
  fc.constantFrom('room.locked', 'room.unlocked', 'room.closed').map((type) => fact(type, undefined)),
  anyMember.map((data) => fact('member.added', data)),
  fc.tuple(anyUser, fc.option(anyRole), fc.option(anyPermissions)).map(([userId, role, permissions]) =>
    // Null sets the permissions back.
    fact('member.updated', { userId, permissions, ...(role !== null && { role }) }),
  ),
  anyUser.map((userId) => removed(userId)),
  fc.tuple(anyUser, fc.constantFrom(...privileges)).map(([userId, privilege]) => banned(userId, privilege)),
  fc
    .tuple(anyUser, fc.constantFrom(...privileges))
    .map(([userId, privilege]) => fact('member.unbanned', { userId, privilege })),
  fc.tuple(anyUser, fc.constantFrom('user.disabled', 'user.enabled')).map(([userId, type]) => fact(type, { userId })),
);
const anyEvent = fc
  .tuple(
    fc.oneof({ weight: 2, arbitrary: anyDecision }, { weight: 1, arbitrary: anyRename }).map(eventOf),
    fc.constantFrom(...rooms),
  )
  .map(([event, room]): RoomEvent => (event.type.startsWith('user.') ? event : { ...event, subject: room }));
const anyEntry: fc.Arbitrary<Entry> = fc.oneof(
  fc.record({ kind: fc.constantFrom('fact', 'lost', 'lost', 'hidden'), event: anyEvent }),
  fc.record({ kind: fc.constantFrom('retry', 'retry', 'discard'), letter: fc.nat(8) }),
);
/** Actions are about what stands before them. */
const anyLog = fc
  .array(anyEntry, { minLength: 3, maxLength: 9 })
  .map((log) =>
    log.map((entry, at): Entry => ('letter' in entry ? { ...entry, letter: entry.letter % Math.max(at, 1) } : entry)),
  );

const isRename = ({ type, data }: RoomEvent): boolean =>
  (type === 'member.updated' && 'displayName' in data) || (type === 'room.updated' && 'name' in data);
const isFullState = ({ type, data }: RoomEvent): boolean => type === 'room.created' && data.members !== undefined;
/** All that an event says something of; full state also of those whom it leaves out. */
const entitiesOf = (event: RoomEvent): string[] => {
  const { type, subject, data } = event;
  if (isFullState(event)) return [`header ${subject}`, ...people.map((userId) => `member ${subject} ${userId}`)];
  if (type.startsWith('room.')) return [`header ${subject}`];
  if (type.startsWith('user.')) return [`user ${subject}`];
  if (type === 'member.banned' || type === 'member.unbanned')
    return [`ban ${subject} ${data.userId} ${data.privilege}`];
  return data !== undefined && 'userId' in data ? [`member ${subject} ${data.userId}`] : [];
};

const gives = ['member.added', 'member.unbanned', 'room.unlocked', 'user.enabled'];
/** What a letter leaves in doubt: an entity, or a whole room. */
const doubtsOf = ({ kind, event }: { kind: 'lost' | 'hidden'; event: RoomEvent }): string[] => {
  const { type, subject } = event;
  if (kind === 'hidden') return [`room ${subject}`, `user ${subject}`];
  if (gives.includes(type) || isRename(event)) return [];
  return isFullState(event) ? [`room ${subject}`] : entitiesOf(event);
};

interface Placed {
  readonly place: number;
  readonly event: RoomEvent;
  readonly wasKnown: boolean;
}

/** Whoever was known only by a name when full state was read that does not name them is removed, too. */
const memberBy = (facts: readonly Placed[], userId: string) => {
  let now: { role: Role | null; permissions: PermissionOverrides | null; isRemoved: boolean } | undefined;
  for (const {
    event: { type, data },
    wasKnown,
  } of facts) {
    const named = (type === 'member.added' ? [data] : type === 'room.created' ? (data.members ?? []) : []).find(
      (each) => each.userId === userId,
    );
    const { role = null, permissions = null } = now ?? {};
    if (named !== undefined) now = { role: named.role, permissions: named.permissions ?? null, isRemoved: false };
    else if (type === 'member.removed' || (type === 'room.created' && wasKnown))
      now = { role, permissions, isRemoved: true };
    else if (type === 'member.updated' && !now?.isRemoved) {
      const cleared = (data.role ?? role) === null ? {} : null;
      const told = data.permissions === undefined ? permissions : (data.permissions ?? cleared);
      now = { role: data.role ?? role, permissions: told, isRemoved: false };
    }
  }
  return now;
};

const headerBy = (facts: readonly RoomEvent[]) => {
  const blank = { state: 'open', access: 'members', defaultRole: 'listener', maxParticipants: null, isLocked: false };
  let now: { [Field in keyof typeof blank]: unknown } | undefined;
  for (const { type, data } of facts) {
    const before = now ?? blank;
    const { state, isLocked } = before;
    const { access, defaultRole, maxParticipants } = {
      ...(type === 'room.created' ? blank : before),
      ...data,
    } as typeof blank;
    now = {
      ...{ access, defaultRole, maxParticipants },
      state: type === 'room.closed' ? 'closed' : state,
      isLocked: type === 'room.locked' || (isLocked && type !== 'room.unlocked'),
    };
  }
  return now;
};

const isInRoom = (about: string, room: string): boolean => about.split(' ')[1] === room && !about.startsWith('user ');

/** The second opinion. */
class Ledger {
  readonly #facts = new Map<string, Placed[]>();
  #doubts: { place: number; about: string }[] = [];

  #of(entity: string): RoomEvent[] {
    return (this.#facts.get(entity) ?? []).map(({ event }) => event);
  }

  /** Counts for each entity of which nothing newer has been decided; the newer of two decisions ends older doubts. */
  tell(place: number, event: RoomEvent): void {
    for (const entity of entitiesOf(event)) {
      const facts = this.#facts.get(entity) ?? [];
      if (facts.some((each) => each.place >= place && !isRename(each.event))) continue;
      const [, , userId = ''] = entity.split(' ');
      const known = memberBy(facts, userId);
      const isInVain = event.type === 'member.updated' && known?.isRemoved === true;
      this.#facts.set(
        entity,
        [...facts, { place, event, wasKnown: known !== undefined }].sort((left, right) => left.place - right.place),
      );
      if (!isInVain && !isRename(event)) this.#settle((doubt) => doubt.about === entity && doubt.place < place);
    }
    if (isFullState(event)) this.#settle((doubt) => doubt.place < place && isInRoom(doubt.about, event.subject));
  }

  doubt(place: number, about: readonly string[]): void {
    this.#doubts.push(...about.map((each) => ({ place, about: each })));
  }

  settle(letter: number): void {
    this.#settle(({ place }) => place === letter);
  }

  #settle(isSettled: (doubt: { place: number; about: string }) => boolean): void {
    this.#doubts = this.#doubts.filter((each) => !isSettled(each));
  }

  state() {
    const inRooms = rooms.map((room) => ({
      header: headerBy(this.#of(`header ${room}`)),
      members: people.map((userId) => memberBy(this.#facts.get(`member ${room} ${userId}`) ?? [], userId)),
      bans: people.flatMap((userId) =>
        privileges.filter((each) => this.#of(`ban ${room} ${userId} ${each}`).at(-1)?.type === 'member.banned'),
      ),
    }));
    const disabled = people.filter((userId) => this.#of(`user ${userId}`).at(-1)?.type === 'user.disabled');
    return { inRooms, disabled, doubts: this.#doubts.map(({ place, about }) => `${place} ${about}`).sort() };
  }
}

/** The same of the fold. */
const stateOf = (set: WorkingSet): ReturnType<Ledger['state']> => ({
  inRooms: rooms.map((room) => {
    const header = set.rooms.get(room);
    return {
      header: header && {
        state: header.state,
        access: header.access,
        defaultRole: header.defaultRole,
        maxParticipants: header.maxParticipants,
        isLocked: header.isLocked,
      },
      members: people.map((userId) => {
        const member = set.members.get(keyOf(room, userId));
        return member && { role: member.role, permissions: member.permissions, isRemoved: member.isRemoved };
      }),
      bans: people.flatMap((userId) =>
        privileges.filter((each) => set.bans.get(keyOf(room, userId, each))?.isLifted === false),
      ),
    };
  }),
  disabled: people.filter((userId) => set.users.get(userId)?.isDisabled),
  doubts: [...set.suspects.values()]
    .filter(({ isHealed }) => !isHealed)
    .map(({ cause, scope, roomId, userId, detail }) =>
      [cause.offset, scope, roomId, userId, detail].filter((part) => part !== '').join(' '),
    )
    .sort(),
});

const play = (log: readonly Entry[]) => {
  const [set, ledger] = [new WorkingSet(), new Ledger()];
  const put = (changes: readonly RoomChange[]): void => {
    for (const change of changes) set.put(change);
  };
  for (const [at, entry] of log.entries()) {
    if ('letter' in entry) {
      const letter = log[entry.letter];
      if (letter === undefined || 'letter' in letter || letter.kind === 'fact') continue;
      const place = originOf({ offset: entry.letter });
      put(settleDeadLetter(set, place, originOf({ offset: at })));
      ledger.settle(entry.letter);
      if (entry.kind === 'discard') continue;
      put(evolveRetried(set, letter.event, place));
      ledger.tell(entry.letter, letter.event);
      continue;
    }
    const { kind, event } = entry;
    const { type, subject: key, data } = event;
    if (kind === 'fact') {
      tell(set, [{ kind, event, at: { offset: at } }]);
      ledger.tell(at, event);
      continue;
    }
    const read =
      kind === 'lost' ? dead(type, data, { key, offset: at }) : dead(undefined, undefined, { key, offset: at });
    tell(set, [read]);
    ledger.doubt(at, doubtsOf({ kind, event }));
  }
  return { set, ledger };
};

test('letters count at their own places, in whatever order they are retried, but for what newer facts have decided', () => {
  fc.assert(
    fc.property(anyLog, (log) => {
      const { set, ledger } = play(log);
      expect(stateOf(set)).toEqual(ledger.state());
    }),
    { numRuns: 3000 },
  );
});

/** With a sequence or without. */
const anySequence = fc.option(fc.integer({ min: 1, max: 9 }).map(String), { nil: undefined });
const placedFrom = (log: readonly { event: RoomEvent; sequence: string | undefined }[], first: number): Told[] =>
  log.map(({ event, sequence }, at) => ({
    kind: 'fact',
    event,
    at: { offset: first + at, ...(sequence !== undefined && { sequence }) },
  }));

/** Nobody is a member without a role. */
const rightsOf = (set: WorkingSet): unknown => {
  const { inRooms, ...more } = stateOf(set);
  return {
    ...more,
    inRooms: inRooms.map(({ members, ...room }) => ({
      ...room,
      members: members.map((each) => (each?.role ? each : null)),
    })),
  };
};

test('a letter after which only names were told counts as if it had been readable, whatever its sequence', () => {
  const anyVersioned = fc.record({ event: anyEvent, sequence: anySequence });
  const anyName = anyVersioned.filter(({ event }) => isRename(event));
  fc.assert(
    fc.property(
      fc.array(anyVersioned, { maxLength: 5 }),
      anyVersioned,
      fc.array(anyName, { maxLength: 3 }),
      (earlier, letter, names) => {
        // A name with a sequence would overtake the letter before it came.
        const before = placedFrom(
          earlier.map((each) => (isRename(each.event) ? { ...each, sequence: undefined } : each)),
          0,
        );
        const [told] = placedFrom([letter], before.length) as [Extract<Told, { kind: 'fact' }>];
        // Who is named only makes known whom overtaken full state would have brought in.
        const after = placedFrom(
          names.filter(({ event }) => !isFullState(told.event) || event.type === 'room.updated'),
          before.length + 1,
        );
        const readable = new WorkingSet();
        tell(readable, [...before, told, ...after]);
        const { type, subject: key, data } = told.event;
        const set = new WorkingSet();
        tell(set, [...before, dead(type, data, { key, ...told.at }), ...after]);
        const place = originOf(told.at);
        for (const change of settleDeadLetter(set, place, originOf({ offset: 99 }))) set.put(change);
        for (const change of evolveRetried(set, told.event, place)) set.put(change);
        expect(rightsOf(set)).toEqual(rightsOf(readable));
      },
    ),
    { numRuns: 2000 },
  );
});
