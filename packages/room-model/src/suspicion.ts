import {
  isRoomEventType,
  isUserEventType,
  LoginId,
  type LogPosition,
  Privilege,
  type RoomEvent,
  type RoomEventType,
  RoomId,
  UserId,
} from '@realtime-service/contracts';
import { isLaterInLog, isNewer, type Origin, versionAfter } from './origin.ts';
import {
  type Ban,
  type Doubted,
  doubted,
  evolveFullState,
  evolveRoom,
  isHarmless,
  keyOf,
  keyOfSuspect,
  type Member,
  type RoomChange,
  type RoomEntities,
  type RoomHeader,
} from './room.ts';

/** Whether a fact of this type can take a right away. The compiler keeps the table complete. */
const takesRightsAway: Readonly<Record<RoomEventType, boolean>> = {
  'room.created': true,
  'room.updated': true,
  'room.locked': true,
  'room.unlocked': false,
  'room.closed': true,
  'member.added': false,
  'member.updated': true,
  'member.removed': true,
  'member.banned': true,
  'member.unbanned': false,
  'user.disabled': true,
  'user.enabled': false,
  'login.ended': true,
  'participant.kick_requested': false,
  'track.mute_requested': false,
  'dead_letter.retried': false,
  'dead_letter.discarded': false,
};

