import { beforeEach, expect, test } from 'vitest';
import { createRateLimit, type RateLimit } from './rate-limit.ts';

let nowMs: number;
let limit: RateLimit;

beforeEach(() => {
  nowMs = 1_000_000;
  limit = createRateLimit(2, () => nowMs);
});

test('so many requests of one key pass, each key for itself', () => {
  expect([limit('a'), limit('a'), limit('b')]).toEqual([undefined, undefined, undefined]);
  expect(limit('a')).toBe(60);
  expect(limit('b')).toBeUndefined();
});

test('the wait ends with the minute, and then all may ask again', () => {
  limit('a');
  limit('a');
  nowMs += 59_000;
  expect(limit('a')).toBe(1);
  nowMs += 1_000;
  expect(limit('a')).toBeUndefined();
});

test('asking while refused does not make the wait longer', () => {
  for (let n = 0; n < 100; n += 1) limit('a');
  nowMs += 60_000;
  expect(limit('a')).toBeUndefined();
});

test('to count none tells whether there have been too many', () => {
  for (let n = 0; n < 3; n += 1) expect(limit('a', 0)).toBeUndefined();
  for (let n = 0; n < 3; n += 1) limit('a');
  nowMs += 59_000;
  expect(limit('a', 0)).toBe(1);
  nowMs += 1_000;
  expect(limit('a', 0)).toBeUndefined();
});

test('what many strangers leave behind is bounded, and forgets them first', () => {
  limit('first');
  limit('first');
  for (let n = 0; n < 10_000; n += 1) limit(`stranger ${n}`);
  limit('stranger 9999');
  expect(limit('stranger 9999')).toBe(60);
  expect(limit('first')).toBeUndefined();
});
