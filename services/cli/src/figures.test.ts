import { expect, test } from 'vitest';
import { plural } from './figures.ts';

test.each([
  [0, '0 events'],
  [1, '1 event'],
  [1n, '1 event'],
  [2, '2 events'],
  [1_234_567n, '1,234,567 events'],
])('%s of something', (count, told) => {
  expect(plural(count, 'event')).toBe(told);
});

test('a plural of its own', () => {
  expect(plural(2, 'live session or room', 'live sessions and rooms')).toBe('2 live sessions and rooms');
});
