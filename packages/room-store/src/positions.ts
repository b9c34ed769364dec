import type { LogPartition } from '@realtime-service/contracts';
import { inTransaction, type Pool } from './database/database.ts';

/** The projection that serves; a rebuild fills another one. */
export const activeProjection = 'active';

/** A record that was applied. Its time tells its log from another one that was put in the place of that. */
export interface AppliedRecord {
  readonly offset: bigint;
  readonly recordedAtMs: number;
}

export interface PartitionPosition extends LogPartition {
  /** Names the set of tables that serves: another one after each swap. Absent where there is only ever one. */
  readonly tables?: string;
  readonly nextOffset: bigint;
}

export interface StoredPosition extends PartitionPosition {
  /** The last record below `nextOffset`; null where it is not known. */
  readonly last: AppliedRecord | null;
}

/** A topic's partition count differs from the one that the projection was made with: order per key is not given. */
export class PartitionCountChangedError extends Error {
  override readonly name = 'PartitionCountChangedError';
}

/**
 * Makes the offset rows of a topic, at 0 where they are new. The count is fixed for a topic's life: where another one
 * is known, no row is made.
 * @throws {PartitionCountChangedError}
 */
export const preparePositions = (
  pool: Pool,
  projection: string,
  topic: string,
  partitionCount: number,
): Promise<void> =>
  inTransaction(pool, async (client) => {
    await client.query(
      `insert into log_positions (projection, topic, "partition", next_offset, partition_count)
        select $1, $2, p, 0, $3::int from generate_series(0, $3::int - 1) as p on conflict do nothing`,
      [projection, topic, partitionCount],
    );
    const { rows } = await client.query<{ partition_count: number }>(
      'select distinct partition_count from log_positions where projection = $1 and topic = $2',
      [projection, topic],
    );
    const known = rows.map((row) => row.partition_count);
    if (known.length === 1 && known[0] === partitionCount) return;
    const others = known.filter((count) => count !== partitionCount);
    throw new PartitionCountChangedError(
      `${topic} has ${partitionCount} partitions, the projection was made with ${others.join(' and ')}. If it was grown, confirm that: realtime confirm-partitions`,
    );
  });

/** With how many partitions a topic is applied. */
export interface KnownPartitions {
  /** 0 where nobody has applied the topic yet. */
  readonly count: number;
  /** The count that it was first applied with, where it has grown since; else null. */
  readonly grownFrom: number | null;
}

/** `found`: how many the log has now. */
export const readKnownPartitions = async (
  database: Pick<Pool, 'query'>,
  topic: string,
  found: number,
): Promise<KnownPartitions> => {
  const { rows } = await database.query<{ count: number; grown_from: number | null }>(
    `select coalesce(max(partition_count), 0) as count, max(grown_from) as grown_from
      from log_positions where projection = $1 and topic = $2`,
    [activeProjection, topic],
  );
  const { count, grown_from } = rows[0] ?? { count: 0, grown_from: null };
  return { count, grownFrom: grown_from ?? (count > 0 && found > count ? count : null) };
};

/** Columns that say how far a partition was applied. */
export interface PositionColumns {
  readonly next_offset: string;
  readonly last_offset: string | null;
  readonly last_recorded_at: Date | null;
}

/** A position that was set back by hand stands below the record that is noted: nothing is known then. */
export const toPosition = (columns: PositionColumns): Pick<StoredPosition, 'nextOffset' | 'last'> => {
  const { last_offset, last_recorded_at } = columns;
  const nextOffset = BigInt(columns.next_offset);
  if (last_offset === null || last_recorded_at === null || BigInt(last_offset) >= nextOffset)
    return { nextOffset, last: null };
  return { nextOffset, last: { offset: BigInt(last_offset), recordedAtMs: last_recorded_at.getTime() } };
};

/** Where each partition of each topic stands. */
export const readPositions = async (pool: Pick<Pool, 'query'>, projection: string): Promise<StoredPosition[]> => {
  const { rows } = await pool.query<PositionColumns & { topic: string; partition: number; tables: string }>(
    `select topic, "partition", next_offset, last_offset, last_recorded_at,
        'public.rooms'::regclass::oid::text as tables
      from log_positions where projection = $1`,
    [projection],
  );
  return rows.map((row) => ({
    topic: row.topic,
    partition: row.partition,
    tables: row.tables,
    ...toPosition(row),
  }));
};

/** Where each partition of one topic stands. */
export const readNextOffsets = async (
  pool: Pick<Pool, 'query'>,
  projection: string,
  topic: string,
): Promise<Map<number, bigint>> => {
  const positions = (await readPositions(pool, projection)).filter((each) => each.topic === topic);
  return new Map(positions.map(({ partition, nextOffset }) => [partition, nextOffset]));
};
