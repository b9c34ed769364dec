import type {
  LivekitFact,
  LivekitParticipant,
  LivekitRoom,
  PermissionOverrides,
  Privilege,
  Role,
  RoomEvent,
  RoomEventData,
  RoomEventType,
} from '@realtime-service/contracts';
import { isUserEventType } from '@realtime-service/contracts';
import fc from 'fast-check';
import type { BanFacts, Facts, MemberFacts, OwnSession, Request, RoomFacts, Seats, Verdict } from '../src/authorise.ts';
import { authorise } from '../src/authorise.ts';
import type { Origin } from '../src/origin.ts';
import { evolvePresence, type PresenceChange } from '../src/presence.ts';
import { evolveRoom, keyOf, keyOfSuspect, type RoomChange, unknownRoom } from '../src/room.ts';
import { suspectsOf, type UnreadableFact } from '../src/suspicion.ts';
import { WorkingSet } from '../src/working-set.ts';

/** The moment at which every table decides. */
export const now = Date.parse('2026-03-01T12:00:00Z');
export const secondsAgo = (seconds: number): number => now - seconds * 1000;
export const inSeconds = (seconds: number): number => now + seconds * 1000;
export const theRoom = 'room-42';

/** Where a fact stands. Offsets are given by `fold` where a table does not care. */
export interface At {
  readonly sequence?: string;
  readonly offset?: number;
  readonly partition?: number;
  readonly room?: string;
}

/** A record of the room-event lane: a fact, or what could be read of one that cannot be decoded. */
export type Told =
  | { readonly kind: 'fact'; readonly event: RoomEvent; readonly at: At }
  | { readonly kind: 'dead'; readonly unreadable: UnreadableFact; readonly at: At };

export const fact = <T extends RoomEventType>(type: T, data: RoomEventData<T>, at: At = {}): Told => {
  const subject = isUserEventType(type) && data !== undefined && 'userId' in data ? data.userId : (at.room ?? theRoom);
  return { kind: 'fact', event: { type, subject, data } as RoomEvent, at };
};

export const dead = (
  type: string | undefined,
  data: unknown,
  at: At & { readonly key?: string | null } = {},
): Told => ({
  kind: 'dead',
  unreadable: { key: at.key === undefined ? (at.room ?? theRoom) : at.key, type, data },
  at,
});

export const added = (userId: string, role: Role, at: At = {}) => fact('member.added', { userId, role }, at);
export const removed = (userId: string, at: At = {}) => fact('member.removed', { userId }, at);
export const banned = (userId: string, privilege: Privilege, at: At = {}) =>
  fact('member.banned', { userId, privilege }, at);

const topic = 'realtime.room-events.v1';

export const originOf = ({ sequence, offset = 0, partition = 0 }: At): Origin => ({
  eventId: `event-${partition}-${offset}`,
  topic,
  partition,
  offset: BigInt(offset),
  timeMs: secondsAgo(3600),
  sequence: sequence === undefined ? null : BigInt(sequence),
});

/** Facts in the order of the log: each has its own offset, or the one after its predecessor's. */
export const placed = (told: readonly Told[]): Told[] => {
  let next = 0;
  return told.map((each) => {
    const offset = each.at.offset ?? next;
    next = offset + 1;
    return { ...each, at: { ...each.at, offset } };
  });
};

const keyOfChange = ({ entity, row }: RoomChange | PresenceChange): string => {
  switch (entity) {
    case 'room':
    case 'life':
      return keyOf(entity, row.roomId);
    case 'member':
      return keyOf(entity, row.roomId, row.userId);
    case 'ban':
      return keyOf(entity, row.roomId, row.userId, row.privilege);
    case 'user':
      return keyOf(entity, row.userId);
    case 'login':
      return keyOf(entity, row.userId, row.loginId);
    case 'suspect':
      return keyOf(entity, keyOfSuspect(row));
    case 'edge':
      return keyOf(entity, row.kind, row.participantSid);
    case 'session':
      return keyOf(entity, row.roomId, row.roomSid, row.participantSid);
  }
};

/** Takes what one fact changed: never two rows of one entity, which would be two events of one change. */
const put = (set: WorkingSet, changes: readonly (RoomChange | PresenceChange)[]): void => {
  const keys = changes.map(keyOfChange);
  if (new Set(keys).size < keys.length) throw new Error(`two rows of one entity: ${keys.join(', ')}`);
  for (const change of changes) set.put(change);
};

export const changesOf = (set: WorkingSet, told: Told): RoomChange[] => {
  const origin = originOf(told.at);
  return told.kind === 'fact' ? evolveRoom(set, told.event, origin) : suspectsOf(told.unreadable, set, origin);
};

/** Folds records in the order in which they are handed over, and answers how many rows changed. */
export const tell = (set: WorkingSet, told: readonly Told[]): number => {
  let changed = 0;
  for (const each of told) {
    const changes = changesOf(set, each);
    changed += changes.length;
    put(set, changes);
  }
  return changed;
};

