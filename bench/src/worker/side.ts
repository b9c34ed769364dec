// One measurement in a process of its own, as the service is one. Prints what it took as its last line.
import { readFile, writeFile } from 'node:fs/promises';
import { deserialize, serialize } from 'node:v8';
import { createBenchPool, projectBatches } from './project-batches.ts';
import { consumeRaw } from './raw-kafka.ts';
import { type ChunkStatements, recordingOf } from './recording.ts';
import { createBenchLog } from './records.ts';
import { replay } from './replay.ts';
import { type Stopwatch, startStopwatch } from './stopwatch.ts';

const [side = '', count = '', connections = '', target = '', recordingFile = ''] = process.argv.slice(2);
const concurrency = Number(connections);

interface Recording {
  readonly warmUp: readonly ChunkStatements[];
  readonly measured: readonly ChunkStatements[];
}

const timed = async (work: () => Promise<void>): Promise<Stopwatch> => {
  // What came before is no part of what is timed.
  globalThis.gc?.();
  const stopwatch = startStopwatch();
  await work();
  return stopwatch;
};

const { seed, warmUp, measured } = createBenchLog(Number(count));
const records = measured.reduce((sum, batch) => sum + batch.records.length, 0);

const tell = (stopwatch: Stopwatch): void => console.log(JSON.stringify({ records, ...stopwatch() }));

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
    await projectBatches(recording.pool, warmUp, 1);
    const warmUpChunks = recording.chunks.splice(0);
    await projectBatches(recording.pool, measured, 1);
    await pool.end();
    await writeFile(recordingFile, serialize({ warmUp: warmUpChunks, measured: recording.chunks } satisfies Recording));
    break;
  }
  case 'projector': {
    const pool = createBenchPool(target, concurrency);
    await projectBatches(pool, warmUp, concurrency);
    tell(await timed(() => projectBatches(pool, measured, concurrency)));
    await pool.end();
    break;
  }
  case 'floor': {
    const recording: Recording = deserialize(await readFile(recordingFile));
    const pool = createBenchPool(target, concurrency);
    await replay(pool, warmUp, recording.warmUp, concurrency);
    tell(await timed(() => replay(pool, measured, recording.measured, concurrency)));
    await pool.end();
    break;
  }
  case 'kafka':
    tell(await consumeRaw(target.split(','), records));
    break;
  default:
    throw new Error(`there is no side ${side}`);
}
process.exit(0);
