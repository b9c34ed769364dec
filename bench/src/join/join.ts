import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createDatabase, freePort, PartAbsent, startLivekit, startPostgres } from '@realtime-service/dev-stack';
import { activeProjection, migrate, type Pool, preparePositions } from '@realtime-service/room-store';
import type { Benchmark, Effort, Findings } from '../benchmark.ts';
import { figure, ratioLine } from '../format.ts';
import {
  canPin,
  type LivekitEnv,
  leaveServerCore,
  livekitKey,
  type Service,
  serviceEnv,
  startServer,
  startService,
} from '../processes.ts';
import { ratioSpread, rotated, type Spread } from '../statistics.ts';
import { createBenchPool, projectBatches } from '../worker/project-batches.ts';
import { consumedTopics, createBenchLog, partitionCount } from '../worker/records.ts';
import { startBenchIssuer } from './issuer.ts';
import { type Caller, type LoadResult, putLoad } from './load.ts';

const membersWhoJoin = 800;
const warmUpSeconds = 3;

/** What is measured: a server, and what it did meanwhile. */
interface Side {
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

const livekitFor = async (say: (line: string) => void): Promise<LivekitEnv> => {
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
const startSink = async (): Promise<number> => {
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

const measure = async (side: Side, callers: readonly Caller[], seconds: number, pool: Pool): Promise<RoundResult> => {
  // The tokens are known and the code is warm, as they are in a server that runs.
  await putLoad(side.url, callers, warmUpSeconds);
  const [cpuBefore, committedBefore] = [await side.cpuSeconds(), await committed(pool)];
  const load = await putLoad(side.url, callers, seconds);
  const cpu = ((await side.cpuSeconds()) - cpuBefore) / seconds;
  // Backends report what they did once a second at most.
  await delay(1_200);
  const perTransaction = (load.perSecond * seconds) / ((await committed(pool)) - committedBefore);
  return { ...load, cpu, perTransaction };
};

const sideOf = (name: string, { url, metrics }: Service): Side => ({
  name,
  url,
  cpuSeconds: async () => (await metrics()).cpuSeconds,
  results: [],
});

const startBareSide = async (answer: string): Promise<Side> => {
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

const joinOnce = async (url: string, { roomId, token }: Caller): Promise<string> => {
  const response = await fetch(`${url}/api/realtime/rooms/${roomId}/join`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
  });
  const body = await response.text();
  if (response.status !== 200) throw new Error(`the join answered ${response.status}: ${body}`);
  return body;
};

const run = async ({ seconds, rounds }: Effort, say: (line: string) => void): Promise<Findings> => {
  leaveServerCore();
  say(canPin ? 'each server has core 0, all else core 1' : 'no taskset: nothing is held to a core');
  const databaseUrl = await createDatabase((await startPostgres()).url);
  await migrate(databaseUrl);
  const pool = createBenchPool(databaseUrl, 4);
  for (const topic of consumedTopics) await preparePositions(pool, activeProjection, topic, partitionCount);
  const { seed, members } = createBenchLog(0);
  await projectBatches(pool, seed, 4);

  const issuer = await startBenchIssuer();
  const callers = await Promise.all(
    members
      .slice(0, membersWhoJoin)
      .map(async ({ roomId, userId }) => ({ roomId, token: await issuer.tokenOf(userId) })),
  );
  const env = {
    ...serviceEnv(databaseUrl, await livekitFor(say)),
    OIDC_ISSUER: issuer.issuer,
    RATE_LIMIT_USER_PER_MINUTE: '1000000',
    RATE_LIMIT_ADDRESS_PER_MINUTE: '100000000',
  };
  const collector = `http://127.0.0.1:${await startSink()}`;
  const startApi = (name: string, more: Readonly<Record<string, string>> = {}): Promise<Service> =>
    startService({ name, service: 'api', env: { ...env, ...more }, isPinned: true });
  const api = await startApi('api');
  const exporting = await startApi('api-exporting', { OTEL_EXPORTER_OTLP_ENDPOINT: collector });
  const withoutRooms = await startApi('api-without-rooms', { LIVEKIT_MAKE_ROOMS: 'false' });
  const [first] = callers;
  if (first === undefined) throw new Error('nobody is a member');
  const answer = await joinOnce(api.url, first);
  const bare = await startBareSide(answer);
  const joins = [
    sideOf('join', api),
    sideOf('join, spans exported', exporting),
    sideOf('join, makes no rooms', withoutRooms),
  ];

  const sides = [bare, ...joins];
  for (let round = 0; round < rounds; round += 1) {
    for (const side of rotated(sides, round)) {
      const result = await measure(side, callers, seconds, pool);
      side.results.push(result);
      say(`round ${round + 1}: ${lineOf(side.name, result)}`);
    }
  }
  for (const { part } of [api, exporting, withoutRooms]) await part.stop();
  await pool.end();
  issuer.close();

  const ratios = Object.fromEntries(joins.map((side) => [side.name, ratiosOf(side, bare)]));
  return {
    lines: [
      `${callers.length} callers of ${new Set(callers.map(({ roomId }) => roomId)).size} rooms, 64 connections, answers of ${answer.length} bytes, ${rounds} rounds of ${seconds} s`,
      ...Object.entries(ratios).flatMap(([name, { perSecond, cpu }]) => [
        ratioLine(`${name} / bare, answers per second`, perSecond),
        ratioLine(`${name} / bare, answers per second of processor time`, cpu),
      ]),
    ],
    figures: {
      answerBytes: answer.length,
      ratios,
      sides: Object.fromEntries(sides.map(({ name, results }) => [name, results])),
    },
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
  (name.startsWith('bare') ? '' : `  ${figure(perTransaction)} joins per transaction`);

export const join: Benchmark = {
  summary: 'a join against a bare Fastify route of the same answer',
  defaults: { seconds: 8, rounds: 5 },
  run,
};
