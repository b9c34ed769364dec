import { describe, expect, it } from 'vitest';
import { boundedText, Timestamp } from './ids.ts';

describe('boundedText', () => {
  it.each([
    { of: 'one byte each', letter: 'a', bytes: 1 },
    { of: 'two bytes each', letter: 'é', bytes: 2 },
    { of: 'three bytes each', letter: '€', bytes: 3 },
    { of: 'four bytes each', letter: '𝄞', bytes: 4 },
  ])('counts bytes of UTF-8: letters of $of', ({ letter, bytes }) => {
    const text = boundedText(12);
    expect(text.safeParse(letter.repeat(12 / bytes)).success).toBe(true);
    expect(text.safeParse(letter.repeat(12 / bytes + 1)).success).toBe(false);
  });
});

describe('a timestamp', () => {
  it.each([
    ['0001-01-01T00:00:00Z', true],
    ['0001-01-01T00:00:00+00:01', false],
    ['9999-12-31T23:59:59.999Z', true],
    ['9999-12-31T23:59:59.999-00:01', false],
  ])('lies within the years 1 to 9999 of universal time: %s', (text, isOne) => {
    expect(Timestamp.safeParse(text).success).toBe(isOne);
  });
});
