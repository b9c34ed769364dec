import { expect, test } from 'vitest';
import { beginningsOf } from './beginnings.ts';
import { OffsetOutOfRangeError } from './event-log.ts';

const bounds = async (topic: string) =>
  topic === 'a'
    ? [
        { partition: 0, low: 5n, high: 10n },
        { partition: 1, low: 0n, high: 3n },
      ]
    : [{ partition: 0, low: 0n, high: 8n }];

test.each([
  ['at the last record that was read', 'a', 10n, 9n, 9n],
  ['there, also where nothing visible followed it', 'a', 10n, 6n, 6n],
  ['there, where it is the first that is held', 'a', 6n, 5n, 5n],
  ['after it, where retention has dropped it', 'a', 7n, 4n, 7n],
  ['at the position, where no record is known', 'a', 7n, undefined, 7n],
  ['by the bounds of its own topic', 'b', 7n, 4n, 4n],
])('reading begins %s', async (_, topic, offset, lastRead, beginning) => {
  const other = { topic: 'a', partition: 1, offset: 3n };
  const starts = [other, { topic, partition: 0, offset, lastRead }];
  expect(await beginningsOf(starts, bounds)).toEqual([other, { topic, partition: 0, offset: beginning }]);
});

test.each([
  ['lies beyond the log', 'a', 1, 4n],
  ['was dropped by retention', 'a', 0, 4n],
  ['lies in a partition that the log does not have', 'b', 1, 4n],
])('a position that %s is refused, whatever was read before it', async (_, topic, partition, offset) => {
  for (const lastRead of [undefined, 2n])
    await expect(beginningsOf([{ topic, partition, offset, lastRead }], bounds)).rejects.toThrow(OffsetOutOfRangeError);
});
