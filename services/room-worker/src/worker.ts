import { setTimeout as delay } from 'node:timers/promises';
import { allTopics, consumedTopics, partitionName } from '@realtime-service/contracts';
import {
  type ConsumeOptions,
  type EventLog,
  type LogConsumer,
  type LogPartition,
  openEventLog,
  prepareEmbeddedLog,
} from '@realtime-service/event-log';
import { createRoomService } from '@realtime-service/livekit';
import {
  activeProjection,
  countOpenDeadLetters,
  createPool,
  createPostgresStore,
  listen,
  marksChannel,
  migrate,
  PartitionCountChangedError,
  type PartitionPosition,
  type Pool,
  preparePositions,
  purge,
  readMarkBacklog,
  readPositions,
} from '@realtime-service/room-store';
import { createOpsServer, type Logger } from '@realtime-service/telemetry';
import type { WorkerSettings } from './config.ts';
import { startEnforcement } from './enforce.ts';
import { createLaneGate, type LaneGate, noteReached, type Positions } from './lane-gate.ts';
import { createWorkerMetrics, type WorkerMetrics } from './metrics.ts';
import { createProjector } from './project.ts';
import { startRelay } from './relay.ts';
import { startPositions } from './start-positions.ts';
import { startSweep } from './sweep.ts';
import { createWebhookIntake } from './webhook-intake.ts';

const livekitTimeoutMs = 2_000;
const retryStartMs = 500;
const backlogEveryMs = 2_000;
const purgeEveryMs = 3_600_000;

export interface Worker {
  readonly intakeUrl: string;
  readonly opsUrl: string;
  /** Rejects when the consumer ended by itself, as it does where a topic was made again, or when a topic was grown. */
  readonly failed: Promise<void>;
  readonly stop: () => Promise<void>;
}

/** Repeats what a dependency that is still starting refuses; each refusal is logged, and readiness is red meanwhile. */
const untilReady = async (
  what: string,
  logger: Logger,
  attempt: () => Promise<void>,
  ending: AbortSignal,
): Promise<void> => {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (error instanceof PartitionCountChangedError) throw error;
      logger.warn({ dependency: what, err: error }, 'dependency is not there yet');
    }
    await delay(retryStartMs, undefined, { signal: ending });
  }
};

interface Backlog {
  readonly pool: Pool;
  readonly log: EventLog;
  readonly consumer: LogConsumer;
  readonly consumergroup: string;
  readonly partitionCounts: ReadonlyMap<string, number>;
  /** Where each partition of the database was seen to stand. */
  readonly reached: Positions;
  readonly gate: LaneGate;
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
}

/** Notes how far the database came with each batch, for the consumer and for the gate. */
export const noting =
  (project: ConsumeOptions['onBatch'], reached: Positions, seen: Positions): ConsumeOptions['onBatch'] =>
  async (batch) => {
    const outcome = await project(batch);
    if (outcome.kind !== 'stop')
      for (const each of [reached, seen]) noteReached(each, [{ ...batch, nextOffset: outcome.nextOffset }]);
    return outcome;
  };

/**
 * A restored database stands before where it stood. Where nothing new is written, no batch would tell the consumer.
 * Answers where each partition stands.
 */
export const noticeRestore = async (
  {
    consumer,
    reached,
    logger,
  }: Pick<Backlog, 'reached' | 'logger'> & { readonly consumer: Pick<LogConsumer, 'reposition'> },
  read: () => Promise<readonly PartitionPosition[]>,
): Promise<Positions> => {
  // As it was before: a batch that is applied while the positions are read has not been taken back.
  const before = new Map(reached);
  const positions = await read();
  const next = new Map(positions.map((each) => [partitionName(each), each.nextOffset]));
  const isBehind = [...next].some(([place, offset]) => offset < (before.get(place) ?? 0n));
  if (isBehind) reached.clear();
  noteReached(reached, positions);
  if (isBehind) {
    logger.error('the database stands before where it stood, the log is read again from there');
    consumer.reposition();
  }
  return next;
};

/** @throws {PartitionCountChangedError} when a topic was grown: what its new partitions hold must not be applied */
export const gatherBacklog = async (backlog: Backlog): Promise<void> => {
  const { pool, log, consumer, consumergroup, partitionCounts, gate, metrics } = backlog;
  const { count, oldestDueAtMs } = await readMarkBacklog(pool);
  metrics.deadLettersOpen.set(await countOpenDeadLetters(pool));
  metrics.marksDue.set(count);
  metrics.markAgeSeconds.set(oldestDueAtMs === null ? 0 : (Date.now() - oldestDueAtMs) / 1000);
  metrics.heldBack.set(consumer.heldBack().length);
  const next = await noticeRestore(backlog, () => readPositions(pool, activeProjection));
  // So that it knows what other workers have applied, also while it is asked nothing.
  await gate.hasReachedKnown([]);
  for (const topic of consumedTopics) {
    const bounds = await log.bounds(topic);
    if (bounds.length !== partitionCounts.get(topic))
      throw new PartitionCountChangedError(`${topic} has ${bounds.length} partitions now`);
    for (const { partition, high } of bounds) {
      const lag = high - (next.get(partitionName({ topic, partition })) ?? 0n);
      metrics.lag.set({ consumergroup, topic, partition: String(partition) }, Math.max(0, Number(lag)));
    }
  }
};

