import { consumedTopics, partitionName, topics } from '@realtime-service/contracts';
import type { BatchOutcome } from '@realtime-service/event-log';
import { createPool, PartitionCountChangedError } from '@realtime-service/room-store';
import { createLogger } from '@realtime-service/telemetry';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { createFakeLog } from '../test/fake-log.ts';
import { noteSeen, type Positions } from './lane-gate.ts';
import { createWorkerMetrics } from './metrics.ts';
import { noticeRestore, notingPositions, startPositionWatch } from './position-watch.ts';

const at = (...nextOffsets: bigint[]) =>
  nextOffsets.map((nextOffset, partition) => ({ topic: topics.roomEvents, partition, nextOffset, last: null }));
const positionsOf = (...nextOffsets: bigint[]): Positions =>
  new Map(at(...nextOffsets).map((each) => [partitionName(each), each.nextOffset]));
const logger = createLogger({ service: 'test', destination: { write: () => undefined } });

describe('a look at where the database stands', () => {
  const consumer = { reposition: vi.fn() };
  let seen: Positions;

  beforeEach(() => {
    consumer.reposition.mockReset();
    seen = positionsOf(5n, 9n);
  });

  const look = (read: () => Promise<ReturnType<typeof at>>) => noticeRestore({ consumer, seen, logger }, read);

  test('notices a restore once, and forgets what was seen of all partitions', async () => {
    for (let times = 0; times < 2; times += 1) expect(await look(async () => at(5n, 7n))).toEqual(positionsOf(5n, 7n));
    expect(consumer.reposition).toHaveBeenCalledTimes(1);
    expect(seen).toEqual(positionsOf(5n, 7n));
    await look(async () => at(5n, 6n));
    expect(consumer.reposition).toHaveBeenCalledTimes(2);
  });

  test('takes no batch for a restore that is applied while the positions are read', async () => {
    await look(async () => {
      const positions = at(6n, 9n);
      noteSeen(seen, at(7n, 9n));
      return positions;
    });
    expect(consumer.reposition).not.toHaveBeenCalled();
    expect(seen).toEqual(positionsOf(7n, 9n));
  });
});

describe('what was durable of a batch', () => {
  const place = { topic: topics.roomEvents, partition: 0 };
  const batch = { ...place, fetchedOffset: 5n, nextOffset: 9n, records: [], heartbeat: async () => true };

  test.each<[BatchOutcome, Positions]>([
    [{ kind: 'advance', nextOffset: 9n }, positionsOf(9n)],
    [{ kind: 'retry', nextOffset: 7n, afterMs: 1_000 }, positionsOf(7n)],
    [{ kind: 'stop', error: new Error('another log') }, new Map()],
  ])('is noted for the watch and for the gate: $kind', async (outcome, noted) => {
    const seenByWatch: Positions = new Map();
    const seenByGate: Positions = new Map();
    const project = notingPositions(async () => outcome, seenByWatch, seenByGate);
    expect(await project(batch)).toBe(outcome);
    expect([seenByWatch, seenByGate]).toEqual([noted, noted]);
  });
});

test('a topic that was grown ends the worker, also while the database is away', async () => {
  const pool = createPool({
    url: 'postgres://localhost:1/away',
    maxConnections: 1,
    applicationName: 'test',
    onError: () => undefined,
  });
  const bounds = async () => [0, 1, 2].map((partition) => ({ partition, low: 0n, high: 0n }));
  const watch = startPositionWatch({
    pool,
    log: { ...createFakeLog(), bounds },
    consumer: {
      done: Promise.resolve(),
      isReady: () => true,
      heldBack: () => [],
      reposition: () => {},
      stop: async () => {},
    },
    consumergroup: 'group',
    partitionCounts: new Map(consumedTopics.map((topic, at) => [topic, at === 0 ? 3 : 2])),
    seen: new Map(),
    gate: { hasReachedKnown: async () => true },
    metrics: createWorkerMetrics(),
    logger,
  });
  onTestFinished(async () => {
    watch.stop();
    await pool.end();
  });
  await expect(watch.failed).rejects.toThrow(PartitionCountChangedError);
});
