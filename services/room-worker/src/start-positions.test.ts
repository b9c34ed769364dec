import { expect, test } from 'vitest';
import { startPositions } from './start-positions.ts';

const bounds = async (topic: string) =>
  topic === 'a'
    ? [
        { partition: 0, low: 5n, high: 10n },
        { partition: 1, low: 0n, high: 3n },
      ]
    : [{ partition: 0, low: 0n, high: 8n }];

test.each([
  ['at the last record that was applied', 'a', 0, 10n, 9n, 9n],
  ['there, also where nothing visible followed it', 'a', 0, 10n, 6n, 6n],
  ['there, where it is the first that is held', 'a', 0, 6n, 5n, 5n],
  ['after it, where retention has dropped it', 'a', 0, 7n, 4n, 7n],
  ['at the position, where no record is known', 'a', 0, 7n, null, 7n],
  ['at a position that lies beyond the log', 'a', 1, 4n, 2n, 4n],
  ['at a position in a partition that the log does not have', 'b', 1, 4n, 3n, 4n],
  ['by the bounds of its own topic', 'b', 0, 7n, 4n, 4n],
])('reading begins %s', async (_, topic, partition, nextOffset, lastOffset, offset) => {
  const last = lastOffset === null ? null : { offset: lastOffset, recordedAtMs: 1 };
  const positions = [{ topic, partition, nextOffset, last }];
  expect(await startPositions({ bounds }, positions)).toEqual([{ topic, partition, offset }]);
});
