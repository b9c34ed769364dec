import type { ProjectionPartition } from './apply/chunk.ts';
import { loadTouched } from './apply/load-touched.ts';
import type { Touched } from './apply/touched.ts';
import { writeChunk } from './apply/write-chunk.ts';
import { type Client, inTransaction, type Pool } from './database/database.ts';
import { send } from './database/statement.ts';
import { readDeadLetters } from './dead-letters/dead-letters.ts';
import { holdDuty, releaseDuty } from './duties.ts';
import {
  claimEdges,
  claimMarks,
  dropExpiredEdges,
  markIdentities,
  noteAnnouncement,
  postponeEdge,
  postponeMark,
  settleEdge,
  settleMark,
} from './marks.ts';
import { activeProjection, type PositionColumns, readPositions, toPosition } from './positions.ts';
import { isInside, readLiveRoomIds, readLiveRooms, readSessionOwner } from './presence.ts';
import { readFacts } from './read-facts.ts';
import type { ChunkTransaction, KnownFact, PositionNow, ProjectedPosition, RoomStore } from './store.ts';

/** Channel on which the enforcement is told of new marks; a notification may be missed, so it also polls. */
export const marksChannel = 'realtime_marks';

const lockPosition = async (client: Client, at: ProjectionPartition): Promise<PositionNow> => {
  const { rows } = await send<PositionColumns & { newest_recorded_at: Date; now: Date }>(
    client,
    `select next_offset, newest_recorded_at, last_offset, last_recorded_at, clock_timestamp() as now from log_positions
      where projection = $1 and topic = $2 and "partition" = $3 for update`,
    [at.projection, at.topic, at.partition],
  );
  const row = rows[0];
  if (row === undefined) throw new Error('partition was not prepared');
  return { ...toPosition(row), newestRecordedAtMs: row.newest_recorded_at.getTime(), nowMs: row.now.getTime() };
};

const knownFacts = async (
  client: Client,
  at: ProjectionPartition,
  factKeys: readonly string[],
): Promise<readonly KnownFact[]> => {
  if (factKeys.length === 0) return [];
  const { rows } = await send<{ fact_key: string; recorded_at: Date }>(
    client,
    `select encode(fact_key, 'hex') as fact_key, recorded_at from applied_facts
      where topic = $1 and "partition" = $2 and fact_key = any($3::bytea[])`,
    [at.topic, at.partition, factKeys],
  );
  return rows.map((row) => ({ factKey: row.fact_key, recordedAtMs: row.recorded_at.getTime() }));
};

const makeRooms =
  'insert into rooms (room_id) select id from unnest($1::opaque_id[]) as id order by id on conflict do nothing';
const makeUsers =
  'insert into users (user_id) select id from unnest($1::opaque_id[]) as id order by id on conflict do nothing';
const lockRooms = 'select 1 from rooms where room_id = any($1::opaque_id[]) order by room_id for no key update';
const selectUsers = 'select 1 from users where user_id = any($1::opaque_id[]) order by user_id for';
const lockUsers = { update: `${selectUsers} update`, share: `${selectUsers} share` } as const;

/**
 * Makes the rows that serve as locks and takes them, sorted (unsorted ones deadlock), in statements of their own.
 * Rooms are not locked against foreign keys of leases; users are shared by facts that only open sessions.
 */
const lockTouched = async (client: Client, touched: Touched): Promise<void> => {
  const rooms = [...touched.rooms];
  const users = [...new Set([...touched.users, ...touched.entering])];
  const strength = touched.users.size > 0 ? 'update' : 'share';
  const locks = [
    ...(rooms.length === 0 ? [] : [makeRooms, lockRooms].map((text) => send(client, text, [rooms]))),
    ...(users.length === 0 ? [] : [makeUsers, lockUsers[strength]].map((text) => send(client, text, [users]))),
  ];
  await Promise.all(locks);
};

const advance = async (
  client: Client,
  at: ProjectionPartition,
  { nextOffset, newestRecordedAtMs, last }: ProjectedPosition,
): Promise<void> => {
  await send(
    client,
    `update log_positions set next_offset = $4, newest_recorded_at = $5, last_offset = $6, last_recorded_at = $7
      where projection = $1 and topic = $2 and "partition" = $3`,
    [
      at.projection,
      at.topic,
      at.partition,
      nextOffset.toString(),
      new Date(newestRecordedAtMs),
      last?.offset.toString(),
      last === null ? null : new Date(last.recordedAtMs),
    ],
  );
};

export const transactionOf = (client: Client): ChunkTransaction => ({
  lockPosition: (at) => lockPosition(client, at),
  knownFacts: (at, factKeys) => knownFacts(client, at, factKeys),
  readDeadLetters: (places) => readDeadLetters(client, places),
  lock: (touched) => lockTouched(client, touched),
  load: (touched) => loadTouched(client, touched),
  write: (at, writes) => writeChunk(client, at, writes),
  advance: (at, position) => advance(client, at, position),
});

/** The store in PostgreSQL. */
export const createPostgresStore = (pool: Pool): RoomStore => ({
  transaction: (work) => inTransaction(pool, (client) => work(transactionOf(client))),
  notifyMarks: async () => void (await pool.query(`notify ${marksChannel}`)),
  readPositions: () => readPositions(pool, activeProjection),
  readFacts: (queries, noteStanding) => readFacts(pool, queries, noteStanding),
  readLiveRoomIds: () => readLiveRoomIds(pool),
  readLiveRooms: (roomIds) => readLiveRooms(pool, roomIds),
  readSessionOwner: (session) => readSessionOwner(pool, session),
  isInside: (session) => isInside(pool, session),
  holdDuty: (name, holder, seconds) => holdDuty(pool, name, holder, seconds),
  releaseDuty: (name, holder) => releaseDuty(pool, name, holder),
  claimMarks: (limit, claimSeconds, first) => claimMarks(pool, limit, claimSeconds, first),
  noteAnnouncement: (mark, announcement) => noteAnnouncement(pool, mark, announcement),
  settleMark: (mark, askAgainAtMs, announcement) => settleMark(pool, mark, askAgainAtMs, announcement),
  postponeMark: (mark, delayMs, attempts) => postponeMark(pool, mark, delayMs, attempts),
  markIdentities: (roomId, identities, cause) => markIdentities(pool, roomId, identities, cause),
  dropExpiredEdges: () => dropExpiredEdges(pool),
  claimEdges: (limit, claimSeconds) => claimEdges(pool, limit, claimSeconds),
  settleEdge: (edge) => settleEdge(pool, edge),
  postponeEdge: (edge, delayMs) => postponeEdge(pool, edge, delayMs),
});
