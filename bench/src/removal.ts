import { setTimeout as delay } from 'node:timers/promises';
import { allTopics } from '@realtime-service/contracts';
import {
  createDatabase,
  type SignalClient,
  signalIn,
  signalOnlyMs,
  startKafka,
  startPostgres,
} from '@realtime-service/dev-stack';
import type { NewRecord } from '@realtime-service/event-log';
import { createKafkaLog } from '@realtime-service/event-log/kafka';
import { migrate } from '@realtime-service/room-store';
import type { Benchmark, Effort, Findings } from './benchmark.ts';
import { factOf } from './fact.ts';
import { figure, range } from './format.ts';
import { startLiveWorker } from './live-worker.ts';
import { livekitTokenOf } from './livekit-token.ts';
import { spreadOf } from './statistics.ts';
import { createBenchPool } from './worker/project-batches.ts';

const removalsPerSecond = 50;
const roomCount = 50;
const warmUpSeconds = 3;
const entriesAtOnce = 16;
const appendWithinMs = 5_000;
/** Two sweeps of the room-worker: whoever only signals is known by them alone. */
const knownWithinMs = 35_000;
const closedWithinMs = 20_000;

const percentiles = { p50Ms: 0.5, p95Ms: 0.95, p99Ms: 0.99, maxMs: 1 } as const;
type Percentile = keyof typeof percentiles;
type Round = Readonly<Record<Percentile, number>>;

interface Inside {
  readonly roomId: string;
  readonly userId: string;
  readonly client: SignalClient;
}

const roundOf = (tookMs: readonly number[]): Round => {
  const sorted = tookMs.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN;
  return { p50Ms: at(0.5), p95Ms: at(0.95), p99Ms: at(0.99), maxMs: at(1) };
};

const lineOf = ({ p50Ms, p95Ms, p99Ms, maxMs }: Record<Percentile, string>): string =>
  `p50 ${p50Ms} ms, p95 ${p95Ms} ms, p99 ${p99Ms} ms, max ${maxMs} ms`;

const run = async ({ seconds, rounds }: Effort, say: (line: string) => void): Promise<Findings> => {
  const databaseUrl = await createDatabase((await startPostgres()).url);
  await migrate(databaseUrl);
  const kafka = await startKafka({ report: say });
  await kafka.createTopics(allTopics.map((topic) => ({ topic, partitions: 12 })));
  const { url, worker, livekit, service } = await startLiveWorker(
    databaseUrl,
    { KAFKA_BROKERS: kafka.brokers.join() },
    say,
  );
  const pool = createBenchPool(databaseUrl, 1);
  const log = createKafkaLog({ brokers: kafka.brokers, clientId: 'bench', writeLog: () => undefined });
  const append = (records: readonly NewRecord[]) => log.append(records, appendWithinMs);

  /** Rooms of this round, and people in them whom the room-worker knows to be there. */
  const fill = async (round: number, count: number): Promise<Inside[]> => {
    const people = Array.from({ length: count }, (_, at) => ({
      roomId: `room-${round}-${at % roomCount}`,
      userId: `user-${round}-${at}`,
    }));
    const rooms = Map.groupBy(people, ({ roomId }) => roomId);
    await append(
      [...rooms].map(([roomId, members]) =>
        factOf('room.created', roomId, { members: members.map(({ userId }) => ({ userId, role: 'speaker' })) }),
      ),
    );
    for (const roomId of rooms.keys())
      await service.createRoom(roomId, { emptyTimeoutSeconds: 300, departureTimeoutSeconds: 300 });
    const inside: Inside[] = [];
    const queue = people.values();
    const enterEach = async (): Promise<void> => {
      for (const person of queue) {
        const token = await livekitTokenOf(person.roomId, person.userId);
        inside.push({ ...person, client: await signalIn(url, token) });
      }
    };
    await Promise.all(Array.from({ length: entriesAtOnce }, enterEach));
    const giveUpAtMs = performance.now() + knownWithinMs;
    const isKnown = async (): Promise<boolean> => {
      const { rows } = await pool.query<{ live: string; asked: string }>(
        'select (select count(*) from sessions where is_live) as live, (select count(*) from marks) as asked',
      );
      return Number(rows[0]?.live) === count && Number(rows[0]?.asked) === 0;
    };
    while (!(await isKnown())) {
      if (performance.now() > giveUpAtMs) throw new Error('the room-worker does not know who is inside');
      await delay(100);
    }
    return inside;
  };

  /** From the broker's acknowledgement to the end of the WebSocket. */
  const remove = async ({ roomId, userId, client }: Inside): Promise<number> => {
    await append([factOf('member.removed', roomId, { userId })]);
    const acknowledgedAtMs = performance.now();
    const expired = delay(closedWithinMs, undefined, { ref: false }).then(() => {
      throw new Error('somebody who was removed is still connected');
    });
    return (await Promise.race([client.closed, expired])) - acknowledgedAtMs;
  };

  const measure = async (round: number, forSeconds: number): Promise<Round> => {
    const startedFillingAtMs = performance.now();
    const inside = await fill(round, forSeconds * removalsPerSecond);
    const samples: Promise<number>[] = [];
    const startedAtMs = performance.now();
    for (const [at, person] of inside.entries()) {
      await delay(Math.max(0, startedAtMs + (at * 1000) / removalsPerSecond - performance.now()));
      samples.push(remove(person));
    }
    const found = roundOf(await Promise.all(samples));
    if (performance.now() - startedFillingAtMs > signalOnlyMs) throw new Error('LiveKit may have ended some by itself');
    return found;
  };

  await measure(0, warmUpSeconds);
  const found: Round[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    const each = await measure(round, seconds);
    found.push(each);
    say(`round ${round}: ${lineOf(mapped((name) => figure(each[name])))}`);
  }
  await log.close();
  await pool.end();
  await worker.part.stop();
  await Promise.all([livekit.stop(), kafka.stop()]);

  const spreads = mapped((name) => spreadOf(found.map((each) => each[name])));
  return {
    lines: [
      `Kafka acknowledged → LiveKit has disconnected, ${removalsPerSecond} removals/s, ${rounds} rounds of ${seconds} s: ${lineOf(mapped((name) => range(spreads[name])))}`,
    ],
    figures: { removalsPerSecond, ...spreads, rounds: found },
  };
};

const mapped = <T>(of: (name: Percentile) => T): Record<Percentile, T> => ({
  p50Ms: of('p50Ms'),
  p95Ms: of('p95Ms'),
  p99Ms: of('p99Ms'),
  maxMs: of('maxMs'),
});

export const removal: Benchmark = {
  summary: 'from the broker that acknowledged a removal to the connection that LiveKit has ended',
  defaults: { seconds: 10, rounds: 5 },
  run,
};
