import { partitionName } from '@realtime-service/contracts';
import type { LogBatch } from '@realtime-service/event-log';

/**
 * Handles all batches, those of a partition one after the other, `concurrency` partitions at once: as a consumer does.
 */
export const consumeAll = async (
  batches: readonly LogBatch[],
  concurrency: number,
  handle: (batch: LogBatch) => Promise<unknown>,
): Promise<void> => {
  const lanes = [...Map.groupBy(batches, partitionName).values()].map((lane) => [...lane]);
  const work = async (): Promise<void> => {
    for (let lane = lanes.shift(); lane !== undefined; lane = lanes.shift()) {
      const batch = lane.shift();
      if (batch === undefined) continue;
      await handle(batch);
      lanes.push(lane);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, work));
};
