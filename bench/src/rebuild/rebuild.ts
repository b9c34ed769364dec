import { execFile } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { allTopics, topics } from '@realtime-service/contracts';
import { createDatabase, startPostgres } from '@realtime-service/dev-stack';
import { createEmbeddedLog, prepareEmbeddedLog } from '@realtime-service/event-log';
import {
  activeProjection,
  createPostgresStore,
  migrate,
  type Pool,
  preparePositions,
  readPositions,
} from '@realtime-service/room-store';
import { createProjector, createWorkerMetrics } from '@realtime-service/room-worker';
import { createLogger } from '@realtime-service/telemetry';
import type { Benchmark, Effort, Findings } from '../benchmark.ts';
import { figure } from '../format.ts';
import { spreadOf } from '../statistics.ts';
import { createBenchPool } from '../worker/project-batches.ts';
import { partitionCount } from '../worker/records.ts';
import { writeHistory } from './history.ts';

const topic = topics.roomEvents;
const command = fileURLToPath(new URL('../../../services/cli/src/main.ts', import.meta.url));

/** What `realtime rebuild --json` tells. */
interface Rebuilt {
  readonly events: number;
  readonly seconds: number;
  readonly heldMs: number;
  readonly peakMemoryMb: number;
}

/** Has the room-worker's projector apply the whole log, as it does every day. */
const applyAll = async (pool: Pool): Promise<void> => {
  const log = createEmbeddedLog({ pool, writeLog: () => undefined });
  const ends = new Map((await log.bounds(topic)).map(({ partition, high }) => [partition, high]));
  const consumer = log.consume({
    group: 'bench',
    topics: [topic],
    onBatch: createProjector({
      store: createPostgresStore(pool),
      partitionCount: () => partitionCount,
      metrics: createWorkerMetrics(),
      logger: createLogger({ service: 'bench', level: 'fatal' }),
    }),
    concurrency: 4,
  });
  const isApplied = async (): Promise<boolean> =>
    (await readPositions(pool, activeProjection)).every(
      ({ partition, nextOffset }) => nextOffset === ends.get(partition),
    );
  while (!(await isApplied())) await Promise.race([consumer.done, delay(500)]);
  await consumer.stop(5_000);
  await log.close();
};

const tables = ['rooms', 'members', 'users', 'ended_logins', 'suspects', 'bans'] as const;

/** Digests of all rows, byte for byte. Rows that are there only to be locked are left out. */
const stateOf = async (pool: Pool): Promise<string> => {
  const digests: unknown[] = [];
  for (const from of [...tables.map((name) => `${name} as row where event_id is not null`), 'applied_facts as row']) {
    const { rows } = await pool.query(
      `select count(*), md5(string_agg(digest, '' order by digest)) from (select md5(row::text) as digest from ${from})`,
    );
    digests.push(rows);
  }
  return JSON.stringify(digests);
};

const rebuildOnce = async (databaseUrl: string): Promise<Rebuilt> => {
  const env = { ...process.env, DATABASE_URL: databaseUrl, NODE_ENV: 'test', NODE_OPTIONS: '' };
  const { stdout } = await promisify(execFile)(process.execPath, [command, 'rebuild', '--json'], {
    env,
    maxBuffer: 2 ** 26,
  });
  return JSON.parse(stdout) as Rebuilt;
};

const run = async ({ seconds, rounds }: Effort, say: (line: string) => void): Promise<Findings> => {
  const count = seconds * 10_000;
  // As durable as in production; dev-stack's own default is not.
  const server = await startPostgres({ settings: { fsync: 'on', full_page_writes: 'on', max_wal_size: '4GB' } });
  const databaseUrl = await createDatabase(server.url);
  await migrate(databaseUrl);
  const pool = createBenchPool(databaseUrl, 12);
  await prepareEmbeddedLog(pool, allTopics, partitionCount);
  await preparePositions(pool, activeProjection, topic, partitionCount);
  await writeHistory(pool, count, partitionCount);
  say(`${count} events are in the log; the projector applies them first`);
  await applyAll(pool);
  const before = await stateOf(pool);
  const rebuilds: Rebuilt[] = [];
  const isIdentical: boolean[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const rebuilt = await rebuildOnce(databaseUrl);
    rebuilds.push(rebuilt);
    isIdentical.push((await stateOf(pool)) === before);
    say(
      `round ${round + 1}: ${figure(rebuilt.events / rebuilt.seconds)} events/s, ${rebuilt.peakMemoryMb} MB, tables held for ${figure(rebuilt.heldMs)} ms, identical: ${isIdentical.at(-1) ? 'yes' : 'NO'}`,
    );
  }
  await pool.end();
  const rate = spreadOf(rebuilds.map((each) => each.events / each.seconds));
  return {
    lines: [
      `rebuild of ${count} events, ${rounds} rounds, embedded log, PostgreSQL with fsync`,
      `${figure(rate.median)} events/s (${figure(rate.min)} to ${figure(rate.max)})`,
      `peak memory ${Math.max(...rebuilds.map(({ peakMemoryMb }) => peakMemoryMb))} MB`,
      `identical: ${isIdentical.every(Boolean) ? 'yes' : 'NO'}`,
    ],
    figures: { events: count, rebuilds, isIdentical },
  };
};

export const rebuild: Benchmark = {
  summary: 'a rebuild of all tables from the log, and whether they come out identical',
  defaults: { seconds: 100, rounds: 1 },
  run,
};
