import { isRoomEventType, isUserEventType, type RoomEventType, RoomId, UserId } from '@realtime-service/contracts';
import { isLaterInLog, type Origin } from './origin.ts';
import { keyOf, type RoomChange, type RoomEntities } from './room.ts';

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

/** Fields of an update that decide about nobody's rights. */
const harmlessFields = new Set(['userId', 'displayName', 'name', 'reason']);

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
  return !(isUpdate && isRecord(data) && Object.keys(data).every((field) => harmlessFields.has(field)));
};

/**
 * Whom a dead letter leaves in doubt, as narrowly as it can be said: its member; its room where the user cannot be
 * read; nobody where the type is unknown or takes no rights away, or the key is unreadable.
 */
export const suspectsOf = (fact: UnreadableFact, entities: RoomEntities, origin: Origin): RoomChange[] => {
  const { key, type, data } = fact;
  if (key === null) return [];
  if (type !== undefined && !(isRoomEventType(type) && mayTakeRights(type, data))) return [];
  const doubt = (scope: 'room' | 'header' | 'member' | 'user', roomId: string, userId: string): RoomChange[] => {
    const stored = entities.suspects.get(keyOf(scope, roomId, userId));
    if (stored !== undefined && !isLaterInLog(origin, stored.origin)) return [];
    return [{ entity: 'suspect', row: { scope, roomId, userId, isHealed: false, origin } }];
  };
  const aboutUser = UserId.safeParse(key).success ? doubt('user', '', key) : [];
  if (type !== undefined && isUserEventType(type)) return aboutUser;
  if (!RoomId.safeParse(key).success) return [];
  // The key may be a room's or a user's: nothing says which.
  if (type === undefined) return [...doubt('room', key, ''), ...aboutUser];
  if (type === 'room.created' && isRecord(data) && 'members' in data) return doubt('room', key, '');
  if (type.startsWith('room.')) return doubt('header', key, '');
  const userId = isRecord(data) ? UserId.safeParse(data.userId) : undefined;
  return userId?.success ? doubt('member', key, userId.data) : doubt('room', key, '');
};
