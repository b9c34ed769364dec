import { partitionName } from '@realtime-service/contracts';
import type { Pool, PoolClient } from 'pg';
import { beginningsOf } from '../beginnings.ts';
import type {
  ConsumeOptions,
  LogConsumer,
  LogPartition,
  PartitionBounds,
  RecordHeaders,
  StoredRecord,
  WriteLog,
} from '../event-log.ts';
import { assertInside, OffsetOutOfRangeError } from '../event-log.ts';
import { within } from '../within.ts';

export const appendedChannel = 'log_appended';

export interface EmbeddedConsumerDependencies {
  readonly pool: Pool;
  readonly bounds: (topic: string) => Promise<PartitionBounds[]>;
  readonly writeLog: WriteLog;
}

/** One partition and where its reading stands. */
interface Lane extends LogPartition {
  position: bigint;
  high: bigint;
  isBusy: boolean;
  resumesAtMs: number;
}

const defaultConcurrency = 32;
const defaultBatchRecords = 500;
const maxBatchBytes = 1024 * 1024;
/** Only the fallback: a notification wakes the reader at once. */
const pollEveryMs = 500;
/** In base64; what is unique to a record (its id, its time, its trace) is longer. */
const maxSharedLength = 24;
const calledSilentAfterMs = 5_000;

/**
 * Reads every partition of its topics; there are no groups. Several consumers at once are safe all the same, since
 * the handler's own transaction decides which of them may apply a batch. Nor is there a committed offset: without
 * `startAt` each partition starts at 0 and the handler's outcome moves it on.
 */
export function consumeEmbedded(dependencies: EmbeddedConsumerDependencies, options: ConsumeOptions): LogConsumer {
  const { pool, bounds, writeLog } = dependencies;
  const { concurrency = defaultConcurrency, maxBatchRecords = defaultBatchRecords } = options;
  const lanes: Lane[] = [];
  const turns = new Set<Promise<void>>();
  let listener: PoolClient | undefined;
  const done = Promise.withResolvers<void>();
  let wake = Promise.withResolvers<void>();
  let isEnded = false;
  let isToReposition = false;
  let answeredAtMs = Number.NEGATIVE_INFINITY;

  function end(error?: Error): void {
    if (isEnded) return;
    isEnded = true;
    if (error !== undefined) done.reject(error);
    wake.resolve();
  }

  async function supervise(): Promise<void> {
    while (!isEnded) {
      try {
        if (isToReposition) {
          await Promise.all(turns);
          lanes.length = 0;
          isToReposition = false;
        }
        if (lanes.length === 0) await assign();
        await listen();
        await look();
        answeredAtMs = performance.now();
      } catch (error) {
        answeredAtMs = Number.NEGATIVE_INFINITY;
        if (error instanceof OffsetOutOfRangeError) end(error);
        else writeLog('warn', 'the embedded log cannot be read', { error });
      }
      const timer = setTimeout(() => wake.resolve(), waitMs());
      await wake.promise;
      clearTimeout(timer);
      wake = Promise.withResolvers();
    }
    await Promise.all(turns);
    stopListening();
  }

  /** Until the next fallback look, or until the first paused partition may go on. */
  function waitMs(): number {
    if (isEnded) return 0;
    const pauses = lanes.map(({ resumesAtMs }) => resumesAtMs - performance.now()).filter((pauseMs) => pauseMs > 0);
    return Math.ceil(Math.min(pollEveryMs, ...pauses));
  }

  async function assign(): Promise<void> {
    const found: Lane[] = [];
    for (const topic of options.topics) {
      for (const { partition, high } of await bounds(topic)) {
        found.push({ topic, partition, position: 0n, high, isBusy: false, resumesAtMs: 0 });
      }
    }
    for (const start of await beginningsOf((await options.startAt?.(found)) ?? [], bounds)) {
      const lane = found.find(({ topic, partition }) => topic === start.topic && partition === start.partition);
      if (lane !== undefined) lane.position = start.offset;
    }
    lanes.push(...found);
    const byTopic = Map.groupBy(found, ({ topic }) => topic);
    options.onAssigned?.(new Map([...byTopic].map(([topic, of]) => [topic, of.map(({ partition }) => partition)])));
  }

  async function listen(): Promise<void> {
    if (listener !== undefined) return;
    listener = await pool.connect();
    listener.on('notification', () => wake.resolve());
    listener.on('error', stopListening);
    try {
      await listener.query(`listen ${appendedChannel}`);
    } catch (error) {
      stopListening();
      throw error;
    }
  }

  /** The connection is destroyed: nobody else should get one that listens. */
  function stopListening(): void {
    listener?.release(true);
    listener = undefined;
  }

  /** Finds the partitions that have something to read and starts as many of them as may run. */
  async function look(): Promise<void> {
    const { rows } = await pool.query<{ topic: string; partition: number; next_offset: string }>(
      'select topic, partition, next_offset from log_heads where topic = any($1)',
      [options.topics],
    );
    const heads = new Map(rows.map((row) => [partitionName(row), BigInt(row.next_offset)]));
    for (const lane of lanes) {
      lane.high = heads.get(partitionName(lane)) ?? lane.high;
      const isDue = !lane.isBusy && lane.position < lane.high && lane.resumesAtMs <= performance.now();
      if (isDue && !isEnded && turns.size < concurrency) start(lane);
    }
  }

  function start(lane: Lane): void {
    lane.isBusy = true;
    const turn = takeTurn(lane)
      .catch((error: unknown) => end(error instanceof Error ? error : new Error(String(error))))
      .finally(() => {
        lane.isBusy = false;
        turns.delete(turn);
        wake.resolve();
      });
    turns.add(turn);
  }

  async function takeTurn(lane: Lane): Promise<void> {
    const records = await orPause(lane, readRecords(pool, lane, maxBatchRecords));
    if (records === undefined || isEnded) return;
    const { topic, partition, position, high } = lane;
    const nextOffset = position + BigInt(records.length);
    const outcome = await options.onBatch({
      topic,
      partition,
      fetchedOffset: position,
      nextOffset,
      high: nextOffset > high ? nextOffset : high,
      records,
      heartbeat: async () => !isEnded,
    });
    if (outcome.kind === 'stop') throw outcome.error;
    if (outcome.nextOffset < position || outcome.nextOffset > nextOffset) {
      const held = await orPause(lane, bounds(topic));
      if (held === undefined) return;
      assertInside({ topic, partition, offset: outcome.nextOffset }, held);
    }
    lane.position = outcome.nextOffset;
    if (outcome.kind === 'retry') lane.resumesAtMs = performance.now() + outcome.afterMs;
  }

  async function orPause<T>(lane: Lane, reading: Promise<T>): Promise<T | undefined> {
    try {
      return await reading;
    } catch (error) {
      const { topic, partition } = lane;
      writeLog('warn', 'a partition of the embedded log cannot be read', { error, topic, partition });
      lane.resumesAtMs = performance.now() + pollEveryMs;
      return undefined;
    }
  }

  const supervised = supervise();
  return {
    done: done.promise,
    isReady: () => !isEnded && performance.now() - answeredAtMs < calledSilentAfterMs,
    heldBack: () => [],
    reposition: () => {
      isToReposition = true;
      wake.resolve();
    },
    stop: async (deadlineMs) => {
      end();
      await within(deadlineMs, supervised);
      done.resolve();
    },
  };
}

