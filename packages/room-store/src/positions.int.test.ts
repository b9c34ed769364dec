import { topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { beforeEach, expect, test } from 'vitest';
import { startDatabase } from '../test/given.ts';
import type { Pool } from './database/database.ts';
import { PartitionCountChangedError, preparePositions, readNextOffsets } from './positions.ts';

describeWith(['postgres'], 'positions', () => {
  const projection = 'counted';
  let pool: Pool;

  beforeEach(async () => {
    ({ pool } = await startDatabase());
  });

  const prepare = (partitionCount: number): Promise<void> =>
    preparePositions(pool, projection, topics.roomEvents, partitionCount);
  const partitions = async (): Promise<number[]> =>
    [...(await readNextOffsets(pool, projection, topics.roomEvents)).keys()].sort((a, b) => a - b);

  test.each([1, 5])('of a topic of three partitions stay as they are where %i are found', async (found) => {
    await prepare(3);
    await expect(prepare(found)).rejects.toThrow(PartitionCountChangedError);
    expect(await partitions()).toEqual([0, 1, 2]);
    await prepare(3);
  });

  test('are those of one topic and one projection: others may have another count', async () => {
    await preparePositions(pool, projection, topics.livekitWebhooks, 4);
    await preparePositions(pool, 'other', topics.roomEvents, 5);
    await prepare(3);
    expect(await partitions()).toEqual([0, 1, 2]);
  });

  test('are made with one count where two are found at once', async () => {
    const found = [3, 5];
    const outcomes = await Promise.allSettled(found.map(prepare));
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
    expect(refused).toEqual([expect.any(PartitionCountChangedError)]);
    const [first] = found.filter((_, at) => outcomes[at]?.status === 'fulfilled');
    expect(await partitions()).toEqual(Array.from({ length: first ?? 0 }, (_, at) => at));
  });
});
