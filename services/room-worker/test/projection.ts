import { allTopics, consumedTopics, partitionName } from '@realtime-service/contracts';
import { createDatabase, until } from '@realtime-service/dev-stack';
import { realParts } from '@realtime-service/dev-stack/vitest';
import {
  createEmbeddedLog,
  type EventLog,
  type LogBatch,
  type NewRecord,
  prepareEmbeddedLog,
} from '@realtime-service/event-log';
import { authorise, type Request } from '@realtime-service/room-model';
import {
  activeProjection,
  createPool,
  createPostgresStore,
  migrate,
  type Pool,
  preparePositions,
  type RoomStore,
  readFacts,
  readPositions,
} from '@realtime-service/room-store';
import { createLogger, type Logger } from '@realtime-service/telemetry';
import { createWorkerMetrics, type WorkerMetrics } from '../src/metrics.ts';
import { createProjector } from '../src/project.ts';
import { binaryRecord, partitionCount } from './records.ts';

/** A database with an embedded log of its own in it, and the parts of the worker that need nothing else. */
export interface TestProjection {
  readonly url: string;
  readonly pool: Pool;
  readonly store: RoomStore;
  readonly log: EventLog;
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
  /** What was logged, as lines of JSON. */
  readonly lines: readonly string[];
  readonly project: ReturnType<typeof createProjector>;
  readonly append: (...records: readonly NewRecord[]) => Promise<void>;
  /** Appends room events, each with an id of its own. */
  readonly publish: (...events: readonly RoomFact[]) => Promise<void>;
  /** Appends one after another, and resolves when all of it is applied. */
  readonly tell: (...records: readonly NewRecord[]) => Promise<void>;
  /** Starts applying what is appended. */
  readonly consume: () => void;
  /** Resolves when all that was appended is applied. */
  readonly caughtUp: () => Promise<void>;
  /** `allow`, or why not. */
  readonly ask: (purpose: Request['purpose'], roomId: string, userId: string) => Promise<string>;
  readonly stop: () => Promise<void>;
}

/** A room event in short: type, subject, data. */
export type RoomFact = readonly [type: string, subject: string, data?: object];

let published = 0;

export const roomRecord = ([type, subject, data = {}]: RoomFact): NewRecord => {
  published += 1;
  return binaryRecord({ id: `published-${published}`, type, subject }, data);
};

export const startProjection = async (): Promise<TestProjection> => {
  const url = await createDatabase(realParts(['postgres']).postgres.url);
  await migrate(url);
  const lines: string[] = [];
  const logger = createLogger({
    service: 'test',
    level: 'debug',
    destination: { write: (line) => void lines.push(line) },
  });
  const metrics = createWorkerMetrics();
  const pool = createPool({ url, maxConnections: 20, applicationName: 'test', onError: () => undefined });
  await prepareEmbeddedLog(pool, allTopics, partitionCount);
  for (const topic of consumedTopics) await preparePositions(pool, activeProjection, topic, partitionCount);
  const log = createEmbeddedLog({ pool, writeLog: () => undefined });
  const store = createPostgresStore(pool);
  const project = createProjector({
    store,
    partitionCount: () => partitionCount,
    metrics,
    logger,
  });
  let consumer: ReturnType<EventLog['consume']> | undefined;

  const append = async (...records: readonly NewRecord[]): Promise<void> => {
    await log.append(records, 5_000);
  };
  const isCaughtUp = async (): Promise<boolean> => {
    const next = new Map(
      (await readPositions(pool, activeProjection)).map((each) => [partitionName(each), each.nextOffset]),
    );
    for (const topic of consumedTopics)
      for (const { partition, high } of await log.bounds(topic))
        if (next.get(partitionName({ topic, partition })) !== high) return false;
    return true;
  };
  const caughtUp = async (): Promise<void> => {
    await until('what was appended is applied', isCaughtUp);
  };
  return {
    url,
    pool,
    store,
    log,
    metrics,
    logger,
    lines,
    project,
    append,
    publish: (...events) => append(...events.map(roomRecord)),
    consume: () => {
      consumer = log.consume({ group: 'test', topics: consumedTopics, onBatch: project });
    },
    caughtUp,
    tell: async (...records) => {
      for (const record of records) await append(record);
      await caughtUp();
    },
    ask: async (purpose, roomId, userId) => {
      const [answer] = await readFacts(pool, [{ roomId, userId, loginId: null }]);
      if (answer === undefined) throw new Error('facts were not answered');
      const request = { purpose, identity: userId, dueIdentity: userId, takeOver: false, loginEndsAtMs: null };
      const verdict = authorise(answer.facts, request, answer.nowMs);
      return verdict.kind === 'allow' ? 'allow' : verdict.reason;
    },
    stop: async () => {
      await consumer?.stop(5_000);
      await log.close();
      await pool.end();
    },
  };
};

/** The whole of one partition as one batch, as a consumer that starts anew would fetch it. */
export const readBatch = async (
  { pool }: Pick<TestProjection, 'pool'>,
  topic: string,
  partition: number,
): Promise<LogBatch> => {
  const { rows } = await pool.query(
    `select "offset", extract(epoch from appended_at)::float8 * 1000 as at, key, value, headers from log_records
      where topic = $1 and partition = $2 order by "offset"`,
    [topic, partition],
  );
  const records = rows.map(({ offset, at, key, value, headers }) => ({
    topic,
    partition,
    offset: BigInt(offset),
    timestampMs: Math.floor(at),
    key,
    value,
    headers: Object.fromEntries(
      Object.entries(headers as Record<string, string>).map(([name, text]) => [name, Buffer.from(text, 'base64')]),
    ),
  }));
  const nextOffset = BigInt(records.length);
  return { topic, partition, fetchedOffset: 0n, nextOffset, records, heartbeat: async () => true };
};
