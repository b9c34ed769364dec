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
import { isLaterInLog, isSamePlace, type Origin } from './origin.ts';
import {
  type Doubted,
  doubted,
  evolveFullState,
  evolveRoom,
  isHarmless,
  keyOf,
  keyOfSuspect,
  type RoomChange,
  type RoomEntities,
  toldBy,
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

/** Where the entity stands that a change is about; null where the fold itself sees to order. */
const placeOf = (entities: RoomEntities, { entity, row }: RoomChange): LogPosition | null => {
  switch (entity) {
    case 'room': {
      const stored = entities.rooms.get(row.roomId);
      const isOnlyTold = row.origin === stored?.origin && row.membersTold !== stored?.membersTold;
      return (isOnlyTold ? stored?.membersTold : stored?.origin) ?? null;
    }
    case 'member': {
      const stored = entities.members.get(keyOf(row.roomId, row.userId));
      // Of whom nothing is known, full state has said that they are no member.
      return stored?.origin ?? entities.rooms.get(row.roomId)?.membersTold ?? null;
    }
    case 'ban':
      return entities.bans.get(keyOf(row.roomId, row.userId, row.privilege))?.origin ?? null;
    case 'user':
      return entities.users.get(row.userId)?.origin ?? null;
    case 'suspect':
      return row.cause;
    case 'login':
    case 'edge':
      return null;
  }
};

/** Facts that take rights away, whatever they say. */
const onlyTakesRights: ReadonlySet<RoomEventType> = new Set([
  'room.locked',
  'room.closed',
  'member.banned',
  'user.disabled',
]);

/** Full state, too, takes rights away from whom it does not name. The end of a doubt gives some back. */
const takesRights = (type: RoomEventType, { entity, row }: RoomChange): boolean =>
  entity === 'member' ? row.isRemoved : entity !== 'suspect' && onlyTakesRights.has(type);

/**
 * A header that stands above full state has not overtaken it: that was a dead letter, and counts at its own place. It
 * stays as it is, but for where that is.
 */
const evolveRowByRow = (entities: RoomEntities, event: RoomEvent, origin: Origin): RoomChange[] => {
  const members = event.type === 'room.created' ? event.data.members : undefined;
  const header = entities.rooms.get(event.subject);
  if (members === undefined || header === undefined || isLaterInLog(origin, header.origin))
    return evolveRoom(entities, event, origin);
  const membersTold = toldBy(origin, header.membersTold);
  return [
    { entity: 'room', row: { ...header, membersTold } },
    ...evolveFullState(entities, event.subject, members, origin),
  ];
};

/** Whether only names were told since: they lifted the entity above the letter, and left its doubt to this retry. */
const wereNamesToldSince = (
  entities: RoomEntities,
  event: RoomEvent,
  origin: Origin,
  retriedAt: LogPosition,
): boolean =>
  doubtedBy({ key: event.subject, type: event.type, data: event.data }).some((about) => {
    const { scope, roomId, userId } = about;
    if (scope !== 'header' && scope !== 'member') return false;
    const stored = scope === 'header' ? entities.rooms.get(roomId) : entities.members.get(keyOf(roomId, userId));
    const doubt = entities.suspects.get(keyOfSuspect({ scope, cause: origin }));
    const isAbove = stored !== undefined && !isLaterInLog(origin, stored.origin);
    return isAbove && doubt?.isHealed === true && isSamePlace(doubt.origin, retriedAt);
  });

/** Names have been told since, and have lifted their entity above the letter: what it says of them counts no more. */
const withoutNames = (entities: RoomEntities, event: RoomEvent): RoomEvent => {
  switch (event.type) {
    case 'member.updated': {
      const { displayName: _, ...data } = event.data;
      return { ...event, data };
    }
    case 'room.updated': {
      const { name: _, ...data } = event.data;
      return { ...event, data };
    }
    case 'room.created': {
      const name = entities.rooms.get(event.subject)?.name ?? undefined;
      return { ...event, data: { ...event.data, ...(name !== undefined && { name }) } };
    }
    default:
      return event;
  }
};

/**
 * Folds a dead letter that has become readable, with its own place as provenance and version: it changes only entities
 * whose position is below that place, whatever the fold would merge in its own order. Where the entity's last fact, or
 * what left the doubt, stands in another partition, nothing tells which came first: then it may take rights away, and
 * give none.
 *
 * Where the entity stands above that place, and yet the doubt lasted until the retry, only names were told since, which
 * decide about no rights: what it says of rights counts from the retry on. The letter's own doubts have been settled
 * by then.
 */
export const evolveRetried = (
  entities: RoomEntities,
  event: RoomEvent,
  origin: Origin,
  retriedAt: LogPosition,
): RoomChange[] => {
  const isElsewhere = ({ topic, partition }: LogPosition): boolean =>
    topic !== origin.topic || partition !== origin.partition;
  const counts = (change: RoomChange): boolean => {
    const stored = placeOf(entities, change);
    return stored !== null && isElsewhere(stored) ? takesRights(event.type, change) : isLaterInLog(origin, stored);
  };
  const countsLate = (change: RoomChange): boolean => {
    if (change.entity === 'suspect') return counts(change);
    const stored = placeOf(entities, change);
    return stored === null || !isElsewhere(stored) || takesRights(event.type, change);
  };
  const changes = evolveRowByRow(entities, event, origin).filter(counts);
  if (changes.length > 0 || !wereNamesToldSince(entities, event, origin, retriedAt)) return changes;
  const { topic, partition, offset } = retriedAt;
  const late = { ...origin, topic, partition, offset, sequence: null };
  return evolveRoom(entities, withoutNames(entities, event), late).filter(countsLate);
};
