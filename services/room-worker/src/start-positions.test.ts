import { expect, test } from 'vitest';
import { startPositions } from './start-positions.ts';

test('reading is to begin at the last record that was applied, where it is known', () => {
  const place = { topic: 'a', partition: 0 };
  const known = { ...place, nextOffset: 10n, last: { offset: 7n, recordedAtMs: 1 } };
  const unknown = { ...place, partition: 1, nextOffset: 4n, last: null };
  // An older release has gone on from there without noting what it applied.
  const longAgo = { ...place, partition: 2, nextOffset: 900_000n, last: { offset: 7n, recordedAtMs: 1 } };
  expect(startPositions([known, unknown, longAgo])).toEqual([
    { ...place, offset: 10n, lastRead: 7n },
    { ...place, partition: 1, offset: 4n },
    { ...place, partition: 2, offset: 900_000n },
  ]);
});
