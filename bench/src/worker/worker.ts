import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { consumedTopics } from '@realtime-service/contracts';
import {
  createDatabase,
  type Kafka,
  PartAbsent,
  runDirectory,
  startKafka,
  startPostgres,
} from '@realtime-service/dev-stack';
import { activeProjection, migrate, preparePositions } from '@realtime-service/room-store';
import type { Benchmark, Effort, Findings } from '../benchmark.ts';
import { figure, ratioLine } from '../format.ts';
import { ratioSpread, rotated, spreadOf } from '../statistics.ts';
import { createBenchPool } from './project-batches.ts';
import { produceAll } from './raw-kafka.ts';
import { chunkRecords, createBenchLog, partitionCount } from './records.ts';

/** What a side measured of itself. */
interface Outcome {
  readonly records: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
}

const script = fileURLToPath(new URL('./side.ts', import.meta.url));
const registerTelemetry = import.meta.resolve('@realtime-service/telemetry/register');

interface SideRun {
  readonly side: 'seed' | 'record' | 'projector' | 'floor' | 'kafka';
  readonly count: number;
  readonly connections: number;
  /** The database, or Kafka's brokers. */
  readonly target: string;
  readonly recordingFile: string;
}

/** The projector runs with tracing as the service does; nothing else is in the way of the other sides. */
const runSide = async ({ side, count, connections, target, recordingFile }: SideRun): Promise<string> => {
  const profile = process.env['BENCH_PROFILE'];
  const flags = [
    '--expose-gc',
    ...(side === 'projector' ? ['--import', registerTelemetry] : []),
    ...(profile === undefined
      ? []
      : ['--cpu-prof', `--cpu-prof-dir=${profile}`, `--cpu-prof-name=${side}-${connections}.cpuprofile`]),
  ];
  const args = [...flags, script, side, String(count), String(connections), target, recordingFile];
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 2 ** 26 });
  return stdout;
};

const measureSide = async (run: SideRun): Promise<Outcome> =>
  JSON.parse((await runSide(run)).trimEnd().split('\n').at(-1) ?? '') as Outcome;

/** Databases with the same contents, one after the other. */
const createTemplate = async (
  serverUrl: string,
): Promise<{ url: string; copy: () => Promise<string>; drop: (url: string) => Promise<void> }> => {
  const url = await createDatabase(serverUrl);
  const pool = createBenchPool(serverUrl, 1);
  const nameOf = (databaseUrl: string): string => new URL(databaseUrl).pathname.slice(1);
  return {
    url,
    copy: async () => {
      const copy = new URL(url);
      copy.pathname = `bench_${randomBytes(8).toString('hex')}`;
      await pool.query(`create database ${nameOf(copy.href)} template ${nameOf(url)}`);
      await pool.query('checkpoint');
      return copy.href;
    },
    drop: async (databaseUrl) => void (await pool.query(`drop database ${nameOf(databaseUrl)} with (force)`)),
  };
};

const startFilledKafka = async (count: number, say: (line: string) => void): Promise<Kafka | undefined> => {
  try {
    const kafka = await startKafka({ report: say });
    await kafka.createTopics(consumedTopics.map((topic) => ({ topic, partitions: partitionCount })));
    await produceAll(kafka.brokers, createBenchLog(count).measured);
    return kafka;
  } catch (error) {
    if (!(error instanceof PartAbsent)) throw error;
    say(`!!! raw consumption is NOT measured. ${error.message}`);
    return undefined;
  }
};

interface Side {
  readonly name: string;
  readonly side: 'projector' | 'floor' | 'kafka';
  readonly connections: number;
  readonly outcomes: Outcome[];
}

const perSecond = ({ outcomes }: Side): number[] => outcomes.map(({ records, seconds }) => records / seconds);

const run = async ({ seconds, rounds }: Effort, say: (line: string) => void): Promise<Findings> => {
  const count = seconds * 10_000;
  // As durable as in production; dev-stack's own default is not.
  const server = await startPostgres({ settings: { fsync: 'on', full_page_writes: 'on' } });
  const template = await createTemplate(server.url);
  await migrate(template.url);
  const pool = createBenchPool(template.url, 2);
  for (const topic of consumedTopics) await preparePositions(pool, activeProjection, topic, partitionCount);
  await pool.end();
  const recordingFile = join(runDirectory('bench'), 'recording');
  await runSide({ side: 'seed', count, connections: 1, target: template.url, recordingFile });
  const recorded = await template.copy();
  await runSide({ side: 'record', count, connections: 1, target: recorded, recordingFile });
  await template.drop(recorded);
  const kafka = await startFilledKafka(count, say);

  const sideOf = (name: string, side: Side['side'], connections: number): Side => ({
    name,
    side,
    connections,
    outcomes: [],
  });
  const four = {
    projector: sideOf('projector, 4 connections', 'projector', 4),
    floor: sideOf('floor, 4 connections', 'floor', 4),
  };
  const one = {
    projector: sideOf('projector, 1 connection', 'projector', 1),
    floor: sideOf('floor, 1 connection', 'floor', 1),
  };
  const raw = sideOf('raw kafkajs', 'kafka', 1);
  const sides = [four.projector, four.floor, one.projector, one.floor, ...(kafka === undefined ? [] : [raw])];
  for (let round = 0; round < rounds; round += 1) {
    for (const { name, side, connections, outcomes } of rotated(sides, round)) {
      const target = side === 'kafka' ? String(kafka?.brokers) : await template.copy();
      const outcome = await measureSide({ side, count, connections, target, recordingFile });
      if (side !== 'kafka') await template.drop(target);
      outcomes.push(outcome);
      say(
        `round ${round + 1}: ${name.padEnd(26)}${figure(outcome.records / outcome.seconds)} records/s, ${figure((outcome.cpuSeconds / outcome.records) * 1e6)} µs of Node each`,
      );
    }
  }
  const ratios = {
    four: ratioSpread(perSecond(four.projector), perSecond(four.floor)),
    one: ratioSpread(perSecond(one.projector), perSecond(one.floor)),
  };
  return {
    lines: [
      `${count} records in chunks of up to ${chunkRecords}, ${consumedTopics.length} topics of ${partitionCount} partitions, ${rounds} rounds; PostgreSQL with fsync`,
      ...sides.map((side) => `${side.name}: ${figure(spreadOf(perSecond(side)).median)} records/s`),
      ratioLine('projector / floor, 4 connections', ratios.four),
      ratioLine('projector / floor, 1 connection', ratios.one),
    ],
    figures: { ratios, sides: Object.fromEntries(sides.map(({ name, outcomes }) => [name, outcomes])) },
  };
};

export const worker: Benchmark = {
  summary: "the room-worker's projector against the bare writes of the same rows, and raw Kafka consumption",
  defaults: { seconds: 6, rounds: 5 },
  run,
};
