import { inTransaction, type Pool } from './database/database.ts';

/** The projection that serves; a rebuild fills another one. */
export const activeProjection = 'active';

/** A record that was applied. Its time tells its log from another one that was put in the place of that. */
export interface AppliedRecord {
  readonly offset: bigint;
  readonly recordedAtMs: number;
}

export interface PartitionPosition {
  /** Names the set of tables that serves: another one after each swap. Absent where there is only ever one. */
  readonly tables?: string;
  readonly topic: string;
  readonly partition: number;
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

/** Facts of another partition come first: see `confirmPartitions`. */
export class OlderPartitionsFirstError extends Error {
  override readonly name = 'OlderPartitionsFirstError';
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

/**
 * Has a topic that was grown applied with as many partitions as it has now. What is about one key in two of them has
 * its order: the partitions from before come first, up to `highs`, where they end now. Nothing that was written by the
 * old count may come later. Answers the count that was known, which is left as it is unless it is lower.
 */
export const confirmPartitions = (pool: Pool, topic: string, highs: ReadonlyMap<number, bigint>): Promise<number> =>
  inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ partition_count: number }>(
      'select partition_count from log_positions where projection = $1 and topic = $2 order by "partition" for update',
      [activeProjection, topic],
    );
    const known = rows[0]?.partition_count ?? 0;
    if (known >= highs.size || known === 0) return known;
    await client.query(
      `update log_positions set partition_count = $3, drain_to = bound.high
        from unnest($4::int[], $5::bigint[]) as bound (at, high)
        where projection = $1 and topic = $2 and "partition" = bound.at`,
      [activeProjection, topic, highs.size, [...highs.keys()], [...highs.values()].map(String)],
    );
    await client.query(
      `insert into log_positions (projection, topic, "partition", next_offset, partition_count, waits_below)
        select $1, $2, p, 0, $3, $4 from generate_series($4::int, $3::int - 1) as p`,
      [activeProjection, topic, highs.size, known],
    );
    return known;
  });

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
