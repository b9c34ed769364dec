/**
 * The log that every change of state enters through. Two adapters speak this port: `kafka/` for production and
 * `embedded/` (tables in PostgreSQL) for a machine with nothing but Node. `contract.ts` is the suite that both pass.
 */

/** Header values are kept as bytes; a header that was sent twice keeps its last value. */
export type RecordHeaders = Readonly<Record<string, Buffer>>;

/** A record to append. The partition follows from the key (murmur2, as Java's default partitioner has it). */
export interface NewRecord {
  readonly topic: string;
  readonly key: string;
  readonly value: Buffer;
  readonly headers: Readonly<Record<string, string | Buffer>>;
}

/** A record as it stands in the log, bytes untouched. */
export interface StoredRecord {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  /** Record time, milliseconds since the epoch. */
  readonly timestampMs: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: RecordHeaders;
}

/** Where a record stands. */
export interface LogPosition {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
}

export interface PartitionBounds {
  readonly partition: number;
  /** The first offset that is still kept. */
  readonly low: bigint;
  /** The offset that the next record will get. */
  readonly high: bigint;
}

/** What one fetch brought for one partition. */
export interface LogBatch {
  readonly topic: string;
  readonly partition: number;
  /** The offset that was asked for. Above the database's own offset it means that records were skipped: seek back. */
  readonly fetchedOffset: bigint;
  /** The offset after this batch, also where it holds no visible record (markers, aborted transactions). */
  readonly nextOffset: bigint;
  readonly high: bigint;
  readonly records: readonly StoredRecord[];
  /** Keeps the group membership alive; to be awaited between chunks. */
  readonly heartbeat: () => Promise<void>;
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
  /** Told after each (re)assignment which partitions this member has. */
  readonly onAssigned?: (assigned: ReadonlyMap<string, readonly number[]>) => void;
}

export interface LogConsumer {
  /** Resolves when `stop` has finished; rejects with the cause when the consumer ended by itself. */
  readonly done: Promise<void>;
  /** False while the broker does not answer, before the first assignment, and after the end. */
  readonly isReady: () => boolean;
  /** Leaves the group in order, within `deadlineMs`. */
  readonly stop: (deadlineMs: number) => Promise<void>;
}

export interface EventLog {
  /**
   * Appends and resolves with one position per record, in the order given, when all are durable. Records of one key
   * keep their order. Not atomic across partitions: after a rejection some may have been written, and the caller
   * sends all of them again.
   * @throws {LogUnavailableError} when there is no acknowledgement within `timeoutMs`
   */
  readonly append: (records: readonly NewRecord[], timeoutMs: number) => Promise<LogPosition[]>;
  /**
   * Low and high positions of every partition of a topic.
   * @throws {LogUnavailableError}
   */
  readonly bounds: (topic: string) => Promise<PartitionBounds[]>;
  readonly consume: (options: ConsumeOptions) => Promise<LogConsumer>;
  readonly close: () => Promise<void>;
}

/** The log did not answer in time or refused for a passing reason; the same call may go through later. */
export class LogUnavailableError extends Error {
  override readonly name = 'LogUnavailableError';
  readonly isRetryable = true;
}
