import { expect, test } from 'vitest';
import { startPositions } from './start-positions.ts';

test('reading is to begin at the last record that was applied, where it is known', () => {
  const place = { topic: 'a', partition: 0 };
  const known = { ...place, nextOffset: 10n, last: { offset: 7n, recordedAtMs: 1 } };
  const unknown = { ...place, partition: 1, nextOffset: 4n, last: null };
  expect(startPositions([known, unknown])).toEqual([
    { ...place, offset: 10n, lastRead: 7n },
    { ...place, partition: 1, offset: 4n },
  ]);
});