/**
 * Builds the room-worker and starts it in order: database, log, intake, projection, enforcement, sweep, relay.
 * Waits for the database and the log, until `ending` says otherwise; LiveKit may be away. Rejects where waiting does not
 * help; the process is to end then.
 */
export const startWorker = async (settings: WorkerSettings, logger: Logger, ending: AbortSignal): Promise<Worker> => {
  const { database } = settings;
  const pool = createPool({
    url: database.url,
    maxConnections: database.maxConnections,
    applicationName: 'room-worker',
    onError: (error) => logger.warn({ err: error }, 'idle database connection failed'),
  });
  const store = createPostgresStore(pool);
  const metrics = createWorkerMetrics();
  const log = await openEventLog(settings, {
    clientId: 'room-worker',
    pool,
    writeLog: (level, message, { error, ...fields }) => logger[level]({ ...fields, err: error }, message),
  });
  const livekit = createRoomService({
    apiUrl: settings.livekit.apiUrl,
    key: settings.livekit.keys[0],
    timeoutMs: livekitTimeoutMs,
  });
  const partitionCounts = new Map<string, number>();
  let consumer: LogConsumer | undefined;

  const ops = createOpsServer({
    checks: {
      database: async () => void (await pool.query('select 1')),
      log: async () => {
        if (!consumer?.isReady()) throw new Error('the consumer is not ready');
      },
    },
    // Of one room, since there may be thousands.
    optionalChecks: { livekit: async () => void (await livekit.listRooms(['readiness'])) },
    metrics: metrics.registry,
    info: { service: 'room-worker', log: settings.log.kind },
    logger,
  });
  const opsUrl = await ops.listen({ host: settings.host, port: settings.opsPort });

  const prepare = async (): Promise<void> => {
    const applied = await migrate(database.directUrl);
    if (applied.length > 0) logger.info({ migrations: applied }, 'schema migrated');
    if (settings.log.kind === 'embedded') await prepareEmbeddedLog(pool, allTopics);
  };
  await untilReady('database', logger, prepare, ending);
  await untilReady(
    'log',
    logger,
    async () => {
      for (const topic of consumedTopics) {
        const { length } = await log.bounds(topic);
        partitionCounts.set(topic, length);
        await preparePositions(pool, activeProjection, topic, length);
      }
    },
    ending,
  );

  const intake = createWebhookIntake({ log, keys: settings.webhookKeys ?? settings.livekit.keys, metrics, logger });
  const intakeUrl = await intake.listen({ host: settings.host, port: settings.port });

  const reached: Positions = new Map();
  const seen: Positions = new Map();
  const gate = createLaneGate(store, log, activeProjection, { seen });
  const project = createProjector({
    store,
    projection: activeProjection,
    partitionCount: (topic) => partitionCounts.get(topic) ?? 1,
    metrics,
    logger,
  });
  consumer = log.consume({
    group: settings.consumerGroup,
    topics: consumedTopics,
    onBatch: noting(project, reached, seen),
    startAt: async (assigned) => {
      const positions = await readPositions(pool, activeProjection);
      noteReached(reached, positions);
      const isAssigned = (each: LogPartition): boolean =>
        assigned.some(({ topic, partition }) => topic === each.topic && partition === each.partition);
      return startPositions(positions.filter(isAssigned));
    },
  });
  const { unknownRooms, closingNoticeMs } = settings;
  const enforcement = startEnforcement({ store, livekit, gate, unknownRooms, closingNoticeMs, metrics, logger });
  const listener = listen(database.directUrl, marksChannel, enforcement.wake, (error) =>
    logger.warn({ err: error }, 'listening for marks failed'),
  );
  const sweep = startSweep({ store, log, livekit, intervalMs: settings.sweepIntervalMs, metrics, logger });
  const relay = startRelay({ pool, log, metrics, logger });
  const failure = Promise.withResolvers<never>();
  const { consumerGroup: consumergroup } = settings;
  const backlog = setInterval(
    () =>
      void gatherBacklog({ pool, log, consumer, consumergroup, partitionCounts, reached, gate, metrics, logger }).catch(
        (error: unknown) => {
          if (error instanceof PartitionCountChangedError) failure.reject(error);
        },
      ),
    backlogEveryMs,
  );
  const purging = setInterval(
    () =>
      void purge(pool).then(
        (purged) => logger.info({ ...purged }, 'purged'),
        (error: unknown) => logger.warn({ err: error }, 'purge failed'),
      ),
    purgeEveryMs,
  );
  logger.info({ intake: intakeUrl, ops: opsUrl, log: settings.log.kind }, 'room-worker is up');

  return {
    intakeUrl,
    opsUrl,
    failed: Promise.race([consumer.done, failure.promise]),
    stop: async () => {
      clearInterval(backlog);
      clearInterval(purging);
      await intake.close();
      await Promise.all([
        consumer.stop(settings.shutdownMs / 2),
        sweep.stop(),
        relay.stop(),
        enforcement.stop(),
        listener.stop(),
      ]);
      await log.close();
      await ops.close();
      await pool.end();
    },
  };
};
