import { describe, expect, it } from 'vitest';
import { ratioSpread, rotated, spreadOf } from './statistics.ts';

describe('spreadOf', () => {
  it.each([
    { values: [3], spread: { min: 3, median: 3, max: 3 } },
    { values: [9, 1, 5], spread: { min: 1, median: 5, max: 9 } },
    { values: [4, 1, 2, 30], spread: { min: 1, median: 3, max: 30 } },
    { values: [30, 4, 2, 1], spread: { min: 1, median: 3, max: 30 } },
    { values: [10, 9, 2], spread: { min: 2, median: 9, max: 10 } },
  ])('of $values', ({ values, spread }) => {
    expect(spreadOf(values)).toEqual(spread);
  });

  it('leaves the values as they are', () => {
    const given = [3, 1, 2];
    spreadOf(given);
    expect(given).toEqual([3, 1, 2]);
  });

  it('refuses to speak of nothing', () => {
    expect(() => spreadOf([])).toThrow(RangeError);
  });
});

describe('ratioSpread', () => {
  it('compares within each round', () => {
    // The ratio of the medians would be 1.
    expect(ratioSpread([10, 20, 30], [20, 40, 10])).toEqual({ min: 0.5, median: 0.5, max: 3 });
  });

  it('refuses sides that have not run equally often', () => {
    expect(() => ratioSpread([1, 2], [1])).toThrow(RangeError);
  });
});

describe('rotated', () => {
  it('lets every side begin equally often', () => {
    const sides = ['a', 'b', 'c'];
    expect([0, 1, 2, 3].map((round) => rotated(sides, round).join(''))).toEqual(['abc', 'bca', 'cab', 'abc']);
  });
});
