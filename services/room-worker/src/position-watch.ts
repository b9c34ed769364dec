import { setTimeout as delay } from 'node:timers/promises';
import { consumedTopics, type LogPartition, partitionName } from '@realtime-service/contracts';
import type { ConsumeOptions, EventLog, LogConsumer, LogStart } from '@realtime-service/event-log';
import {
  activeProjection,
  countOpenDeadLetters,
  PartitionCountChangedError,
  type PartitionPosition,
  type Pool,
  readMarkBacklog,
  readPositions,
} from '@realtime-service/room-store';
import type { Logger } from '@realtime-service/telemetry';
import { type LaneGate, type LaneGateOfConsumer, noteSeen, type Positions } from './lane-gate.ts';
import type { WorkerMetrics } from './metrics.ts';
import { startPositions } from './start-positions.ts';

const lookEveryMs = 2_000;

export interface PositionWatchDependencies {
  readonly pool: Pool;
  readonly log: EventLog;
  readonly consumer: LogConsumer;
  readonly consumergroup: string;
  readonly partitionCounts: ReadonlyMap<string, number>;
  /** Where each partition of the database was seen to stand. */
  readonly seen: Positions;
  readonly gate: Pick<LaneGate, 'hasReachedKnown'>;
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
}

/**
 * Notes how far the database came with each batch, for the watch and for the gate: each forgets what it saw when it
 * notices a restore, which the other has yet to do.
 */
export const notingPositions =
  (project: ConsumeOptions['onBatch'], seenByWatch: Positions, seenByGate: Positions): ConsumeOptions['onBatch'] =>
  async (batch) => {
    const outcome = await project(batch);
    if (outcome.kind !== 'stop')
      for (const seen of [seenByWatch, seenByGate]) noteSeen(seen, [{ ...batch, nextOffset: outcome.nextOffset }]);
    return outcome;
  };

/**
 * Where the database's positions say that what is assigned begins; each is noted as seen. Whoever had it before may
 * have been gone for a while.
 */
export const startsOf = async (
  {
    pool,
    seen,
    gate,
  }: Pick<PositionWatchDependencies, 'pool' | 'seen'> & { readonly gate: Pick<LaneGateOfConsumer, 'beginAnew'> },
  assigned: readonly LogPartition[],
): Promise<LogStart[]> => {
  gate.beginAnew();
  const positions = await readPositions(pool, activeProjection);
  noteSeen(seen, positions);
  const names = new Set(assigned.map(partitionName));
  return startPositions(positions.filter((each) => names.has(partitionName(each))));
};

/**
 * A restored database stands before where it stood. Where nothing new is written, no batch would tell the consumer.
 * Answers where each partition stands.
 */
export const noticeRestore = async (
  {
    consumer,
    seen,
    logger,
  }: Pick<PositionWatchDependencies, 'seen' | 'logger'> & { readonly consumer: Pick<LogConsumer, 'reposition'> },
  read: () => Promise<readonly PartitionPosition[]>,
): Promise<Positions> => {
  // As it was before: a batch that is applied while the positions are read has not been taken back.
  const before = new Map(seen);
  const positions = await read();
  const next = new Map(positions.map((each) => [partitionName(each), each.nextOffset]));
  const isBehind = [...next].some(([place, offset]) => offset < (before.get(place) ?? 0n));
  if (isBehind) seen.clear();
  noteSeen(seen, positions);
  if (isBehind) {
    logger.error('the database stands before where it stood, the log is read again from there');
    consumer.reposition();
  }
  return next;
};

/** Where each partition of the database stands, which the consumer and the gate are told of. */
export const lookAtPositions = async (dependencies: PositionWatchDependencies): Promise<Positions> => {
  const { pool, gate } = dependencies;
  const positions = await noticeRestore(dependencies, () => readPositions(pool, activeProjection));
  // So that it knows what other workers have applied, also while it is asked nothing.
  await gate.hasReachedKnown([]);
  return positions;
};

/**
 * Tells the lag, where the database's positions are known.
 * @throws {PartitionCountChangedError} when a topic was grown: what its new partitions hold must not be applied
 */
const tellLag = async (
  { log, consumergroup, partitionCounts, metrics }: PositionWatchDependencies,
  positions: Positions | undefined,
): Promise<void> => {
  for (const topic of consumedTopics) {
    const bounds = await log.bounds(topic);
    if (bounds.length !== partitionCounts.get(topic))
      throw new PartitionCountChangedError(`${topic} has ${bounds.length} partitions now`);
    if (positions === undefined) continue;
    for (const { partition, high } of bounds) {
      const lag = high - (positions.get(partitionName({ topic, partition })) ?? 0n);
      metrics.lag.set({ consumergroup, topic, partition: String(partition) }, Math.max(0, Number(lag)));
    }
  }
};

const tellBacklog = async ({ pool, consumer, metrics }: PositionWatchDependencies): Promise<void> => {
  metrics.heldBack.set(consumer.heldBack().length);
  const [{ count, ageSeconds }, openDeadLetters] = await Promise.all([
    readMarkBacklog(pool),
    countOpenDeadLetters(pool),
  ]);
  metrics.marksDue.set(count);
  metrics.markAgeSeconds.set(ageSeconds);
  metrics.deadLettersOpen.set(openDeadLetters);
};

/**
 * Looks every two seconds at where database and log stand, and tells what waits. None of these waits for another: those
 * on call can do without a number, people inside not without a worker that notices a restore. Nor does the end of the
 * process wait for a log that is away.
 */
export const startPositionWatch = (
  dependencies: PositionWatchDependencies,
): { readonly failed: Promise<never>; readonly stop: () => void } => {
  const { metrics, logger } = dependencies;
  const stopping = new AbortController();
  const { signal } = stopping;
  const failure = Promise.withResolvers<never>();
  let positions: Positions | undefined;

  /** What cannot be read is hidden: the last numbers would say that all is well. */
  const repeat = async (work: () => Promise<void>, hide: () => void): Promise<void> => {
    while (!signal.aborted) {
      try {
        await work();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof PartitionCountChangedError) failure.reject(error);
        hide();
        logger.warn({ err: error }, 'positions or backlog could not be read');
      }
      await delay(lookEveryMs, undefined, { signal }).catch(() => {});
    }
  };
  const look = async (): Promise<void> => {
    positions = await lookAtPositions(dependencies);
  };
  void repeat(look, () => {
    positions = undefined;
    metrics.lag.reset();
  });
  void repeat(
    () => tellLag(dependencies, positions),
    () => metrics.lag.reset(),
  );
  void repeat(
    () => tellBacklog(dependencies),
    () => {
      for (const gauge of [metrics.marksDue, metrics.markAgeSeconds, metrics.deadLettersOpen]) gauge.remove({});
    },
  );

  return { failed: failure.promise, stop: () => stopping.abort() };
};
