// A thread of `realtime rebuild`: fills the second set with its share of the partitions until it is told to stop.
import { randomUUID } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { topics } from '@realtime-service/contracts';
import { openEventLog } from '@realtime-service/event-log';
import {
  activeProjection,
  createPool,
  createRebuildStore,
  purgeFacts,
  readNextOffsets,
  readPositions,
  rebuildProjection,
  rebuildUrlOf,
} from '@realtime-service/room-store';
import { startPositions } from '@realtime-service/room-worker';
import { readSettings } from '@realtime-service/telemetry';
import { stopWithinMs } from './batch-outcomes.ts';
import { CliSettings } from './config.ts';
import { createFiller } from './rebuild-fill.ts';
import { tellWarnings } from './tell-warnings.ts';

export interface RebuildShare {
  readonly index: number;
  readonly count: number;
  readonly partitionCount: number;
  readonly acceptsMisplaced: boolean;
  /** Whether nothing has been written to the set yet. */
  readonly isEmpty: boolean;
}

const maxBatchRecords = 1_500;
/** Compressed, so few can be 10,000 records, which take a good part of the thread's memory. */
const maxFetchBytes = 512 * 1024;
const topic = topics.roomEvents;
const { index, count, partitionCount, acceptsMisplaced, isEmpty }: RebuildShare = workerData;
/**
 * One is read and written while another is decoded. Where facts about one entity may stand in several partitions, only
 * one: rows are not locked, and one lane would write over what another has written meanwhile.
 */
const lanesAtOnce = acceptsMisplaced ? 1 : 2;

// Read here, since what gets tokens for a broker cannot be handed to a thread.
const settings = readSettings('realtime', "Operators' commands.", CliSettings);
const pool = createPool({
  url: rebuildUrlOf(settings.database.directUrl),
  maxConnections: lanesAtOnce + 4,
  applicationName: 'realtime-rebuild',
  onError: () => undefined,
});
const log = await openEventLog(settings, {
  clientId: 'realtime-rebuild',
  pool,
  writeLog: tellWarnings((text) => void process.stderr.write(text)),
});

const consumer = log.consume({
  // Of its own: the shares decide who reads what, and the rebuild of another database would be given half of it.
  group: `realtime-rebuild-${randomUUID()}`,
  topics: [topic],
  concurrency: lanesAtOnce,
  maxBatchRecords,
  maxFetchBytes,
  onBatch: createFiller({
    pool,
    store: createRebuildStore(pool, isEmpty),
    partitionCount,
    acceptsMisplaced,
    isOurs: (partition) => partition % count === index,
    readLimits: () => readNextOffsets(pool, activeProjection, topic),
    purge: (partition) => purgeFacts(pool, { projection: rebuildProjection, topic, partition }),
  }),
  startAt: async () => startPositions(await readPositions(pool, rebuildProjection)),
});

parentPort?.once('message', async () => {
  await consumer.stop(stopWithinMs);
  await log.close();
  await pool.end();
});
await consumer.done;
parentPort?.close();
