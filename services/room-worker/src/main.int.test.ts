import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { allTopics, consumedTopics, topics } from '@realtime-service/contracts';
import {
  createDatabase,
  freePort,
  startFaultProxy,
  startKafka,
  startPostgres,
  until,
} from '@realtime-service/dev-stack';
import { describeWith, realParts } from '@realtime-service/dev-stack/vitest';
import { createEmbeddedLog, partitionOf, prepareEmbeddedLog } from '@realtime-service/event-log';
import {
  activeProjection,
  createPool,
  migrate,
  type Pool,
  preparePositions,
  resetTopic,
} from '@realtime-service/room-store';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type FakeLivekit, startFakeLivekit } from '../test/fake-livekit.ts';
import { roomRecord } from '../test/projection.ts';
import { partitionCount } from '../test/records.ts';
import { toLivekitRecord } from './livekit-record.ts';

const main = fileURLToPath(import.meta.resolve('./main.ts'));

interface Running {
  readonly pid: number;
  readonly output: () => string;
  readonly signal: (name: NodeJS.Signals) => void;
  /** The exit code, or the signal. */
  readonly ended: Promise<number | NodeJS.Signals | null>;
}

const run = (env: Readonly<Record<string, string>>, ...args: readonly string[]): Running => {
  const child = spawn(process.execPath, [main, ...args], {
    env: { PATH: '/usr/bin:/bin', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  return {
    pid: child.pid ?? 0,
    output: () => output,
    signal: (name) => void child.kill(name),
    ended: once(child, 'close').then(([code, signal]) => code ?? signal),
  };
};

describe('settings', () => {
  test('--help lists them all and ends with 0', async () => {
    const help = run({}, '--help');
    expect(await help.ended).toBe(0);
    for (const name of [
      'DATABASE_URL',
      'DATABASE_DIRECT_URL',
      'KAFKA_BROKERS',
      'LIVEKIT_URL',
      'LIVEKIT_KEYS',
      'LIVEKIT_WEBHOOK_KEYS',
      'WORKER_PORT',
      'WORKER_OPS_PORT',
      'UNKNOWN_ROOMS',
      'SWEEP_INTERVAL_SECONDS',
      'CONSUMER_GROUP',
      'SHUTDOWN_SECONDS',
      'LOG_LEVEL',
    ])
      expect(help.output()).toMatch(new RegExp(`^  ${name} .*\\[.+\\]$`, 'm'));
  });

  test('all faults are named at once, without their values, and it ends with 2', async () => {
    const broken = run({
      DATABASE_URL: 'mysql://private-value',
      DATABASE_MAX_CONNECTIONS: '1',
      KAFKA_BROKERS: 'no port',
      LIVEKIT_URL: 'ftp://private-value',
      LIVEKIT_KEYS: 'private-value',
      LIVEKIT_WEBHOOK_KEYS: 'private-value',
      WORKER_PORT: '99999',
      WORKER_OPS_PORT: 'x',
      UNKNOWN_ROOMS: 'maybe',
      SWEEP_INTERVAL_SECONDS: '0',
      SHUTDOWN_SECONDS: '-1',
      LOG_LEVEL: 'loud',
    });
    expect(await broken.ended).toBe(2);
    for (const name of [
      'DATABASE_URL',
      'DATABASE_MAX_CONNECTIONS',
      'KAFKA_BROKERS',
      'LIVEKIT_URL',
      'LIVEKIT_KEYS',
      'LIVEKIT_WEBHOOK_KEYS',
      'WORKER_PORT',
      'WORKER_OPS_PORT',
      'UNKNOWN_ROOMS',
      'SWEEP_INTERVAL_SECONDS',
      'SHUTDOWN_SECONDS',
      'LOG_LEVEL',
    ])
      expect(broken.output()).toMatch(new RegExp(`^  ${name}: `, 'm'));
    expect(broken.output()).not.toContain('private-value');
  });

  test('what is missing is named, empty variables included', async () => {
    const broken = run({ LIVEKIT_URL: '' });
    expect(await broken.ended).toBe(2);
    for (const name of ['DATABASE_URL', 'LIVEKIT_URL', 'LIVEKIT_KEYS'])
      expect(broken.output()).toMatch(new RegExp(`^  ${name}: `, 'm'));
  });

  test('the embedded log and short secrets are refused in production', async () => {
    const broken = run({
      NODE_ENV: 'production',
      DATABASE_URL: 'postgres://localhost/x',
      LIVEKIT_URL: 'wss://livekit.example.test',
      LIVEKIT_KEYS: 'key: short',
    });
    expect(await broken.ended).toBe(2);
    for (const name of ['KAFKA_BROKERS', 'LIVEKIT_KEYS'])
      expect(broken.output()).toMatch(new RegExp(`^  ${name}: `, 'm'));
  });
});

describeWith(['postgres'], 'the process', () => {
  let livekit: FakeLivekit;
  let opsUrl: string;
  let ports: Record<string, string>;
  let running: Running[] = [];

  beforeEach(async () => {
    livekit = await startFakeLivekit(2_000);
    ports = { WORKER_PORT: String(await freePort()), WORKER_OPS_PORT: String(await freePort()) };
    opsUrl = `http://127.0.0.1:${ports['WORKER_OPS_PORT']}`;
  });
  afterEach(async () => {
    for (const each of running) each.signal('SIGKILL');
    await Promise.all(running.map(({ ended }) => ended));
    running = [];
    await livekit.stop();
  });

  const start = (databaseUrl: string, env: Readonly<Record<string, string>> = {}): Running => {
    const worker = run({
      DATABASE_URL: databaseUrl,
      LIVEKIT_URL: livekit.url,
      LIVEKIT_KEYS: 'key: secret-of-no-value-outside-this-test',
      ...ports,
      ...env,
    });
    running.push(worker);
    return worker;
  };
  const statusOf = (route: string): Promise<number> =>
    fetch(`${opsUrl}${route}`).then(
      ({ status }) => status,
      () => 0,
    );
  const ready = (withinMs = 15_000) => until('it is ready', async () => (await statusOf('/readyz')) === 200, withinMs);
  const freshDatabase = () => createDatabase(realParts(['postgres']).postgres.url);
  const poolOf = (url: string): Pool =>
    createPool({ url, maxConnections: 3, applicationName: 'test', onError: () => undefined });

  test('SIGTERM ends it in order: 0, no duty, no connection left', async () => {
    const url = await freshDatabase();
    const worker = start(url, { SWEEP_INTERVAL_SECONDS: '1' });
    await ready();
    const pool = poolOf(url);
    await until('it has its duties', async () => (await pool.query('select from duties')).rowCount === 2);
    const startedAtMs = performance.now();
    worker.signal('SIGTERM');
    expect(await worker.ended).toBe(0);
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);
    expect((await pool.query('select from duties')).rowCount).toBe(0);
    const connections = `select from pg_stat_activity
      where application_name = 'room-worker' and datname = current_database()`;
    // The server sees the end of a connection a little later.
    await until('no connection is left', async () => (await pool.query(connections)).rowCount === 0);
    await pool.end();
  });

  test('SIGTERM ends it in time also while LiveKit answers nothing', async () => {
    livekit.fail('ListRooms', () => 'silence');
    const url = await freshDatabase();
    const worker = start(url, { SWEEP_INTERVAL_SECONDS: '1' });
    await ready();
    await until('a sweep waits', () => livekit.callsOf('ListRooms').length > 1);
    worker.signal('SIGTERM');
    expect(await worker.ended).toBe(0);
    const pool = poolOf(url);
    expect((await pool.query('select from duties')).rowCount).toBe(0);
    await pool.end();
  });

  test('SIGTERM ends it at once also with connections open that were never used', async () => {
    const worker = start(await freshDatabase());
    await ready();
    const unused = await Promise.all(
      ['WORKER_PORT', 'WORKER_OPS_PORT'].map(async (name) => {
        const socket = connect({ port: Number(ports[name]), host: '127.0.0.1' });
        await once(socket, 'connect');
        return socket;
      }),
    );
    const startedAtMs = performance.now();
    worker.signal('SIGTERM');
    expect(await worker.ended).toBe(0);
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);
    for (const socket of unused) socket.destroy();
  });

  test('without a database it waits, alive and not ready; with one it is ready at once', async () => {
    const { port } = realParts(['postgres']).postgres;
    const proxy = await startFaultProxy(port);
    const url = new URL(await freshDatabase());
    // How long that takes is another matter.
    await migrate(url.href);
    url.port = String(proxy.port);
    await proxy.cut();
    start(url.href);
    await until('it is alive', async () => (await statusOf('/livez')) === 200, 10_000);
    expect(await statusOf('/readyz')).toBe(503);
    await proxy.heal();
    const healedAtMs = performance.now();
    await ready();
    const readyAfterMs = performance.now() - healedAtMs;
    process.stderr.write(`ready ${Math.round(readyAfterMs)} ms after the database\n`);
    expect(readyAfterMs).toBeLessThan(1_500);
    await proxy.stop();
  });

  test('SIGTERM while it waits for the database ends it with 0', async () => {
    const worker = start(`postgres://nobody@127.0.0.1:${await freePort()}/none`);
    await until('it is alive', async () => (await statusOf('/livez')) === 200, 10_000);
    worker.signal('SIGTERM');
    expect(await worker.ended).toBe(0);
  });

  test('C28: a database that restarts is survived: red meanwhile, alive, and ready again', async () => {
    const postgres = await startPostgres();
    const url = await createDatabase(postgres.url);
    const worker = start(url);
    await ready();
    await postgres.stop();
    await until('it is not ready', async () => (await statusOf('/readyz')) === 503);
    expect(await statusOf('/livez')).toBe(200);
    await postgres.start();
    await ready(10_000);
    worker.signal('SIGTERM');
    expect(await worker.ended).toBe(0);
    await postgres.stop();
  }, 60_000);

  test('C28: a LISTEN connection that went deaf delays a removal by no more than the poll', async () => {
    const { port } = realParts(['postgres']).postgres;
    const proxy = await startFaultProxy(port);
    const url = await freshDatabase();
    const direct = new URL(url);
    direct.port = String(proxy.port);
    start(url, { DATABASE_DIRECT_URL: direct.href });
    await ready();
    const pool = poolOf(url);
    const log = createEmbeddedLog({ pool, writeLog: () => undefined });
    livekit.put('room', { sid: 'PA_1', identity: 'ann', attributes: { 'rt.user': 'ann' }, permission: {} });
    const joined = {
      event: 'participant_joined',
      room: { sid: 'RM_1', name: 'room' },
      participant: { sid: 'PA_1', identity: 'ann', joinedAtMs: '1', attributes: { 'rt.user': 'ann' } },
    };
    const about = {
      id: 'joined',
      source: 'livekit',
      type: 'livekit.participant_joined',
      roomName: 'room',
      timeMs: undefined,
      traceparent: undefined,
    } as const;
    await log.append(
      [
        roomRecord(['room.created', 'room', { members: [{ userId: 'ann', role: 'speaker' }] }]),
        toLivekitRecord(about, joined),
      ],
      5_000,
    );
    await until('ann was looked at', () => livekit.callsOf('UpdateParticipant').length > 0);
    proxy.stall();
    const startedAtMs = performance.now();
    await log.append([roomRecord(['member.removed', 'room', { userId: 'ann' }])], 5_000);
    await until('ann is out', () => livekit.rooms.get('room')?.size === 0);
    expect(performance.now() - startedAtMs).toBeLessThan(1_500);
    await log.close();
    await pool.end();
    await proxy.stop();
  });

  /** A database whose log and positions exist, to be made wrong. */
  const preparedDatabase = async (): Promise<{ url: string; pool: Pool }> => {
    const url = await freshDatabase();
    await migrate(url);
    const pool = poolOf(url);
    await prepareEmbeddedLog(pool, allTopics, partitionCount);
    for (const topic of consumedTopics) await preparePositions(pool, activeProjection, topic, partitionCount);
    return { url, pool };
  };

  test('a database that is ahead of the log ends it, with the reason', async () => {
    const { url, pool } = await preparedDatabase();
    await pool.query('update log_positions set next_offset = 7 where topic = $1 and "partition" = $2', [
      topics.roomEvents,
      partitionOf('room', partitionCount),
    ]);
    await pool.end();
    const worker = start(url);
    expect(await worker.ended).toBe(1);
    expect(worker.output()).toContain('OffsetOutOfRangeError');
  });

  test('a log that was made again and holds more than was applied ends it, with the reason', async () => {
    const { url, pool } = await preparedDatabase();
    const log = createEmbeddedLog({ pool, writeLog: () => undefined });
    const fill = () => log.append([roomRecord(['room.created', 'room']), roomRecord(['room.locked', 'room'])], 5_000);
    const readPosition = async () =>
      (await pool.query('select * from log_positions where next_offset > 0 order by "partition"')).rows;
    await fill();
    const worker = start(url);
    const applied = await until('it is applied', async () => {
      const positions = await readPosition();
      return positions[0]?.next_offset === '2' && positions;
    });
    worker.signal('SIGTERM');
    await worker.ended;
    await pool.query('delete from log_records; update log_heads set next_offset = 0');
    await fill();
    await fill();
    const again = start(url);
    expect(await again.ended).toBe(1);
    expect(again.output()).toContain('LogReplacedError');
    expect(await readPosition()).toEqual(applied);
    await log.close();
    await pool.end();
  });

  test('a topic that is reset under it is applied again from its beginning', async () => {
    const { url, pool } = await preparedDatabase();
    const log = createEmbeddedLog({ pool, writeLog: () => undefined });
    await log.append([roomRecord(['room.created', 'room']), roomRecord(['room.locked', 'room'])], 5_000);
    const rooms = async () => (await pool.query('select room_id, state, is_locked from rooms')).rows;
    const applied = [{ room_id: 'room', state: 'open', is_locked: true }];
    const isApplied = async (): Promise<boolean> => isDeepStrictEqual(await rooms(), applied);
    const worker = start(url);
    await until('it is applied', isApplied);
    const bounds = await log.bounds(topics.roomEvents);
    await resetTopic(pool, {
      topic: topics.roomEvents,
      lows: new Map(bounds.map(({ partition, low }) => [partition, low])),
    });
    expect(await rooms()).toEqual([]);
    await until('it is applied again', isApplied);
    worker.signal('SIGTERM');
    expect(await worker.ended).toBe(0);
    await log.close();
    await pool.end();
  });

  test('a topic whose partitions were counted otherwise ends it, with the reason', async () => {
    const { url, pool } = await preparedDatabase();
    await pool.query('update log_positions set partition_count = 6 where topic = $1', [topics.roomEvents]);
    await pool.end();
    const worker = start(url);
    expect(await worker.ended).toBe(1);
    expect(worker.output()).toContain('PartitionCountChangedError');
  });

  test('a port that is taken ends it, with the reason', async () => {
    const first = start(await freshDatabase());
    await ready();
    const second = start(await freshDatabase());
    expect(await second.ended).toBe(1);
    expect(second.output()).toContain('EADDRINUSE');
    first.signal('SIGTERM');
    expect(await first.ended).toBe(0);
  });

  test.runIf(process.platform === 'linux')('idle, it takes less than 200 MB', async () => {
    const worker = start(await freshDatabase(), { SWEEP_INTERVAL_SECONDS: '1' });
    await ready();
    await until('it swept a few times', () => livekit.callsOf('ListRooms').length > 3);
    const status = await readFile(`/proc/${worker.pid}/status`, 'utf8');
    const residentMb = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
    process.stderr.write(`idle: ${Math.round(residentMb)} MB\n`);
    expect(residentMb).toBeLessThan(200);
  });
});

describeWith(['postgres', 'kafka'], 'the process, with Kafka', () => {
  test('waits, not ready, for topics that are missing', async () => {
    const livekit = await startFakeLivekit(2_000);
    // Not the shared broker: others make these topics there.
    const kafka = await startKafka();
    const [port, opsPort] = [await freePort(), await freePort()];
    const worker = run({
      DATABASE_URL: await createDatabase(realParts(['postgres']).postgres.url),
      LIVEKIT_URL: livekit.url,
      LIVEKIT_KEYS: 'key: secret-of-no-value-outside-this-test',
      KAFKA_BROKERS: kafka.brokers.join(','),
      WORKER_PORT: String(port),
      WORKER_OPS_PORT: String(opsPort),
    });
    await until('it says what it waits for', () => worker.output().includes('"dependency":"log"'), 20_000);
    expect((await fetch(`http://127.0.0.1:${opsPort}/readyz`)).status).toBe(503);
    worker.signal('SIGTERM');
    expect(await worker.ended).toBe(0);
    await Promise.all([livekit.stop(), kafka.stop()]);
  }, 60_000);
});
