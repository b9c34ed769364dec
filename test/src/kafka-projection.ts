/** The real worker behind a broker of its own: what producers send, and what becomes of it in the tables. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allTopics, defaultPartitionCount, RoomEventPublisher, topics } from '@realtime-service/contracts';
import { type Kafka as Broker, createDatabase, freePort, startKafka, until } from '@realtime-service/dev-stack';
import { realParts } from '@realtime-service/dev-stack/vitest';
import kafkajs, { type Kafka, type Producer } from 'kafkajs';
import pg from 'pg';
import { highOffsets } from './log-reader.ts';
import { type Service, startService } from './system.ts';

export const topic = topics.roomEvents;

export interface Member {
  readonly user_id: string;
  readonly role: string;
  readonly is_removed: boolean;
  readonly partition: number;
  readonly fact_at: Date;
  readonly sequence: string | null;
}

export interface DeadLetter {
  readonly reason: string;
  readonly value: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

export interface KafkaProjection {
  readonly broker: Broker;
  readonly databaseUrl: string;
  /** For files of a test; it goes with the broker. */
  readonly directory: string;
  /** Where the broker keeps its segments. */
  readonly logDirectory: string;
  readonly worker: Service;
  readonly pool: pg.Pool;
  readonly client: Kafka;
  readonly producer: Producer;
  readonly publisher: RoomEventPublisher;
  readonly membersOf: (room: string) => Promise<Member[]>;
  readonly memberOf: (room: string, user: string) => Promise<Member | undefined>;
  readonly deadLettersOf: (key: string | Buffer) => Promise<DeadLetter[]>;
  /** Resolves when the table of positions has reached the end of each partition. */
  readonly untilCaughtUp: (withinMs?: number) => Promise<void>;
  /** Each sample of a metric about room events. */
  readonly metric: (name: string) => Promise<number[]>;
  readonly stop: () => Promise<void>;
}

const murmur2 = kafkajs.Partitioners.DefaultPartitioner();
const partitionMetadata = Array.from({ length: defaultPartitionCount }, (_, partitionId) => ({
  partitionId,
  partitionErrorCode: 0,
  leader: 1,
  replicas: [1],
  isr: [1],
}));

/** By murmur2, as kafkajs has it and not as our own code does. */
export const partitionOf = (key: string): number =>
  murmur2({ topic, partitionMetadata, message: { key, value: null } });

/** `settings` are the broker's. */
export const startKafkaProjection = async (
  settings: Readonly<Record<string, string>> = {},
): Promise<KafkaProjection> => {
  const directory = mkdtempSync(join(tmpdir(), 'producers-'));
  const logDirectory = join(directory, 'log');
  const broker = await startKafka({ settings: { ...settings, 'log.dirs': logDirectory } });
  await broker.createTopics(allTopics.map((name) => ({ topic: name, partitions: defaultPartitionCount })));
  const databaseUrl = await createDatabase(realParts(['postgres']).postgres.url);
  const [port, opsPort, livekitPort] = [await freePort(), await freePort(), await freePort()];
  const worker = await startService('room-worker', [port, opsPort], {
    DATABASE_URL: databaseUrl,
    KAFKA_BROKERS: broker.brokers.join(),
    // Nobody is in a call here.
    LIVEKIT_URL: `ws://127.0.0.1:${livekitPort}`,
    LIVEKIT_KEYS: 'key: secret-of-no-value-outside-this-test',
    WORKER_PORT: String(port),
    WORKER_OPS_PORT: String(opsPort),
    // Far from UTC: no time may be read as a local one.
    TZ: 'Asia/Tokyo',
  });
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 4 });
  const client = new kafkajs.Kafka({ brokers: [...broker.brokers], logLevel: kafkajs.logLevel.NOTHING });
  const producer = client.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();

  const membersOf = async (room: string): Promise<Member[]> =>
    (await pool.query('select * from members where room_id = $1', [room])).rows;
  return {
    broker,
    databaseUrl,
    directory,
    logDirectory,
    worker,
    pool,
    client,
    producer,
    publisher: new RoomEventPublisher({ producer, source: '/tests' }),
    membersOf,
    memberOf: async (room, user) => (await membersOf(room)).find(({ user_id }) => user_id === user),
    deadLettersOf: async (key) =>
      (await pool.query('select * from dead_letters where key = $1 order by "offset"', [Buffer.from(key)])).rows,
    untilCaughtUp: async (withinMs) => {
      await until(
        'all is applied',
        async () => {
          const highs = await highOffsets(broker.brokers, topic);
          const { rows } = await pool.query('select "partition", next_offset from log_positions where topic = $1', [
            topic,
          ]);
          return (
            rows.length === highs.size &&
            rows.every(({ partition, next_offset }) => highs.get(partition) === BigInt(next_offset))
          );
        },
        withinMs,
      );
    },
    metric: async (name) => {
      const text = await (await fetch(`${worker.opsUrl}/metrics`)).text();
      return text
        .split('\n')
        .filter((line) => line.startsWith(`${name}{`) && line.includes(`topic="${topic}"`))
        .map((line) => Number(line.split(' ').at(-1)));
    },
    stop: async () => {
      await producer.disconnect();
      await worker.stop();
      await pool.end();
      await broker.stop();
      rmSync(directory, { recursive: true });
    },
  };
};