export const fold = (told: readonly Told[]): WorkingSet => {
  const set = new WorkingSet();
  tell(set, placed(told));
  return set;
};

/** All that a set holds, for comparison. Orders to single sessions are no state. */
export const stateOf = (set: WorkingSet) => ({
  rooms: set.rooms,
  members: set.members,
  bans: set.bans,
  users: set.users,
  logins: set.logins,
  suspects: set.suspects,
});

export const roomIn = (set: WorkingSet, roomId = theRoom) => set.rooms.get(roomId);
export const memberIn = (set: WorkingSet, userId: string, roomId = theRoom) => set.members.get(keyOf(roomId, userId));
export const banIn = (set: WorkingSet, userId: string, privilege: Privilege) =>
  set.bans.get(keyOf(theRoom, userId, privilege));

/** The doubts that keep a person out of the room, as the store asks for them. */
const doubtsAbout = (set: WorkingSet, userId: string, roomId: string, loginId: string | null) =>
  [...set.suspects.values()].filter(
    (doubt) =>
      !doubt.isHealed &&
      (doubt.roomId === roomId
        ? doubt.userId === '' || doubt.userId === userId
        : doubt.roomId === '' && doubt.userId === userId && (doubt.scope === 'user' || doubt.detail === loginId)),
  );

export const isSuspect = (set: WorkingSet, userId: string, roomId = theRoom, loginId: string | null = null): boolean =>
  doubtsAbout(set, userId, roomId, loginId).length > 0;

export const doubtIn = (set: WorkingSet, userId: string, roomId: string): Facts['doubt'] => {
  const doubts = doubtsAbout(set, userId, roomId, null);
  if (doubts.length === 0) return null;
  return doubts.every(({ scope }) => scope === 'header') ? 'header' : 'person';
};

/** What a decision rests on; a table names only what differs from a speaker in an open room. */
export interface Situation {
  readonly room?: Partial<RoomFacts> | null;
  readonly member?: Partial<MemberFacts> | null;
  readonly bans?: readonly (Partial<BanFacts> & { readonly privilege: Privilege })[];
  readonly isDisabled?: boolean;
  readonly isLoginEnded?: boolean;
  readonly doubt?: Facts['doubt'];
  readonly sessions?: readonly Partial<OwnSession>[];
  readonly seats?: Partial<Seats> | null;
}

export const factsOf = (situation: Situation): Facts => {
  const { room = {}, member = {}, bans = [], isDisabled = false, sessions = [], seats = null } = situation;
  const { origin: _, ...blank } = unknownRoom(theRoom);
  return {
    room: room === null ? null : { ...blank, state: 'open', ...room },
    member:
      member === null ? null : { role: 'speaker', displayName: 'Ann', permissions: null, isRemoved: false, ...member },
    bans: bans.map((ban) => ({ untilMs: null, reason: null, ...ban })),
    user: isDisabled ? { isDisabled } : null,
    isLoginEnded: situation.isLoginEnded ?? false,
    doubt: situation.doubt ?? null,
    ownSessions: sessions.map((session) => ({
      identity: 'u7',
      deviceId: null,
      isLive: true,
      endedAtMs: null,
      wasRemoved: false,
      ...session,
    })),
    seats: seats && {
      takenByOthers: 0,
      ownOtherDevices: 0,
      ownUnusedTokens: 0,
      isHeld: false,
      isReserved: false,
      ...seats,
    },
  };
};

/** What is asked, whatever for: a rule reads of it what its purpose has. */
export interface Asked {
  readonly purpose: Request['purpose'];
  readonly identity: string;
  readonly dueIdentity: string;
  readonly takeOver: boolean;
  readonly loginEndsAtMs: number | null;
}

/** Where the due identity is not said, it is the one inside. */
export const decide = (situation: Situation, asked: Partial<Asked> = {}): Verdict => {
  const { identity = 'u7' } = asked;
  const blank: Asked = { purpose: 'enter', identity, dueIdentity: identity, takeOver: false, loginEndsAtMs: null };
  return authorise(factsOf(situation), { ...blank, ...asked }, now);
};

/** `allow`, or the reason of the refusal: what most tables look at. */
export const outcomeOf = (verdict: Verdict): string => (verdict.kind === 'allow' ? 'allow' : verdict.reason);

/** One life of a LiveKit room, created so many seconds after the first. */
export const life = (sid: string, createdAtSeconds = 0): LivekitRoom => ({
  sid,
  name: theRoom,
  creationTimeMs: secondsAgo(3600) + createdAtSeconds * 1000,
});

export const participant = (
  sid: string,
  identity: string,
  joinedAtSeconds = 0,
  more: Partial<LivekitParticipant> = {},
): LivekitParticipant => ({
  sid,
  identity,
  joinedAtMs: secondsAgo(3600) + joinedAtSeconds * 1000,
  version: 1,
  kind: 'STANDARD',
  attributes: { 'rt.user': identity },
  ...more,
});

