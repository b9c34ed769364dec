/**
 * The log that every change of state enters through. Two adapters speak this port: `kafka/` for production and
 * `embedded/` (tables in PostgreSQL) for a machine with nothing but Node. `test/log-contract.ts` is the suite that both
 * pass.
 */

import type { LogPartition, LogPosition } from '@realtime-service/contracts';

/** Header values are kept as bytes; a header that was sent twice keeps its last value. */
export type RecordHeaders = Readonly<Record<string, Buffer>>;

/** A record to append. The partition follows from the key (murmur2, as Java's default partitioner has it). */
export interface NewRecord {
  readonly topic: string;
  /** Null only in copies of others' records (dead letters): they stand in partition 0. */
  readonly key: string | Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, string | Buffer>>;
}

/** A record as it stands in the log, bytes untouched. */
export interface StoredRecord extends LogPosition {
  /** Record time, milliseconds since the epoch. */
  readonly timestampMs: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: RecordHeaders;
}

/** Where to go on in a partition. */
export interface LogStart extends LogPosition {
  /** The last record before it that was read: reading begins there instead, unless retention has dropped that. */
  readonly lastRead?: bigint | undefined;
}

export interface PartitionBounds {
  readonly partition: number;
  /** The first offset that is still kept. */
  readonly low: bigint;
  /** The offset that the next record will get; what an open transaction holds back stands below it. */
  readonly high: bigint;
}

/** What one fetch brought for one partition. */
export interface LogBatch extends LogPartition {
  /** The offset that was asked for. Above the database's own offset it means that records were skipped: seek back. */
  readonly fetchedOffset: bigint;
  /** The offset after this batch, also where it holds no visible record (markers, aborted transactions). */
  readonly nextOffset: bigint;
  /** Empty when the batch holds no visible record; its `nextOffset` must become durable all the same. */
  readonly records: readonly StoredRecord[];
  /**
   * Keeps the group membership alive; to be awaited between chunks. Never rejects. False: the partition may belong to
   * another member by now, so finish with what is durable.
   */
  readonly heartbeat: () => Promise<boolean>;
}

/**
 * What the handler did with a batch. `advance`: everything below `nextOffset` is durable, go on from there (a value
 * other than the batch's own is a seek). `retry`: as far as `nextOffset` is durable, the rest failed for a passing
 * reason; the partition is paused for `afterMs` and others go on. `stop`: the consumer must end with this error.
 */
export type BatchOutcome =
  | { readonly kind: 'advance'; readonly nextOffset: bigint }
  | { readonly kind: 'retry'; readonly nextOffset: bigint; readonly afterMs: number }
  | { readonly kind: 'stop'; readonly error: Error };

export interface ConsumeOptions {
  readonly group: string;
  readonly topics: readonly string[];
  /** Never throws for a bad record; a throw is treated as `stop`. Called for one batch of a partition at a time. */
  readonly onBatch: (batch: LogBatch) => Promise<BatchOutcome>;
  /**
   * Asked after each (re)assignment where to go on, also where nothing is assigned; a partition that is missing in the
   * answer starts where the log believes that the group was (Kafka's committed offset, else the first record). Without
   * it a group whose committed offset is ahead of the database would notice only with the next record. A throw is
   * retried each second.
   */
  readonly startAt?: (assigned: readonly LogPartition[]) => Promise<readonly LogStart[]>;
  /** Partitions handled at once; fewer than there are lets a slow one delay others. Default 32. */
  readonly concurrency?: number;
  /** Most records of a batch, where that can be chosen: Kafka goes by bytes. Default 500. */
  readonly maxBatchRecords?: number;
  /**
   * Most bytes that Kafka sends at once, of all partitions, as they travel: unpacked and decoded they take many times
   * the room. What a producer has sent as one batch comes whole. Default 1 MiB.
   */
  readonly maxFetchBytes?: number;
}

export interface LogConsumer {
  /**
   * Resolves when `stop` has finished; rejects with the cause when the consumer ended by itself: `stop` or a throw of
   * the handler, an offset outside the log ({@link OffsetOutOfRangeError}), a batch that cannot be decoded, a refusal
   * that does not pass, silence.
   */
  readonly done: Promise<void>;
  /** False while the broker does not answer, before the first assignment, and after the end. */
  readonly isReady: () => boolean;
  /**
   * Partitions that a transaction which somebody left open has kept from being read on for 5 s: what was written after
   * its first record waits for its end. Worth an alarm.
   */
  readonly heldBack: () => readonly LogPartition[];
  /** Asks `startAt` again, as after a new assignment: what the handler had made durable may be gone by a restore. */
  readonly reposition: () => void;
  /** Leaves the group in order, within `deadlineMs`. */
  readonly stop: (deadlineMs: number) => Promise<void>;
}

export interface EventLog {
  /**
   * Appends and resolves with one position per record, in the order given, when all are durable. Records of one key
   * keep their order. Not atomic across partitions: after a rejection some may have been written, and the caller
   * sends all of them again.
   * @throws {LogUnavailableError} when there is no acknowledgement within `timeoutMs`
   * @throws {RecordTooLargeError} before anything is written, unless it is the topic that takes less
   */
  readonly append: (records: readonly NewRecord[], timeoutMs: number) => Promise<LogPosition[]>;
  /**
   * Low and high positions of every partition of a topic, by ascending partition.
   * @throws {LogUnavailableError}
   */
  readonly bounds: (topic: string) => Promise<PartitionBounds[]>;
  /** Starts consuming. While the log cannot be reached the consumer is not ready and keeps trying. */
  readonly consume: (options: ConsumeOptions) => LogConsumer;
  /** Ends producing; consumers are stopped by their owners. */
  readonly close: () => Promise<void>;
}

/** Key, value and headers of a record together; below the broker's default `message.max.bytes` with its overhead. */
export const maxRecordBytes = 1_000_000;

/** The log did not answer in time or refused for a passing reason; the same call may go through later. */
export class LogUnavailableError extends Error {
  override readonly name = 'LogUnavailableError';
}

/** The record exceeds {@link maxRecordBytes}, or what its topic takes; it will never go through. */
export class RecordTooLargeError extends Error {
  override readonly name = 'RecordTooLargeError';
}

/** The handler wants to go on at an offset that the log does not hold: records are lost, or it is another log. */
export class OffsetOutOfRangeError extends Error {
  override readonly name = 'OffsetOutOfRangeError';
}

/**
 * The bounds of the position's partition.
 * @throws {OffsetOutOfRangeError} when a log with these bounds cannot go on at the position
 */
export function assertInside(position: LogPosition, bounds: readonly PartitionBounds[] = []): PartitionBounds {
  const { topic, partition, offset } = position;
  const held = bounds.find((candidate) => candidate.partition === partition);
  if (held !== undefined && offset >= held.low && offset <= held.high) return held;
  const range = held === undefined ? 'does not exist' : `holds ${held.low} to ${held.high}`;
  throw new OffsetOutOfRangeError(`Offset ${offset} was asked for, but partition ${partition} of ${topic} ${range}`);
}

/** What adapters tell about their inner life, for the service's own logger. */
export type WriteLog = (
  level: 'error' | 'warn' | 'info' | 'debug',
  message: string,
  fields: Readonly<Record<string, unknown>>,
) => void;
