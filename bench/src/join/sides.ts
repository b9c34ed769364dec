import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { allTopics, consumedTopics } from '@realtime-service/contracts';
import { createDatabase, freePort, PartAbsent, startLivekit, startPostgres } from '@realtime-service/dev-stack';
import { prepareEmbeddedLog } from '@realtime-service/event-log';
import { activeProjection, migrate, type Pool, preparePositions } from '@realtime-service/room-store';
import type { Request } from 'autocannon';
import type { Effort, Findings } from '../benchmark.ts';
import { figure, ratioLine } from '../format.ts';
import { type LivekitEnv, livekitKey, type Service, startServer } from '../processes.ts';
import { ratioSpread, rotated, type Spread } from '../statistics.ts';
import { createBenchPool, projectBatches } from '../worker/project-batches.ts';
import { createBenchLog, partitionCount } from '../worker/records.ts';
import { type LoadResult, putLoad } from './load.ts';

/** Of 100 rooms. */
const measuredMembers = 800;
const warmUpSeconds = 3;

/** What is measured: a server, and what it did meanwhile. */
export interface Side {
  readonly name: string;
  readonly url: string;
  readonly cpuSeconds: () => Promise<number>;
  readonly results: RoundResult[];
}

interface RoundResult extends LoadResult {
  /** Share of a core that the server used. */
  readonly cpu: number;
  /** Answers per transaction of the database: how many decisions shared a query. */
  readonly perTransaction: number;
}

/** A database in which 1,000 rooms are projected, by the worker's own projector. */
export const projectRooms = async () => {
  const databaseUrl = await createDatabase((await startPostgres()).url);
  await migrate(databaseUrl);
  const pool = createBenchPool(databaseUrl, 4);
  await prepareEmbeddedLog(pool, allTopics, partitionCount);
  for (const topic of consumedTopics) await preparePositions(pool, activeProjection, topic, partitionCount);
  const { seed, members } = createBenchLog(0);
  await projectBatches(pool, seed, 4);
  // As if the log held it: one that ends before what was applied is another one, to an api.
  await pool.query(
    `update log_heads set next_offset = position.next_offset from log_positions as position
      where position.topic = log_heads.topic and position."partition" = log_heads.partition`,
  );
  return { databaseUrl, pool, members: members.slice(0, measuredMembers) };
};

export const livekitFor = async (say: (line: string) => void): Promise<LivekitEnv> => {
  const keys = `${livekitKey.name}: ${livekitKey.secret}`;
  try {
    const { url } = await startLivekit({ keys: { [livekitKey.name]: livekitKey.secret }, report: say });
    say('LiveKit: a real one makes the rooms');
    return { url, keys };
  } catch (error) {
    if (!(error instanceof PartAbsent)) throw error;
    say(`LiveKit: a stub that answers {} stands in for it, on the load's core (${error.missing})`);
    return { url: `ws://127.0.0.1:${await startSink()}`, keys };
  }
};

/** Takes whatever is posted and answers `{}`: LiveKit's API where there is none, and the collector of traces. */
export const startSink = async (): Promise<number> => {
  const server: Server = createServer((request, response) => {
    request.resume();
    request.on('end', () => response.setHeader('content-type', 'application/json').end('{}'));
  });
  server.listen(0, '127.0.0.1');
  server.unref();
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
};

const committed = async (pool: Pool): Promise<number> => {
  const { rows } = await pool.query<{ count: string }>(
    'select xact_commit as count from pg_stat_database where datname = current_database()',
  );
  return Number(rows[0]?.count);
};

const measure = async (side: Side, requests: readonly Request[], seconds: number, pool: Pool): Promise<RoundResult> => {
  // The tokens are known and the code is warm, as they are in a server that runs.
  await putLoad(side.url, requests, warmUpSeconds);
  const [cpuBefore, committedBefore] = [await side.cpuSeconds(), await committed(pool)];
  const load = await putLoad(side.url, requests, seconds);
  const cpu = ((await side.cpuSeconds()) - cpuBefore) / seconds;
  // Backends report what they did once a second at most.
  await delay(1_200);
  const perTransaction = (load.perSecond * seconds) / ((await committed(pool)) - committedBefore);
  return { ...load, cpu, perTransaction };
};

export const sideOf = (name: string, { url, metrics }: Service): Side => ({
  name,
  url,
  cpuSeconds: async () => (await metrics()).cpuSeconds,
  results: [],
});

export const startBareSide = async (answer: string): Promise<Side> => {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  await startServer({
    name: 'bare',
    script: fileURLToPath(new URL('./bare-server.ts', import.meta.url)),
    env: { PORT: String(port), ANSWER: answer },
    readyUrl: `${url}/ready`,
    isPinned: true,
  });
  return {
    name: 'bare',
    url,
    cpuSeconds: async () => Number(await (await fetch(`${url}/cpu-seconds`)).text()),
    results: [],
  };
};

/**
 * Two views of one thing: where the load cannot keep a server busy, or others use its core, only the processor time
 * that an answer costs tells the servers apart.
 */
const ratiosOf = (side: Side, bare: Side): { readonly perSecond: Spread; readonly cpu: Spread } => {
  const perSecond = ({ results }: Side): number[] => results.map((result) => result.perSecond);
  const perCpuSecond = ({ results }: Side): number[] => results.map((result) => result.perSecond / result.cpu);
  return {
    perSecond: ratioSpread(perSecond(side), perSecond(bare)),
    cpu: ratioSpread(perCpuSecond(side), perCpuSecond(bare)),
  };
};

const lineOf = (name: string, { perSecond, p50Ms, p99Ms, cpu, perTransaction }: RoundResult): string =>
  `${name.padEnd(22)}${figure(perSecond)}/s  p50 ${figure(p50Ms)} ms  p99 ${figure(p99Ms)} ms  ${figure((cpu / perSecond) * 1e6)} µs of its core each (${figure(cpu * 100)} %)` +
  (name.startsWith('bare') ? '' : `  ${figure(perTransaction)} decisions per transaction`);

interface Rounds extends Effort {
  readonly bare: Side;
  readonly sides: readonly Side[];
  readonly requests: readonly Request[];
  readonly pool: Pool;
  readonly say: (line: string) => void;
}

/** Measures each side in each round, and holds it against the bare route. */
export const measureSides = async ({ bare, sides, requests, pool, say, ...effort }: Rounds): Promise<Findings> => {
  const all = [bare, ...sides];
  for (let round = 0; round < effort.rounds; round += 1) {
    for (const side of rotated(all, round)) {
      const result = await measure(side, requests, effort.seconds, pool);
      side.results.push(result);
      say(`round ${round + 1}: ${lineOf(side.name, result)}`);
    }
  }
  const ratios = Object.fromEntries(sides.map((side) => [side.name, ratiosOf(side, bare)]));
  return {
    lines: Object.entries(ratios).flatMap(([name, { perSecond, cpu }]) => [
      ratioLine(`${name} / bare, answers per second`, perSecond),
      ratioLine(`${name} / bare, answers per second of processor time`, cpu),
    ]),
    figures: { ratios, sides: Object.fromEntries(all.map(({ name, results }) => [name, results])) },
  };
};