/** As much of a record as could be read before it became a dead letter. */
export interface UnreadableFact {
  readonly key: string | null;
  /** Undefined when the record does not even say its type. */
  readonly type: string | undefined;
  readonly data: unknown;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  value !== null && typeof value === 'object' && !Array.isArray(value);

const mayTakeRights = (type: RoomEventType, data: unknown): boolean => {
  if (!takesRightsAway[type]) return false;
  const isUpdate = type === 'member.updated' || type === 'room.updated';
  return !(isUpdate && isRecord(data) && isHarmless(data));
};

/**
 * Whom a dead letter leaves in doubt, as narrowly as it can be said: its member, ban or login; its room or user where
 * that cannot be read; nobody where the type is unknown or takes no rights away, or the key is unreadable.
 */
const doubtedBy = ({ key, type, data }: UnreadableFact): Doubted[] => {
  if (key === null) return [];
  if (type !== undefined && !(isRoomEventType(type) && mayTakeRights(type, data))) return [];
  const read = isRecord(data) ? data : {};
  const isUser = UserId.safeParse(key).success;
  if (type !== undefined && isUserEventType(type)) {
    const login = type === 'login.ended' ? LoginId.safeParse(read.sid).data : undefined;
    const about = login === undefined ? ({ scope: 'user' } as const) : ({ scope: 'login', detail: login } as const);
    return isUser ? [doubted({ ...about, userId: key })] : [];
  }
  if (!RoomId.safeParse(key).success) return [];
  const room = doubted({ scope: 'room', roomId: key });
  // The key may be a room's or a user's: nothing says which.
  if (type === undefined) return isUser ? [room, doubted({ scope: 'user', userId: key })] : [room];
  // What names members is full state, and so may be what nothing could be read of.
  if (type === 'room.created' && ('members' in read || !isRecord(data))) return [room];
  if (type.startsWith('room.')) return [doubted({ scope: 'header', roomId: key })];
  const userId = UserId.safeParse(read.userId).data;
  if (userId === undefined) return [room];
  if (type !== 'member.banned') return [doubted({ scope: 'member', roomId: key, userId })];
  return [doubted({ scope: 'ban', roomId: key, userId, detail: Privilege.safeParse(read.privilege).data ?? '' })];
};

/** The doubts that a dead letter raises; none that it raised before. */
export const suspectsOf = (fact: UnreadableFact, entities: RoomEntities, origin: Origin): RoomChange[] => {
  const { topic, partition, offset } = origin;
  return doubtedBy(fact)
    .map((about) => ({ ...about, cause: { topic, partition, offset }, isHealed: false, origin }))
    .filter((row) => !entities.suspects.has(keyOfSuspect(row)))
    .map((row) => ({ entity: 'suspect', row }));
};

/** What a change must stand above to count; nothing where the fold itself sees to order. */
const placesOf = (entities: RoomEntities, { entity, row }: RoomChange): LogPosition[] => {
  const known = (...places: readonly (LogPosition | null | undefined)[]): LogPosition[] =>
    places.filter((place) => place !== null && place !== undefined);
  switch (entity) {
    case 'room': {
      const stored = entities.rooms.get(row.roomId);
      const isOnlyTold = row.origin === stored?.origin && row.membersTold !== stored?.membersTold;
      return isOnlyTold ? known(stored?.membersTold) : known(stored?.origin, stored?.decided);
    }
    case 'member': {
      const stored = entities.members.get(keyOf(row.roomId, row.userId));
      // Of whom nothing is known, and of tombstones, full state has said that they are no member.
      return known(stored?.origin, stored?.decided, entities.rooms.get(row.roomId)?.membersTold);
    }
    case 'ban':
      return known(entities.bans.get(keyOf(row.roomId, row.userId, row.privilege))?.origin);
    case 'user':
      return known(entities.users.get(row.userId)?.origin);
    case 'suspect':
      return [row.cause];
    case 'login':
    case 'edge':
      return [];
  }
};

/** Facts that take rights away, whatever they say. */
const onlyTakesRights: ReadonlySet<RoomEventType> = new Set([
  'room.locked',
  'room.closed',
  'member.banned',
  'user.disabled',
]);

/** A ban may end sooner than one that stands: it gives back what that keeps. */
const isShortened = (stored: Ban | undefined, { untilMs }: Ban): boolean =>
  stored !== undefined && !stored.isLifted && untilMs !== null && (stored.untilMs === null || untilMs < stored.untilMs);

/** Full state, too, takes rights away from whom it does not name. The end of a doubt gives some back. */
const takesRights = (entities: RoomEntities, type: RoomEventType, { entity, row }: RoomChange): boolean => {
  if (entity === 'member') return row.isRemoved;
  if (entity === 'ban' && isShortened(entities.bans.get(keyOf(row.roomId, row.userId, row.privilege)), row))
    return false;
  return entity !== 'suspect' && onlyTakesRights.has(type);
};

const isElsewhere = (left: LogPosition, right: LogPosition): boolean =>
  left.topic !== right.topic || left.partition !== right.partition;

/** Whether a letter stands above a header of its own partition, or a newer one of another has overtaken it. */
const mayChange = ({ origin }: RoomHeader, letter: Origin): boolean =>
  isLaterInLog(letter, origin) && (origin === null || !isElsewhere(letter, origin) || !isNewer(letter, origin));

/**
 * A header that stands above full state has not overtaken it: that was a dead letter, and counts at its own place. It
 * stays as it is, but for where that is; so does one of another partition.
 */
const evolveRowByRow = (entities: RoomEntities, event: RoomEvent, origin: Origin): RoomChange[] => {
  const members = event.type === 'room.created' ? event.data.members : undefined;
  const header = entities.rooms.get(event.subject);
  if (members === undefined || header === undefined || mayChange(header, origin))
    return evolveRoom(entities, event, origin);
  const membersTold = versionAfter(origin, header.membersTold);
  return [
    { entity: 'room', row: { ...header, membersTold } },
    ...evolveFullState(entities, event.subject, members, origin),
  ];
};

/** A row as what decides left it, where that or a name since stands above the letter. */
const asDecided = <T extends RoomHeader | Member>(row: T, letter: LogPosition): T => {
  const { decided, origin } = row;
  if (decided === null || origin === null || (isLaterInLog(letter, origin) && isLaterInLog(letter, decided)))
    return row;
  return { ...row, origin: { ...origin, ...decided } };
};

/** A room as a letter finds it: names that were told since lift nothing above it. */
const asDecidedBefore = (entities: RoomEntities, roomId: string, letter: LogPosition): RoomEntities => {
  const { members, bans, users, logins, suspects } = entities;
  const header = entities.rooms.get(roomId);
  const memberBefore = (key: string): Member | undefined => {
    const member = members.get(key);
    return member && asDecided(member, letter);
  };
  return {
    rooms: new Map(header && [[roomId, asDecided(header, letter)]]),
    members: { get: memberBefore, has: (key) => members.has(key) },
    membersOf: (room) => [...entities.membersOf(room)].map((member) => asDecided(member, letter)),
    doubtsAbout: (entity) => entities.doubtsAbout(entity),
    doubtsIn: (room) => entities.doubtsIn(room),
    ...{ bans, users, logins, suspects },
  };
};

/** Names stay that were told since the room was as `before`, and so does where they stand. */
const withNames = (entities: RoomEntities, before: RoomEntities, change: RoomChange): RoomChange => {
  if (change.entity === 'room') {
    const stored = entities.rooms.get(change.row.roomId);
    if (stored === undefined || before.rooms.get(change.row.roomId) === stored) return change;
    return { entity: 'room', row: { ...change.row, name: stored.name, origin: stored.origin } };
  }
  if (change.entity === 'member') {
    const key = keyOf(change.row.roomId, change.row.userId);
    const stored = entities.members.get(key);
    if (stored === undefined || before.members.get(key) === stored) return change;
    return { entity: 'member', row: { ...change.row, displayName: stored.displayName, origin: stored.origin } };
  }
  return change;
};

/**
 * Folds a dead letter that has become readable, with its own place as provenance and version: it changes only entities
 * of which what decides stands below that place, whatever the fold would merge in its own order. Where the entity's
 * last fact, or what left the doubt, stands in another partition, nothing tells which came first: then it may take
 * rights away, and give none. Names decide about no rights: those that were told since stay, and shield nothing else.
 */
export const evolveRetried = (entities: RoomEntities, event: RoomEvent, origin: Origin): RoomChange[] => {
  const isRename = (event.type === 'member.updated' || event.type === 'room.updated') && isHarmless(event.data);
  const before = isRename ? entities : asDecidedBefore(entities, event.subject, origin);
  const counts = (change: RoomChange): boolean =>
    placesOf(before, change).every((place) =>
      isElsewhere(place, origin) ? takesRights(before, event.type, change) : isLaterInLog(origin, place),
    );
  return evolveRowByRow(before, event, origin)
    .filter(counts)
    .map((change) => withNames(entities, before, change));
};
