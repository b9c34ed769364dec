import { expect, test } from 'vitest';
import { startPositions } from './start-positions.ts';

test('reading is to begin at the last record that was applied, where it is known', () => {
  const place = { topic: 'a', partition: 0 };
  const known = { ...place, nextOffset: 10n, last: { offset: 7n, recordedAtMs: 1 } };
  const unknown = { ...place, partition: 1, nextOffset: 4n, last: null };
  // An older release has gone on from there without noting what it applied.
  const longAgo = { ...place, partition: 2, nextOffset: 10_008n, last: { offset: 7n, recordedAtMs: 1 } };
  const justNot = { ...place, partition: 3, nextOffset: 10_007n, last: { offset: 7n, recordedAtMs: 1 } };
  expect(startPositions([known, unknown, longAgo, justNot])).toEqual([
    { ...place, offset: 10n, lastRead: 7n },
    { ...place, partition: 1, offset: 4n },
    { ...place, partition: 2, offset: 10_008n },
    { ...place, partition: 3, offset: 10_007n, lastRead: 7n },
  ]);
});
