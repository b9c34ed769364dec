import { isDeepStrictEqual } from 'node:util';
import { topics } from '@realtime-service/contracts';
import type { StoredRecord } from '@realtime-service/event-log';
import {
  evolveRoom,
  keyOf,
  keyOfSuspect,
  type Permissions,
  permissionsOf,
  type RoomChange,
  suspectsOf,
  WorkingSet,
} from '@realtime-service/room-model';
import type { MemoryDatabase } from '@realtime-service/room-store/memory';
import { decodeRecord } from '@realtime-service/room-worker';
import { partitionCount, type SimulatedLog } from './simulated-log.ts';

/** What the log says, folded by the pure model alone: what the tables must equal. */
export class Truth {
  readonly set = new WorkingSet();
  readonly #log: SimulatedLog;
  readonly #offsets: bigint[] = Array.from({ length: partitionCount }, () => 0n);
  readonly #facts = new Set<string>();

  constructor(log: SimulatedLog) {
    this.#log = log;
  }

  /** Folds a partition of the room events up to an offset, where it is not there yet; what that changed. */
  foldTo(partition: number, offset: bigint): RoomChange[] {
    const from = this.#offsets[partition] ?? 0n;
    if (offset <= from) return [];
    this.#offsets[partition] = offset;
    return this.#log
      .records(topics.roomEvents, partition)
      .slice(Number(from), Number(offset))
      .flatMap((record) => this.#fold(record));
  }

  #fold(stored: StoredRecord): RoomChange[] {
    const { content, origin, factKey } = decodeRecord(stored, partitionCount).record;
    if (factKey !== null && this.#facts.has(factKey)) return [];
    if (factKey !== null) this.#facts.add(factKey);
    const changes =
      content.kind === 'room_event'
        ? evolveRoom(this.set, content.event, origin)
        : content.kind === 'dead'
          ? suspectsOf(content.unreadable, this.set, origin)
          : [];
    for (const change of changes) this.set.put(change);
    return changes;
  }

  /** The rights that this person has in this room, or null: as membership, ends and bans say, without `authorise`. */
  rightsOf({ roomId, userId, loginId }: Person, nowMs: number): Permissions | null {
    const { rooms, members, bans, users, logins } = this.set;
    const room = rooms.get(roomId);
    const member = members.get(keyOf(roomId, userId));
    if (room?.state !== 'open' || users.get(userId)?.isDisabled || logins.has(keyOf(userId, loginId))) return null;
    const isMember = member !== undefined && member.role !== null && !member.isRemoved;
    const role = isMember ? member.role : room.access === 'authenticated' ? room.defaultRole : null;
    const banned = [...bans.values()]
      .filter((ban) => ban.roomId === roomId && ban.userId === userId && !ban.isLifted)
      .filter(({ untilMs }) => untilMs === null || untilMs > nowMs)
      .map(({ privilege }) => privilege);
    if (role === null || banned.includes('join')) return null;
    return permissionsOf(role, isMember ? member.permissions : null, banned);
  }
}

/** Somebody who is logged in and wants to be in a room. */
export interface Person {
  readonly roomId: string;
  readonly userId: string;
  readonly loginId: string;
}

/** The first row of these that the tables hold otherwise. */
export const findDifference = (
  { tables }: MemoryDatabase,
  { set }: Truth,
  changes: readonly RoomChange[],
): string | null => {
  for (const { entity, row } of changes) {
    const [wanted, found] = ((): readonly [unknown, unknown] => {
      switch (entity) {
        case 'room':
          return [set.rooms.get(row.roomId), tables.rooms.get(row.roomId)];
        case 'member':
          return [set.members.get(keyOf(row.roomId, row.userId)), tables.members.get(keyOf(row.roomId, row.userId))];
        case 'ban': {
          const key = keyOf(row.roomId, row.userId, row.privilege);
          return [set.bans.get(key), tables.bans.get(key)];
        }
        case 'user':
          return [set.users.get(row.userId), tables.users.get(row.userId)];
        case 'login': {
          const key = keyOf(row.userId, row.loginId);
          return [set.logins.get(key), tables.logins.get(key)];
        }
        case 'suspect':
          return [set.suspects.get(keyOfSuspect(row)), tables.suspects.get(keyOfSuspect(row))];
        case 'edge':
          return [null, null];
      }
    })();
    if (!isDeepStrictEqual(wanted, found)) return `${entity} is ${show(found)} and should be ${show(wanted)}`;
  }
  return null;
};

const show = (value: unknown): string =>
  JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? inner.toString() : inner)) ?? 'missing';
