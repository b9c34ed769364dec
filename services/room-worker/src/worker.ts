import { setTimeout as delay } from 'node:timers/promises';
import { allTopics, consumedTopics } from '@realtime-service/contracts';
import { type EventLog, type LogConsumer, openEventLog, prepareEmbeddedLog } from '@realtime-service/event-log';
import { createRoomService } from '@realtime-service/livekit';
import {
  activeProjection,
  createPool,
  createPostgresStore,
  listen,
  marksChannel,
  migrate,
  PartitionCountChangedError,
  type Pool,
  preparePositions,
} from '@realtime-service/room-store';
import { createOpsServer, type Logger } from '@realtime-service/telemetry';
import { systemClock } from './clock.ts';
import type { WorkerSettings } from './config.ts';
import { startEnforcement } from './enforce.ts';
import { createLaneGate, type Positions } from './lane-gate.ts';
import { createWorkerMetrics } from './metrics.ts';
import { notingPositions, startPositionWatch, startsOf } from './position-watch.ts';
import { createProjector } from './project.ts';
import { startPurging } from './purging.ts';
import { startRelay } from './relay.ts';
import { startSweep } from './sweep.ts';
import { createWebhookIntake } from './webhook-intake.ts';

/** The relay holds one while the embedded log, which listens by another, writes by a third; and one for the rest. */
const fewestConnections = 4;
const livekitTimeoutMs = 2_000;
const retryStartMs = 500;

export interface Worker {
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

interface Dependencies {
  readonly pool: Pool;
  readonly log: EventLog;
  readonly logger: Logger;
}

/** Waits for the database and the log, and makes ready what is read from them. Answers the topics' partition counts. */
const prepare = async (
  { database, log: { kind } }: WorkerSettings,
  { pool, log, logger }: Dependencies,
  ending: AbortSignal,
): Promise<Map<string, number>> => {
  const partitionCounts = new Map<string, number>();
  const prepareDatabase = async (): Promise<void> => {
    const applied = await migrate(database.directUrl, ending);
    if (applied.length > 0) logger.info({ migrations: applied }, 'schema migrated');
    if (kind === 'embedded') await prepareEmbeddedLog(pool, allTopics);
  };
  const preparePartitions = async (): Promise<void> => {
    for (const topic of consumedTopics) {
      const { length } = await log.bounds(topic);
      partitionCounts.set(topic, length);
      await preparePositions(pool, activeProjection, topic, length);
    }
  };
  await untilReady('database', logger, prepareDatabase, ending);
  await untilReady('log', logger, preparePartitions, ending);
  return partitionCounts;
};

/**
 * Builds the room-worker and starts it in order: database, log, intake, projection, enforcement, sweep, relay. Waits
 * for the database and the log, until `ending` says otherwise; LiveKit may be away. Rejects where waiting does not
 * help; the process is to end then.
 */
export const startWorker = async (settings: WorkerSettings, logger: Logger, ending: AbortSignal): Promise<Worker> => {
  const { database } = settings;
  const pool = createPool({
    url: database.url,
    maxConnections: Math.max(database.maxConnections, fewestConnections),
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

  const partitionCounts = await prepare(settings, { pool, log, logger }, ending);
  const intake = createWebhookIntake({ log, keys: settings.webhookKeys ?? settings.livekit.keys, metrics, logger });
  const intakeUrl = await intake.listen({ host: settings.host, port: settings.port });

  const seenByWatch: Positions = new Map();
  const seenByGate: Positions = new Map();
  const gate = createLaneGate(store, log, { seen: seenByGate });
  const project = createProjector({
    store,
    partitionCount: (topic) => partitionCounts.get(topic) ?? 1,
    metrics,
    logger,
  });
  consumer = log.consume({
    group: settings.consumerGroup,
    topics: consumedTopics,
    onBatch: notingPositions(project, seenByWatch, seenByGate),
    startAt: (assigned) => startsOf({ pool, seen: seenByWatch, gate }, assigned),
  });
  const clock = systemClock;
  const { unknownRooms, closingNoticeMs } = settings;
  const enforcement = startEnforcement({ store, livekit, gate, unknownRooms, closingNoticeMs, clock, metrics, logger });
  const listener = listen(database.directUrl, marksChannel, enforcement.wake, (error) =>
    logger.warn({ err: error }, 'listening for marks failed'),
  );
  const sweep = startSweep({ store, log, livekit, intervalMs: settings.sweepIntervalMs, clock, metrics, logger });
  const relay = startRelay({ pool, log, metrics, logger });
  const watch = startPositionWatch({
    pool,
    log,
    consumer,
    consumergroup: settings.consumerGroup,
    partitionCounts,
    seen: seenByWatch,
    gate,
    metrics,
    logger,
  });
  const purging = startPurging({ pool, logger });
  logger.info({ intake: intakeUrl, ops: opsUrl, log: settings.log.kind }, 'room-worker is up');

  return {
    opsUrl,
    failed: Promise.race([consumer.done, watch.failed]),
    stop: async () => {
      watch.stop();
      purging.stop();
      listener.stop();
      await intake.close();
      await Promise.all([consumer.stop(settings.shutdownMs / 2), sweep.stop(), relay.stop(), enforcement.stop()]);
      await log.close();
      await ops.close();
      await pool.end();
    },
  };
};