/** Folds LiveKit facts, each received so many milliseconds after the other, lists not before they were asked for. */
export const hear = (facts: readonly LivekitFact[], set = new WorkingSet(), firstAtMs = now): WorkingSet => {
  for (const [at, each] of facts.entries()) {
    const askedAtMs = each.type === 'observed' ? each.observed.listedAtMs : 0;
    put(set, evolvePresence(set, each, Math.max(firstAtMs + at, askedAtMs)));
  }
  return set;
};

/** Who is live, as far as it must not depend on the order of arrival. */
export const livePeople = (set: WorkingSet) =>
  [...set.sessionsOf(theRoom)]
    .filter(({ isLive }) => isLive)
    .map(({ roomSid, participantSid, identity, userId, version }) => ({
      roomSid,
      participantSid,
      identity,
      userId,
      version,
    }))
    .sort((left, right) => (left.participantSid < right.participantSid ? -1 : 1));

const users = ['u1', 'u2', 'u3'] as const;
const anyUser = fc.constantFrom(...users);
export const anyRole = fc.constantFrom<Role>('host', 'moderator', 'speaker', 'listener', 'observer');
export const anyPrivilege = fc.constantFrom<Privilege>(
  'join',
  'publish_audio',
  'publish_video',
  'screen_share',
  'data',
);
const anySource = fc.constantFrom(
  'microphone' as const,
  'camera' as const,
  'screen_share' as const,
  'screen_share_audio' as const,
);
export const anyOverrides: fc.Arbitrary<PermissionOverrides | null> = fc.option(
  fc.record(
    {
      publishSources: fc.array(anySource, { maxLength: 4 }),
      subscribe: fc.boolean(),
      publishData: fc.boolean(),
      hidden: fc.boolean(),
      dispatchAgents: fc.boolean(),
    },
    { requiredKeys: [] },
  ),
);

const anyMember = fc.record({ userId: anyUser, role: anyRole }, { requiredKeys: ['userId', 'role'] });
const anyHeader = fc.record(
  {
    name: fc.constantFrom('Standup', 'Retro'),
    access: fc.constantFrom('members' as const, 'authenticated' as const),
    defaultRole: anyRole,
    maxParticipants: fc.integer({ min: 1, max: 3 }),
  },
  { requiredKeys: [] },
);

/** Any record of the room-event lane about one of two rooms and three people, with a sequence or without. */
const anyTold: fc.Arbitrary<Told> = fc
  .tuple(
    fc.oneof(
      anyHeader.map((data) => fact('room.created', data)),
      fc
        .tuple(anyHeader, fc.array(anyMember, { maxLength: 3 }))
        .map(([data, members]) => fact('room.created', { ...data, members })),
      anyHeader.map((data) => fact('room.updated', data)),
      fc
        .constantFrom('room.locked' as const, 'room.unlocked' as const, 'room.closed' as const)
        .map((type) => fact(type, undefined)),
      anyMember.map((data) => fact('member.added', data)),
      fc
        .record(
          { userId: anyUser, role: anyRole, displayName: fc.constantFrom('Ann', null) },
          { requiredKeys: ['userId'] },
        )
        .map((data) => fact('member.updated', data)),
      anyUser.map((userId) => removed(userId)),
      fc.tuple(anyUser, anyPrivilege).map(([userId, privilege]) => banned(userId, privilege)),
      fc.tuple(anyUser, anyPrivilege).map(([userId, privilege]) => fact('member.unbanned', { userId, privilege })),
      anyUser.map((userId) => fact('user.disabled', { userId })),
      anyUser.map((userId) => fact('user.enabled', { userId })),
      fc.tuple(anyUser, fc.constantFrom('s1', 's2')).map(([userId, sid]) => fact('login.ended', { userId, sid })),
      anyUser.map((userId) => dead('member.removed', { userId, reason: 7 })),
      fc.constant(dead('room.locked', 'not an object')),
      fc.constant(dead(undefined, undefined)),
      fc
        .integer({ min: 0, max: 12 })
        .map((offset) => fact('dead_letter.discarded', { topic, partition: 0, offset: String(offset) })),
    ),
    fc.option(fc.integer({ min: 1, max: 9 }), { nil: undefined }),
    fc.constantFrom(theRoom, 'room-43'),
  )
  .map(([told, sequence, room]): Told => {
    const at: At = { ...told.at, room, ...(sequence !== undefined && { sequence: String(sequence) }) };
    if (told.kind === 'dead') return { ...told, unreadable: { ...told.unreadable, key: room }, at };
    return isUserEventType(told.event.type)
      ? { ...told, at }
      : { ...told, event: { ...told.event, subject: room }, at };
  });

/** Nobody discards a dead letter that is yet to come. */
const isPossible = (told: Told): boolean =>
  told.kind === 'dead' ||
  told.event.type !== 'dead_letter.discarded' ||
  Number(told.event.data.offset) < (told.at.offset ?? 0);

export const anyLog = fc.array(anyTold, { maxLength: 14 }).map((told) => placed(told).filter(isPossible));
