import { setTimeout as delay } from 'node:timers/promises';
import { allTopics } from '@realtime-service/contracts';
import { createDatabase, startKafka, startPostgres } from '@realtime-service/dev-stack';
import type { NewRecord } from '@realtime-service/event-log';
import { createKafkaLog } from '@realtime-service/event-log/kafka';
import { migrate } from '@realtime-service/room-store';
import type { Benchmark, Effort, Findings } from './benchmark.ts';
import { factOf } from './fact.ts';
import { figure, range } from './format.ts';
import { startBenchIssuer } from './join/issuer.ts';
import { livekitKey, serviceEnv, startService } from './processes.ts';
import { spreadOf } from './statistics.ts';

const eventsPerSecond = 200;
const everyMs = 1000 / eventsPerSecond;
/** Of so many events one is waited for by the person whom it admits. */
const sampleEvery = 10;
const appendWithinMs = 5_000;
const visibleWithinMs = 10_000;
const roomCount = 100;
const warmUpSeconds = 3;

const roomOf = (at: number): string => `room-${at % roomCount}`;
const added = (at: number): NewRecord => factOf('member.added', roomOf(at), { userId: `user-${at}`, role: 'speaker' });

const run = async ({ seconds, rounds }: Effort, say: (line: string) => void): Promise<Findings> => {
  const databaseUrl = await createDatabase((await startPostgres()).url);
  await migrate(databaseUrl);
  const kafka = await startKafka({ report: say });
  await kafka.createTopics(allTopics.map((topic) => ({ topic, partitions: 12 })));
  const issuer = await startBenchIssuer();
  const env = {
    ...serviceEnv(databaseUrl, { url: 'ws://127.0.0.1:9', keys: `${livekitKey.name}: ${livekitKey.secret}` }),
    KAFKA_BROKERS: kafka.brokers.join(),
    OIDC_ISSUER: issuer.issuer,
    LIVEKIT_MAKE_ROOMS: 'false',
    RATE_LIMIT_USER_PER_MINUTE: '1000000',
    RATE_LIMIT_ADDRESS_PER_MINUTE: '100000000',
  };
  const worker = await startService({ name: 'room-worker', service: 'room-worker', env, isPinned: false });
  const api = await startService({ name: 'api', service: 'api', env, isPinned: false });
  const log = createKafkaLog({ brokers: kafka.brokers, clientId: 'bench', writeLog: () => undefined });
  const append = (records: readonly NewRecord[]) => log.append(records, appendWithinMs);
  await append(Array.from({ length: roomCount }, (_, at) => factOf('room.created', roomOf(at), {})));

  /** From the broker's acknowledgement to the first answer that admits, a join's own time included. */
  const waitFor = async (at: number): Promise<number> => {
    const headers = { authorization: `Bearer ${await issuer.tokenOf(`user-${at}`)}` };
    await append([added(at)]);
    const acknowledgedAtMs = performance.now();
    for (;;) {
      const response = await fetch(`${api.url}/api/realtime/rooms/${roomOf(at)}/join`, {
        method: 'POST',
        headers,
      });
      await response.arrayBuffer();
      const tookMs = performance.now() - acknowledgedAtMs;
      if (response.status === 200) return tookMs;
      if (tookMs > visibleWithinMs) throw new Error(`a fact shows nowhere: the join answers ${response.status}`);
    }
  };

  let next = 0;
  const measure = async (forSeconds: number): Promise<number[]> => {
    const samples: Promise<number>[] = [];
    const others: Promise<unknown>[] = [];
    const startedAtMs = performance.now();
    for (let at = 0; at * everyMs < forSeconds * 1000; at += 1, next += 1) {
      await delay(Math.max(0, startedAtMs + at * everyMs - performance.now()));
      if (at % sampleEvery === 0) samples.push(waitFor(next));
      else others.push(append([added(next)]));
    }
    await Promise.all(others);
    return (await Promise.all(samples)).sort((a, b) => a - b);
  };

  await measure(warmUpSeconds);
  const found: { readonly p50Ms: number; readonly p99Ms: number }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const tookMs = await measure(seconds);
    const percentile = (share: number): number => tookMs[Math.floor(tookMs.length * share)] ?? Number.NaN;
    found.push({ p50Ms: percentile(0.5), p99Ms: percentile(0.99) });
    say(
      `round ${round + 1}: p50 ${figure(percentile(0.5))} ms, p99 ${figure(percentile(0.99))} ms of ${tookMs.length}`,
    );
  }
  await log.close();
  await Promise.all([api.part.stop(), worker.part.stop()]);
  await kafka.stop();
  issuer.close();

  const p50Ms = spreadOf(found.map((each) => each.p50Ms));
  const p99Ms = spreadOf(found.map((each) => each.p99Ms));
  return {
    lines: [
      `Kafka acknowledged → a join sees it, ${eventsPerSecond} events/s, ${rounds} rounds of ${seconds} s: p50 ${range(p50Ms)} ms, p99 ${range(p99Ms)} ms`,
    ],
    figures: { eventsPerSecond, p50Ms, p99Ms, rounds: found },
  };
};

export const freshness: Benchmark = {
  summary: 'from the broker that acknowledged a fact to the join that sees it',
  defaults: { seconds: 10, rounds: 5 },
  run,
};
