import { topics } from '@realtime-service/contracts';
import type { BatchOutcome, LogBatch } from '@realtime-service/event-log';
import { type ChunkStore, rebuildProjection } from '@realtime-service/room-store';
import { applyDecoded, type Decoded, decodeRecord } from '@realtime-service/room-worker';

/** Somebody else's partition, for as long as any rebuild takes. */
const leftAloneMs = 24 * 3_600_000;
/** How soon a partition that stands where the serving tables stand is looked at again. */
const limitRetryMs = 50;
const chunksPerPurge = 20;

/** What is decoded and not yet written, of all partitions together. */
const maxRecords = 16_000;
const maxBytes = 16 * 1024 * 1024;

export interface FillDependencies {
  readonly store: ChunkStore;
  readonly partitionCount: number;
  /** The partitions to fill; others are left alone. */
  readonly isOurs: (partition: number) => boolean;
  /** Where the serving tables stand: the second set never goes beyond. */
  readonly readLimits: () => Promise<ReadonlyMap<number, bigint>>;
  /** Drops what can never count as a repeat again. */
  readonly purge: (partition: number) => Promise<unknown>;
}

/** Records of a partition that wait to be written together. */
interface Lane {
  from: bigint;
  next: bigint;
  bytes: number;
  chunks: number;
  decoded: Decoded[];
}

/**
 * The handler that fills the second set. It decodes and applies as the projector does, in larger chunks: one row for
 * an entity that changes many times, one commit for thousands of facts. What is not written yet is lost with the process
 * and read again: the set's own positions say where to go on.
 */
export const createFiller = (dependencies: FillDependencies): ((batch: LogBatch) => Promise<BatchOutcome>) => {
  const { store, partitionCount, isOurs, readLimits, purge } = dependencies;
  const ours = Array.from({ length: partitionCount }, (_, partition) => partition).filter(isOurs).length;
  const lanes = new Map<number, Lane>();
  let limits: ReadonlyMap<number, bigint> = new Map();

  const limitOf = async (partition: number, wanted: bigint): Promise<bigint> => {
    if ((limits.get(partition) ?? 0n) < wanted) limits = await readLimits();
    return limits.get(partition) ?? 0n;
  };

  const laneOf = ({ partition, fetchedOffset }: LogBatch): Lane => {
    const known = lanes.get(partition);
    if (known?.next === fetchedOffset) return known;
    const lane = { from: fetchedOffset, next: fetchedOffset, bytes: 0, chunks: 0, decoded: [] };
    lanes.set(partition, lane);
    return lane;
  };

  const take = (lane: Lane, { records, nextOffset }: LogBatch, limit: bigint): void => {
    for (const stored of records) {
      if (stored.offset >= limit) break;
      lane.decoded.push(decodeRecord(stored, partitionCount));
      lane.bytes += (stored.value?.length ?? 0) + (stored.key?.length ?? 0);
    }
    lane.next = nextOffset < limit ? nextOffset : limit;
  };

  /** Answers where the set stands. */
  const write = async (partition: number, lane: Lane): Promise<bigint> => {
    const { from, next, decoded } = lane;
    const at = { projection: rebuildProjection, topic: topics.roomEvents, partition };
    const { result } = await applyDecoded(store, { ...at, fetchedOffset: from, nextOffset: next, decoded });
    Object.assign(lane, { from: result.nextOffset, next: result.nextOffset, bytes: 0, decoded: [] });
    lane.chunks += 1;
    if (lane.chunks % chunksPerPurge === 0) await purge(partition);
    return result.nextOffset;
  };

  return async (batch) => {
    const { partition, fetchedOffset, nextOffset, high } = batch;
    if (!isOurs(partition)) return { kind: 'retry', nextOffset: fetchedOffset, afterMs: leftAloneMs };
    const lane = laneOf(batch);
    take(lane, batch, await limitOf(partition, nextOffset));
    const isFull = lane.decoded.length >= maxRecords / ours || lane.bytes >= maxBytes / ours;
    const isLast = lane.next < nextOffset || lane.next >= high;
    const position = lane.next > lane.from && (isFull || isLast) ? await write(partition, lane) : lane.next;
    return position < nextOffset
      ? { kind: 'retry', nextOffset: position, afterMs: limitRetryMs }
      : { kind: 'advance', nextOffset: position };
  };
};
