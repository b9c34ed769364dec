import { beforeEach, expect, test } from 'vitest';
import { createVerifiedCache, type VerifiedCache } from './verified-cache.ts';

let cache: VerifiedCache<string>;
beforeEach(() => {
  cache = createVerifiedCache();
});

test('keeps an entry for a minute', () => {
  cache.set('token', 'u-7', 300_000, 0);
  expect(cache.get('token', 59_999)).toBe('u-7');
  expect(cache.get('token', 60_000)).toBeUndefined();
});

test("but not past the token's end", () => {
  cache.set('token', 'u-7', 10_000, 0);
  expect(cache.get('token', 9_999)).toBe('u-7');
  expect(cache.get('token', 10_000)).toBeUndefined();
});

test('forgets an entry for good where the clock was set back', () => {
  cache.set('token', 'u-7', 3_900_000, 3_600_000);
  expect(cache.get('token', 0)).toBeUndefined();
  expect(cache.get('token', 3_600_000)).toBeUndefined();
});

test('knows one token from another', () => {
  cache.set('token', 'u-7', 300_000, 0);
  expect(cache.get('token ', 0)).toBeUndefined();
  expect(cache.get('toke', 0)).toBeUndefined();
});

test('knows tokens apart that end alike', () => {
  const end = 'x'.repeat(100);
  cache.set(`a${end}`, 'u-7', 300_000, 0);
  expect(cache.get(`b${end}`, 0)).toBeUndefined();
  expect(cache.get(`a${end}`, 0)).toBe('u-7');
});

test('holds 10,000 tokens, and lets the oldest go', () => {
  for (let n = 0; n <= 10_000; n += 1) cache.set(`token-${n}`, `u-${n}`, 300_000, 0);
  expect(cache.get('token-0', 0)).toBeUndefined();
  expect(cache.get('token-1', 0)).toBe('u-1');
  expect(cache.get('token-10000', 0)).toBe('u-10000');
});

test('holds 32 MiB of them', () => {
  const long = (n: number): string => String(n).padStart(16_384, 'x');
  for (let n = 0; n <= 2_048; n += 1) cache.set(long(n), `u-${n}`, 300_000, 0);
  expect(cache.get(long(0), 0)).toBeUndefined();
  expect(cache.get(long(1), 0)).toBe('u-1');
  expect(cache.get(long(2_048), 0)).toBe('u-2048');
});

test('a token that is verified again counts once', () => {
  const long = 'x'.repeat(16_384);
  for (let n = 0; n < 5_000; n += 1) cache.set(long, 'u-7', 300_000, 0);
  cache.set('other', 'u-8', 300_000, 0);
  expect(cache.get(long, 0)).toBe('u-7');
});
