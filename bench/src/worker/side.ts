// One measurement in a process of its own, as the service is one. Prints what it took as its last line.
import { readFile, writeFile } from 'node:fs/promises';
import { deserialize, serialize } from 'node:v8';
import { createBenchPool, projectBatches } from './project-batches.ts';
import { consumeRaw } from './raw-kafka.ts';
import { type ChunkStatements, recordingOf } from './recording.ts';
import { createBenchLog } from './records.ts';
import { replay } from './replay.ts';

const [side = '', count = '', connections = '', target = '', recordingFile = ''] = process.argv.slice(2);
const concurrency = Number(connections);

const timed = async (records: number, work: () => Promise<void>): Promise<void> => {
  const before = process.cpuUsage();
  const startedAtMs = performance.now();
  await work();
  const seconds = (performance.now() - startedAtMs) / 1000;
  const { user, system } = process.cpuUsage(before);
  console.log(JSON.stringify({ records, seconds, cpuSeconds: (user + system) / 1e6 }));
};

const { seed, measured } = createBenchLog(Number(count));
const records = measured.reduce((sum, batch) => sum + batch.records.length, 0);

switch (side) {
  case 'seed': {
    const pool = createBenchPool(target, 2);
    await projectBatches(pool, seed, 1);
    await pool.end();
    break;
  }
  case 'record': {
    const pool = createBenchPool(target, 2);
    const recording = recordingOf(pool);
    await projectBatches(recording.pool, measured, 1);
    await pool.end();
    await writeFile(recordingFile, serialize(recording.chunks));
    break;
  }
  case 'projector': {
    const pool = createBenchPool(target, concurrency);
    await timed(records, () => projectBatches(pool, measured, concurrency));
    await pool.end();
    break;
  }
  case 'floor': {
    const chunks: ChunkStatements[] = deserialize(await readFile(recordingFile));
    const pool = createBenchPool(target, concurrency);
    await timed(records, () => replay(pool, measured, chunks, concurrency));
    await pool.end();
    break;
  }
  case 'kafka':
    await timed(records, () => consumeRaw(target.split(','), records));
    break;
  default:
    throw new Error(`there is no side ${side}`);
}
process.exit(0);
