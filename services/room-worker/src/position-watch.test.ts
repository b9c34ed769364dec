import { partitionName, topics } from '@realtime-service/contracts';
import { createLogger } from '@realtime-service/telemetry';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { noteSeen, type Positions } from './lane-gate.ts';
import { noticeRestore } from './position-watch.ts';

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