interface RecordRow {
  readonly offset: string;
  readonly timestamp_ms: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  /** In base64, until they are decoded. */
  readonly headers: Record<string, string | Buffer>;
}

/** A record above the limit comes alone. */
async function readRecords(
  pool: Pool,
  { topic, partition, position }: Lane,
  maxRecords: number,
): Promise<StoredRecord[]> {
  const { rows } = await pool.query<RecordRow>(
    `select "offset", floor(round(date_part('epoch', appended_at) * 1e6) / 1e3) as timestamp_ms, key, value, headers
       from (select *, sum(coalesce(octet_length(value), 0)) over (order by "offset" rows unbounded preceding) as bytes
               from (select * from log_records
                      where topic = $1 and partition = $2 and "offset" >= $3
                      order by "offset" limit $4) next) sized
      where bytes <= $5 or "offset" = $3
      order by "offset"`,
    [topic, partition, String(position), maxRecords, maxBatchBytes],
  );
  const decodeHeaders = createHeaderDecoder();
  return rows.map(({ offset, timestamp_ms, key, value, headers }) => ({
    topic,
    partition,
    offset: BigInt(offset),
    timestampMs: timestamp_ms,
    key,
    value,
    headers: decodeHeaders(headers),
  }));
}

/** Most headers say the same in every record of a batch: those that do share their bytes. */
function createHeaderDecoder(): (headers: RecordRow['headers']) => RecordHeaders {
  const known = new Map<string, Buffer>();
  const decode = (base64: string): Buffer => {
    if (base64.length > maxSharedLength) return Buffer.from(base64, 'base64');
    let bytes = known.get(base64);
    if (bytes === undefined) {
      bytes = Buffer.from(base64, 'base64');
      known.set(base64, bytes);
    }
    return bytes;
  };
  return (headers) => {
    // In place: it is nobody else's, and a log that is read from its beginning has millions of them.
    for (const [name, base64] of Object.entries(headers)) headers[name] = decode(base64 as string);
    return headers as RecordHeaders;
  };
}
