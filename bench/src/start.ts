import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createDatabase, runDirectory, startPostgres } from '@realtime-service/dev-stack';
import { migrate } from '@realtime-service/room-store';
import type { Benchmark, Effort, Findings } from './benchmark.ts';
import { figure, range } from './format.ts';
import { startBenchIssuer } from './join/issuer.ts';
import { livekitKey, type ServiceSpec, serviceEnv, startService } from './processes.ts';
import { spreadOf } from './statistics.ts';

interface Started {
  readonly readyMs: number;
  readonly residentMb: number;
}

const services = ['api', 'room-worker'] as const;

/** Started by hand, and as the Dockerfile and `npm start` do. The first start of the latter fills the cache. */
const settingsOf = (cacheDirectory: string): Readonly<Record<string, Readonly<Record<string, string>>>> => ({
  'by hand': {},
  'as shipped': { NODE_COMPILE_CACHE: cacheDirectory },
});

const measureStart = async (spec: ServiceSpec, idleSeconds: number): Promise<Started> => {
  const startedAtMs = performance.now();
  const service = await startService(spec);
  const readyMs = performance.now() - startedAtMs;
  await delay(idleSeconds * 1000);
  const { residentBytes } = await service.metrics();
  await service.part.stop();
  return { readyMs, residentMb: residentBytes / 1e6 };
};

const run = async ({ seconds, rounds }: Effort, say: (line: string) => void): Promise<Findings> => {
  const databaseUrl = await createDatabase((await startPostgres()).url);
  await migrate(databaseUrl);
  const issuer = await startBenchIssuer();
  const env = {
    ...serviceEnv(databaseUrl, { url: 'ws://127.0.0.1:9', keys: `${livekitKey.name}: ${livekitKey.secret}` }),
    OIDC_ISSUER: issuer.issuer,
  };
  const variants = Object.entries(settingsOf(join(runDirectory('compile-cache'), 'cache')));
  const starts = new Map<string, Started[]>();
  for (let round = 0; round <= rounds; round += 1) {
    for (const service of services) {
      for (const [settings, more] of variants) {
        const started = await measureStart(
          { name: service, service, env: { ...env, ...more }, isPinned: false },
          seconds,
        );
        // The first round fills the cache of stripped sources.
        if (round === 0) continue;
        const name = `${service}, ${settings}`;
        starts.set(name, [...(starts.get(name) ?? []), started]);
        say(`start ${round}: ${lineOf(name, started)} after ${seconds} s`);
      }
    }
  }
  issuer.close();
  const figures = Object.fromEntries(
    [...starts].map(([name, all]) => [
      name,
      {
        readyMs: spreadOf(all.map(({ readyMs }) => readyMs)),
        residentMb: spreadOf(all.map(({ residentMb }) => residentMb)),
      },
    ]),
  );
  return {
    lines: Object.entries(figures).map(
      ([name, { readyMs, residentMb }]) =>
        `${name.padEnd(30)}ready after ${range(readyMs)} ms, resident ${range(residentMb)} MB`,
    ),
    figures,
  };
};

const lineOf = (name: string, { readyMs, residentMb }: Started): string =>
  `${name.padEnd(30)}ready after ${figure(readyMs)} ms, ${figure(residentMb)} MB`;

export const start: Benchmark = {
  summary: 'from a database that is ready to a service that is, and its memory when idle',
  defaults: { seconds: 10, rounds: 5 },
  run,
};
