import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  allTopics,
  type JoinResponse,
  type OutgoingRoomEvent,
  type Role,
  RoomEventPublisher,
} from '@realtime-service/contracts';
import {
  createDatabase,
  freePort,
  type GateProxy,
  type GateProxyName,
  type Kafka,
  type Livekit,
  type Part,
  type Postgres,
  startGateProxy,
  startKafka,
  startLivekit,
  startPostgres,
  startProcess,
  until,
} from '@realtime-service/dev-stack';
import { createRoomService, type RoomService } from '@realtime-service/livekit';
import kafkajs from 'kafkajs';
import pg from 'pg';
import type { Identity } from './identity.ts';

export interface SystemOptions {
  readonly identity: Identity;
  readonly log?: 'kafka' | 'embedded';
  /** The reverse proxy that clients reach LiveKit by, and that asks the gate; LiveKit has two keys then. */
  readonly door?: GateProxyName;
  /** Stands between LiveKit and the intake: given the intake's address, answers with its own. */
  readonly webhooksThrough?: (intakeUrl: string) => Promise<string>;
  /** Stands between the services and the database: given its address, answers with its own. */
  readonly databaseThrough?: (url: string) => Promise<string>;
  /** More environment for both services. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface Service extends Part {
  readonly url: string;
  readonly opsUrl: string;
  readonly readLog: () => Promise<string>;
}

/** Everything that the product needs, running for real, and the ways in which tests use it. */
export interface System {
  readonly postgres: Postgres;
  readonly databaseUrl: string;
  readonly pool: pg.Pool;
  readonly kafka: Kafka | undefined;
  readonly livekit: Livekit;
  readonly door: GateProxy | undefined;
  readonly rooms: RoomService;
  readonly api: Service;
  readonly worker: Service;
  /** Another room-worker of the same group; whoever starts it stops it. */
  readonly startWorker: (env?: Readonly<Record<string, string>>) => Promise<Service>;
  readonly publish: (...events: OutgoingRoomEvent[]) => Promise<void>;
  readonly publishOverHttp: (...events: OutgoingRoomEvent[]) => Promise<Response>;
  readonly join: (
    user: string,
    room: string,
    body?: object,
    headers?: Readonly<Record<string, string>>,
  ) => Promise<Response>;
  /** Publishes a room with these people; resolves when the first of them is known to be a member. */
  readonly createRoom: (room: string, roles: Readonly<Record<string, Role>>, more?: object) => Promise<void>;
  /** Joins, and fails unless the answer is 200. */
  readonly enter: (user: string, room: string, body?: object) => Promise<JoinResponse>;
  readonly stop: () => Promise<void>;
}

/** Known to LiveKit and to both services where there is a door: LiveKit lets any key sign. */
export const secondKey = { apiKey: 'e2e-second', secret: 'second-secret-of-no-value-outside-this-test' };
export const livekitKey = { apiKey: 'e2e-key', secret: 'e2e-secret-of-no-value-outside-this-test' };

/** One service as a process of its own; resolves when it is ready. */
export const startService = async (
  name: 'api' | 'room-worker',
  ports: readonly [number, number],
  env: Record<string, string>,
): Promise<Service> => {
  const logFile = join(await mkdtemp(join(tmpdir(), 'rt-e2e-')), `${name}.log`);
  const [port, opsPort] = ports;
  const opsUrl = `http://127.0.0.1:${opsPort}`;
  const part = await startProcess({
    name,
    command: process.execPath,
    args: [fileURLToPath(import.meta.resolve(`../../services/${name}/src/main.ts`))],
    env,
    logFile,
    isReady: async () => (await fetch(`${opsUrl}/readyz`)).ok,
    startTimeoutMs: 30_000,
  });
  return { ...part, url: `http://127.0.0.1:${port}`, opsUrl, readLog: () => readFile(logFile, 'utf8') };
};

const startBroker = async (): Promise<Kafka> => {
  const kafka = await startKafka();
  await kafka.createTopics(allTopics.map((topic) => ({ topic, partitions: 12 })));
  return kafka;
};

/** Starts the whole system with its own database, broker and LiveKit. */
export const startSystem = async ({
  identity,
  log = 'kafka',
  door: doorName,
  webhooksThrough = async (intakeUrl) => intakeUrl,
  databaseThrough = async (url) => url,
  env = {},
}: SystemOptions): Promise<System> => {
  const [apiPort, apiOpsPort, workerPort, workerOpsPort] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const keys = doorName === undefined ? [livekitKey] : [livekitKey, secondKey];
  const [postgres, kafka, livekit] = await Promise.all([
    startPostgres(),
    log === 'kafka' ? startBroker() : undefined,
    startLivekit({
      keys: Object.fromEntries(keys.map(({ apiKey, secret }) => [apiKey, secret])),
      webhookUrl: await webhooksThrough(`http://127.0.0.1:${workerPort}/webhooks/livekit`),
    }),
  ]);
  const upstreams = { api: `127.0.0.1:${apiPort}`, livekit: `127.0.0.1:${livekit.ports.http}` };
  const door = doorName === undefined ? undefined : await startGateProxy(doorName, upstreams);
  const databaseUrl = await createDatabase(postgres.url);
  const shared: Record<string, string> = {
    DATABASE_URL: await databaseThrough(databaseUrl),
    LIVEKIT_URL: door?.url ?? livekit.url,
    LIVEKIT_API_URL: livekit.apiUrl,
    LIVEKIT_KEYS: keys.map(({ apiKey, secret }) => `${apiKey}: ${secret}`).join(),
    OIDC_ISSUER: identity.issuer,
    RATE_LIMIT_USER_PER_MINUTE: '100000',
    RATE_LIMIT_ADDRESS_PER_MINUTE: '1000000',
    RATE_LIMIT_GATE_PER_MINUTE: '100000',
    ...(kafka === undefined ? {} : { KAFKA_BROKERS: kafka.brokers.join(',') }),
    ...env,
  };
  const startWorkerAt = (port: number, opsPort: number, more: Readonly<Record<string, string>>): Promise<Service> =>
    startService('room-worker', [port, opsPort], {
      ...shared,
      WORKER_PORT: String(port),
      WORKER_OPS_PORT: String(opsPort),
      ...more,
    });
  const worker = await startWorkerAt(workerPort, workerOpsPort, {});
  const api = await startService('api', [apiPort, apiOpsPort], {
    ...shared,
    API_PORT: String(apiPort),
    API_OPS_PORT: String(apiOpsPort),
  });
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 4 });
  pool.on('error', () => undefined);

  const producer =
    kafka &&
    new kafkajs.Kafka({ brokers: [...kafka.brokers], logLevel: kafkajs.logLevel.NOTHING }).producer({
      createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    });
  await producer?.connect();
  const publisher = new RoomEventPublisher({
    producer: producer ?? { send: async () => undefined },
    source: '/e2e/domain',
  });

  const publishOverHttp = async (...events: OutgoingRoomEvent[]): Promise<Response> => {
    const body = publisher.toMessages(events).map(({ headers, value, key }) => ({
      specversion: '1.0',
      id: headers.ce_id,
      source: headers.ce_source,
      type: headers.ce_type,
      subject: key,
      data: JSON.parse(value),
    }));
    return fetch(`${api.url}/api/realtime/events`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${await identity.token('domain')}`,
        'content-type': 'application/cloudevents-batch+json',
      },
      body: JSON.stringify(body),
    });
  };

  const publish: System['publish'] = async (...events) => {
    if (producer !== undefined) {
      await publisher.publish(events);
      return;
    }
    const response = await publishOverHttp(...events);
    if (response.status !== 202) throw new Error(`events were answered ${response.status}: ${await response.text()}`);
  };

  const join: System['join'] = async (user, room, body, headers = {}) =>
    fetch(`${api.url}/api/realtime/rooms/${encodeURIComponent(room)}/join`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${await identity.token(user)}`,
        ...headers,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });

  return {
    postgres,
    databaseUrl,
    pool,
    kafka,
    livekit,
    door,
    rooms: createRoomService({ apiUrl: livekit.apiUrl, key: livekitKey, timeoutMs: 2_000 }),
    api,
    worker,
    startWorker: async (more = {}) => startWorkerAt(await freePort(), await freePort(), more),
    publish,
    publishOverHttp,
    join,
    createRoom: async (room, roles, more = {}) => {
      const members = Object.entries(roles).map(([user, role]) => ({ userId: identity.subjectOf(user), role }));
      await publish({ type: 'room.created', subject: room, data: { members, ...more } });
      const [first = ''] = Object.keys(roles);
      await until(`${room} is projected`, async () => {
        const { status } = await join(first, room);
        return status < 500 && status !== 404;
      });
    },
    enter: async (user, room, body) => {
      const response = await join(user, room, body);
      if (response.status !== 200) throw new Error(`join was answered ${response.status}: ${await response.text()}`);
      return (await response.json()) as JoinResponse;
    },
    stop: async () => {
      await producer?.disconnect();
      await Promise.all([api.stop(), worker.stop()]);
      await pool.end();
      await door?.stop();
      await Promise.all([livekit.stop(), kafka?.stop(), postgres.stop()]);
    },
  };
};
