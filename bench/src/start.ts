import { setTimeout as delay } from 'node:timers/promises';
import { createDatabase, startPostgres } from '@realtime-service/dev-stack';
import { migrate } from '@realtime-service/room-store';
import type { Benchmark, Effort, Findings } from './benchmark.ts';
import { figure } from './format.ts';
import { startBenchIssuer } from './join/issuer.ts';
import { livekitKey, type ServiceSpec, serviceEnv, startService } from './processes.ts';
import { type Spread, spreadOf } from './statistics.ts';

interface Started {
  readonly readyMs: number;
  readonly residentMb: number;
}

const services = ['api', 'room-worker'] as const;

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
  const starts: Record<(typeof services)[number], Started[]> = { api: [], 'room-worker': [] };
  for (let round = 0; round < rounds; round += 1) {
    for (const service of services) {
      const started = await measureStart({ name: service, service, env, isPinned: false }, seconds);
      starts[service].push(started);
      say(
        `start ${round + 1}: ${service.padEnd(12)}ready after ${figure(started.readyMs)} ms, ${figure(started.residentMb)} MB after ${seconds} s`,
      );
    }
  }
  issuer.close();
  const figures = Object.fromEntries(
    services.map((service) => [
      service,
      {
        readyMs: spreadOf(starts[service].map(({ readyMs }) => readyMs)),
        residentMb: spreadOf(starts[service].map(({ residentMb }) => residentMb)),
      },
    ]),
  );
  return {
    lines: Object.entries(figures).map(
      ([name, { readyMs, residentMb }]) =>
        `${name.padEnd(12)}ready after ${range(readyMs)} ms, resident ${range(residentMb)} MB`,
    ),
    figures,
  };
};

const range = ({ min, median, max }: Spread): string => `${figure(median)} (${figure(min)} to ${figure(max)})`;

export const start: Benchmark = {
  summary: 'from a database that is ready to a service that is, and its memory when idle',
  defaults: { seconds: 10, rounds: 5 },
  run,
};
