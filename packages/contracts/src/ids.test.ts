import { describe, expect, it } from 'vitest';
import { boundedText } from './ids.ts';

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
