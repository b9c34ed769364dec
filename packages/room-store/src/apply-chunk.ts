import {
  evolvePresence,
  evolveRoom,
  type PresenceChange,
  type RoomChange,
  suspectsOf,
  type WorkingSet,
} from '@realtime-service/room-model';
import type { Chunk, ChunkContent, ChunkRecord, ChunkResult } from './chunk.ts';
import { ChunkWrites } from './chunk-writes.ts';
import { type Client, inTransaction, type Pool } from './database.ts';
import { loadTouched, lockTouched, type Touched, touchedBy } from './touched.ts';

/** Channel on which the enforcement is told of new marks; a notification may be missed, so it also polls. */
export const marksChannel = 'realtime_marks';

const lockPosition = async (client: Client, chunk: Chunk): Promise<bigint> => {
  const { rows } = await client.query<{ next_offset: string }>(
    `select next_offset from log_positions where projection = $1 and topic = $2 and "partition" = $3 for update`,
    [chunk.projection, chunk.topic, chunk.partition],
  );
  const row = rows[0];
  if (row === undefined) throw new Error('partition was not prepared');
  return BigInt(row.next_offset);
};

const knownFacts = async (client: Client, chunk: Chunk, records: readonly ChunkRecord[]): Promise<Set<string>> => {
  const keys = records.flatMap(({ factKey }) => (factKey === null ? [] : [factKey]));
  if (keys.length === 0) return new Set();
  const { rows } = await client.query<{ fact_key: Buffer }>(
    'select fact_key from applied_facts where topic = $1 and "partition" = $2 and fact_key = any($3::bytea[])',
    [chunk.topic, chunk.partition, keys],
  );
  return new Set(rows.map((row) => row.fact_key.toString('latin1')));
};

/** Drops facts that were applied before, in the database or earlier in this chunk. */
const withoutRepeats = async (
  client: Client,
  chunk: Chunk,
  records: readonly ChunkRecord[],
): Promise<ChunkRecord[]> => {
  const known = await knownFacts(client, chunk, records);
  return records.filter(({ factKey }) => {
    if (factKey === null) return true;
    const text = factKey.toString('latin1');
    if (known.has(text)) return false;
    known.add(text);
    return true;
  });
};

const evolve = (set: WorkingSet, { content, origin, recordedAtMs }: ChunkRecord): (RoomChange | PresenceChange)[] => {
  switch (content.kind) {
    case 'room_event':
      return evolveRoom(set, content.event, origin);
    case 'livekit':
      return evolvePresence(set, content.fact, recordedAtMs);
    case 'dead':
      return suspectsOf(content.unreadable, set, origin);
    case 'skipped':
      return [];
  }
};

const fold = (set: WorkingSet, records: readonly ChunkRecord[]): ChunkWrites => {
  const writes = new ChunkWrites();
  for (const record of records) {
    for (const change of evolve(set, record)) {
      writes.add(change, set, record);
      set.put(change);
    }
    writes.addRecord(record);
  }
  return writes;
};

const apply = async (client: Client, chunk: Chunk): Promise<ChunkResult> => {
  const position = await lockPosition(client, chunk);
  if (chunk.fetchedOffset > position) return { kind: 'behind', nextOffset: position };
  if (chunk.nextOffset <= position) {
    const counts = { applied: 0, repeated: chunk.records.length, dead: 0, skipped: 0, marks: 0, outbox: 0 };
    return { kind: 'applied', nextOffset: position, counts };
  }
  const ahead = chunk.records.filter(({ origin }) => origin.offset >= position);
  const fresh = await withoutRepeats(client, chunk, ahead);
  const touched: Touched = touchedBy(fresh);
  await lockTouched(client, touched);
  const writes = fold(await loadTouched(client, touched), fresh);
  const { marks, outbox } = await writes.flush(client);
  await client.query(
    `update log_positions set next_offset = $4 where projection = $1 and topic = $2 and "partition" = $3`,
    [chunk.projection, chunk.topic, chunk.partition, chunk.nextOffset.toString()],
  );
  const count = (kind: ChunkContent['kind']): number => fresh.filter(({ content }) => content.kind === kind).length;
  const dead = count('dead');
  const skipped = count('skipped');
  return {
    kind: 'applied',
    nextOffset: chunk.nextOffset,
    counts: {
      applied: fresh.length - dead - skipped,
      repeated: chunk.records.length - fresh.length,
      dead,
      skipped,
      marks,
      outbox,
    },
  };
};

/**
 * Applies a chunk of one partition in one transaction: each fact changes the state exactly once, whatever crashes,
 * repeats or still runs after it lost the partition. The order of statements is the guarantee: the offset's row is
 * locked first (a second consumer waits there and then finds nothing left to do), rooms and users are locked in
 * statements of their own before anything is read, so that two lanes of one room can never miss each other.
 */
export const applyChunk = async (pool: Pool, chunk: Chunk): Promise<ChunkResult> => {
  const result = await inTransaction(pool, (client) => apply(client, chunk));
  // After the commit: inside the transaction a notification serialises all commits. A lost one is made up by the poll.
  if (result.kind === 'applied' && result.counts.marks > 0) await pool.query(`notify ${marksChannel}`).catch(() => {});
  return result;
};
