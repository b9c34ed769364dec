import { topics } from '@realtime-service/contracts';
import type { BatchOutcome, LogBatch } from '@realtime-service/event-log';
import { type ChunkStore, LogReplacedError, type Pool, rebuildProjection } from '@realtime-service/room-store';
import { applyDecoded, type Decoded, decodeRecord } from '@realtime-service/room-worker';
import { asCounted } from './as-counted.ts';
import { leftAlone, triedAgain } from './batch-outcomes.ts';

/** How soon a partition that stands where the serving tables stand is looked at again. */
const limitRetryMs = 50;
const batchesPerPurge = 20;

export interface FillDependencies {
  readonly pool: Pick<Pool, 'query'>;
  readonly store: ChunkStore;
  readonly partitionCount: number;
  /** Whether records count that stand in another partition than their keys give. */
  readonly acceptsMisplaced: boolean;
  /** The partitions to fill; others are left alone. */
  readonly isOurs: (partition: number) => boolean;
  /** Where the serving tables stand: the second set never goes beyond. */
  readonly readLimits: () => Promise<ReadonlyMap<number, bigint>>;
  /** Drops what can never count as a repeat again. */
  readonly purge: (partition: number) => Promise<unknown>;
}

/**
 * Between partitions there is no order: facts about one entity in two of them could come out in another one, and bring
 * somebody back who was removed.
 */
const assertOrdered = (decoded: readonly Decoded[]): void => {
  const misplaced = decoded.find(({ isMisplaced, record }) => isMisplaced && record.content.kind === 'room_event');
  if (misplaced === undefined) return;
  const { topic, partition, offset } = misplaced.stored;
  throw new Error(
    `offset ${offset} of partition ${partition} of ${topic} stands in another partition than its key gives: the topic was ` +
      'grown, or its producer has another partitioner. In which order such facts were applied cannot be told, so what ' +
      'is built anew could differ, and bring removed people back. --accept-misplaced builds it all the same',
  );
};

/**
 * The handler that fills the second set. It decodes and applies as the projector does, but whole batches at once: one
 * row for an entity that changes many times, one commit for thousands of facts.
 */
export const createFiller = (dependencies: FillDependencies): ((batch: LogBatch) => Promise<BatchOutcome>) => {
  const { pool, store, partitionCount, acceptsMisplaced, isOurs, readLimits, purge } = dependencies;
  let limits: ReadonlyMap<number, bigint> = new Map();
  let written = 0;

  const knownLimitOf = (partition: number): bigint => limits.get(partition) ?? 0n;

  const limitOf = async (partition: number, wanted: bigint): Promise<bigint> => {
    if (knownLimitOf(partition) < wanted) limits = await readLimits();
    return knownLimitOf(partition);
  };

  /** Answers where the set stands. */
  const write = async (batch: LogBatch, nextOffset: bigint): Promise<bigint> => {
    const { partition, fetchedOffset, records, heartbeat } = batch;
    const decoded = await asCounted(
      pool,
      records.filter(({ offset }) => offset < nextOffset).map((stored) => decodeRecord(stored, partitionCount)),
    );
    if (!acceptsMisplaced) assertOrdered(decoded);
    // Of tables that have gone back, as where a standby took over, the letters have, too: so they are looked at last.
    limits = await readLimits();
    if (knownLimitOf(partition) < nextOffset) return fetchedOffset;
    const at = { projection: rebuildProjection, topic: topics.roomEvents, partition };
    const result = await applyDecoded(store, { ...at, fetchedOffset, nextOffset, decoded }, heartbeat);
    written += 1;
    if (written % batchesPerPurge === 0) await purge(partition);
    return result.nextOffset;
  };

  return async (batch) => {
    const { partition, fetchedOffset } = batch;
    if (!isOurs(partition)) return leftAlone(fetchedOffset);
    const limit = await limitOf(partition, batch.nextOffset);
    const isBeyond = batch.nextOffset > limit;
    const end = isBeyond ? limit : batch.nextOffset;
    try {
      const nextOffset = end > fetchedOffset ? await write(batch, end) : fetchedOffset;
      return nextOffset === batch.nextOffset
        ? { kind: 'advance', nextOffset }
        : { kind: 'retry', nextOffset, afterMs: limitRetryMs };
    } catch (error) {
      if (error instanceof LogReplacedError)
        throw new Error(`${error.message}. Begin anew with --restart`, { cause: error });
      return triedAgain(error, fetchedOffset);
    }
  };
};
