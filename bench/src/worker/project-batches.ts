import type { LogBatch } from '@realtime-service/event-log';
import { createPool, createPostgresStore, type Pool } from '@realtime-service/room-store';
import { createProjector, createWorkerMetrics } from '@realtime-service/room-worker';
import { createLogger } from '@realtime-service/telemetry';
import { consumeAll } from './lanes.ts';
import { partitionCount } from './records.ts';

export const createBenchPool = (url: string, maxConnections: number): Pool =>
  createPool({
    url,
    maxConnections,
    applicationName: 'bench',
    onError: (error) => {
      throw error;
    },
  });

/** Has the room-worker's own projector apply the batches. @throws when it would have to try one again */
export const projectBatches = async (pool: Pool, batches: readonly LogBatch[], concurrency: number): Promise<void> => {
  const logger = createLogger({ service: 'bench', level: 'warn' });
  const project = createProjector({
    store: createPostgresStore(pool),
    partitionCount: () => partitionCount,
    metrics: createWorkerMetrics(),
    logger,
  });
  await consumeAll(batches, concurrency, async (batch) => {
    const outcome = await project(batch);
    if (outcome.kind !== 'advance' || outcome.nextOffset !== batch.nextOffset)
      throw new Error(`a batch was not applied: ${outcome.kind}`);
  });
};
