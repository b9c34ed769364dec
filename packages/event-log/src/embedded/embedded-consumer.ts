import { type LogPartition, partitionName } from '@realtime-service/contracts';
import type { Pool } from 'pg';
import { beginningsOf } from '../beginnings.ts';
import type { ConsumeOptions, LogConsumer, PartitionBounds, WriteLog } from '../event-log.ts';
import { assertInside, OffsetOutOfRangeError } from '../event-log.ts';
import { toError } from '../to-error.ts';
import { within } from '../within.ts';
import { createListener } from './listener.ts';
import { readRecords } from './read-records.ts';

export interface EmbeddedConsumerDependencies {
  readonly pool: Pool;
  readonly bounds: (topic: string) => Promise<PartitionBounds[]>;
  readonly writeLog: WriteLog;
}

/** One partition and where its reading stands. */
interface Lane extends LogPartition {
  offset: bigint;
  high: bigint;
  isBusy: boolean;
  resumesAtMs: number;
}

const defaultConcurrency = 32;
const defaultBatchRecords = 500;
/** Only the fallback: a notification wakes the reader at once. */
const pollEveryMs = 500;
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
  const done = Promise.withResolvers<void>();
  const listener = createListener(pool, () => wake.resolve());
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
        await listener.listen();
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
    listener.stop();
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
        found.push({ topic, partition, offset: 0n, high, isBusy: false, resumesAtMs: 0 });
      }
    }
    for (const start of await beginningsOf((await options.startAt?.(found)) ?? [], bounds)) {
      const lane = found.find(({ topic, partition }) => topic === start.topic && partition === start.partition);
      if (lane !== undefined) lane.offset = start.offset;
    }
    lanes.push(...found);
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
      const isDue = !lane.isBusy && lane.offset < lane.high && lane.resumesAtMs <= performance.now();
      if (isDue && turns.size < concurrency) start(lane);
    }
  }

  function start(lane: Lane): void {
    lane.isBusy = true;
    const turn = takeTurn(lane)
      .catch((error: unknown) => end(toError(error)))
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
    const { topic, partition, offset: fetchedOffset } = lane;
    const nextOffset = fetchedOffset + BigInt(records.length);
    const outcome = await options.onBatch({
      topic,
      partition,
      fetchedOffset,
      nextOffset,
      records,
      heartbeat: async () => !isEnded,
    });
    if (outcome.kind === 'stop') throw outcome.error;
    if (outcome.nextOffset < fetchedOffset || outcome.nextOffset > nextOffset) {
      const held = await orPause(lane, bounds(topic));
      if (held === undefined) return;
      assertInside({ topic, partition, offset: outcome.nextOffset }, held);
    }
    lane.offset = outcome.nextOffset;
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
