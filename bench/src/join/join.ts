import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { createDatabase, freePort, PartAbsent, startLivekit, startPostgres } from '@realtime-service/dev-stack';
import { migrate, type Pool, preparePositions } from '@realtime-service/room-store';
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
import { ratioSpread, rotated } from '../statistics.ts';
import { createBenchPool, projectBatches } from '../worker/project-batches.ts';
import { consumedTopics, createBenchLog, partitionCount, projection } from '../worker/records.ts';
import { startBenchIssuer } from './issuer.ts';
import { type Caller, type LoadResult, putLoad } from './load.ts';

const membersWhoJoin = 4_000;
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
    script: 'bench/src/join/bare-server.ts',
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
  for (const topic of consumedTopics) await preparePositions(pool, projection, topic, partitionCount);
  const { seed, members } = createBenchLog(0);
  await projectBatches(pool, seed, 4);

  const issuer = await startBenchIssuer();
  const callers = await Promise.all(
    members
      .filter((_, at) => at % Math.ceil(members.length / membersWhoJoin) === 0)
      .map(async ({ roomId, userId }) => ({ roomId, token: await issuer.tokenOf(userId) })),
  );
  const env = {
    ...serviceEnv(databaseUrl, await livekitFor(say)),
    OIDC_ISSUER: issuer.issuer,
    RATE_LIMIT_USER_PER_MINUTE: '1000000',
    RATE_LIMIT_ADDRESS_PER_MINUTE: '100000000',
  };
  const sink = `http://127.0.0.1:${await startSink()}`;
  const api = await startService({ name: 'api', service: 'api', env, isPinned: true });
  const exporting = await startService({
    name: 'api-exporting',
    service: 'api',
    env: { ...env, OTEL_EXPORTER_OTLP_ENDPOINT: sink },
    isPinned: true,
  });
  const [first] = callers;
  if (first === undefined) throw new Error('nobody is a member');
  const answer = await joinOnce(api.url, first);
  const bare = await startBareSide(answer);
  const join = sideOf('join', api);
  const joinExporting = sideOf('join, spans exported', exporting);

  const sides = [bare, join, joinExporting];
  for (let round = 0; round < rounds; round += 1) {
    for (const side of rotated(sides, round)) {
      const result = await measure(side, callers, seconds, pool);
      side.results.push(result);
      say(`round ${round + 1}: ${lineOf(side.name, result)}`);
    }
  }
  for (const { part } of [api, exporting]) await part.stop();
  await pool.end();
  issuer.close();

  const perSecond = (side: Side) => side.results.map((result) => result.perSecond);
  const ratio = ratioSpread(perSecond(join), perSecond(bare));
  const ratioExporting = ratioSpread(perSecond(joinExporting), perSecond(bare));
  return {
    lines: [
      `${callers.length} callers of ${new Set(callers.map(({ roomId }) => roomId)).size} rooms, 64 connections, answers of ${answer.length} bytes, ${rounds} rounds of ${seconds} s`,
      ratioLine('join / bare', ratio),
      ratioLine('join with spans exported over OTLP / bare', ratioExporting),
    ],
    figures: {
      answerBytes: answer.length,
      ratio,
      ratioExporting,
      sides: Object.fromEntries(sides.map(({ name, results }) => [name, results])),
    },
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
