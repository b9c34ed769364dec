import { topics } from '@realtime-service/contracts';
import { partitionOf } from '@realtime-service/event-log';
import { createLogger } from '@realtime-service/telemetry';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { answerKeys, createSigningKey, startKeyServer } from '../test/identity-provider.ts';
import { createFreshness } from './freshness.ts';
import { createRoomMaker } from './join/make-room.ts';
import { createKeySet } from './key-set.ts';
import { createRateLimit } from './rate-limit.ts';
import { createVerifiedCache } from './verified-cache.ts';

const logger = createLogger({ service: 'api', destination: { write: () => undefined } });

beforeEach(() => void vi.useFakeTimers({ toFake: ['Date', 'performance'] }));
afterEach(() => void vi.useRealTimers());

/** By an hour, and then this time passes. */
const setBack = (thenMs: number): void => {
  vi.setSystemTime(Date.now() - 3_600_000);
  vi.advanceTimersByTime(thenMs);
};

test('a minute of a rate limit is a minute', () => {
  const limit = createRateLimit(1);
  limit('a');
  expect(limit('a')).toBe(60);
  setBack(60_000);
  expect(limit('a')).toBeUndefined();
});

test('a room is made again after a second', async () => {
  const createRoom = vi.fn(async () => {});
  const makeRoom = createRoomMaker({ createRoom, tokenTtlSeconds: 60 });
  await makeRoom('room-42', []);
  setBack(1_000);
  await makeRoom('room-42', []);
  expect(createRoom).toHaveBeenCalledTimes(2);
});

test('a partition grows old', async () => {
  const partition = partitionOf('room-42', 1);
  let high = 0n;
  const freshness = createFreshness({
    bounds: async (topic) => [{ partition, low: 0n, high: topic === topics.roomEvents ? high : 0n }],
    readPositions: async () => [],
    maxAgeMs: 10_000,
    logger,
  });
  await freshness.look();
  high = 1n;
  await freshness.look();
  setBack(10_001);
  expect(freshness.isCurrent('room-42', 'u-7')).toBe(false);
});

test('a partition that waits when a suspended machine goes on is too old until it is applied', async () => {
  const partition = partitionOf('room-42', 1);
  let high = 0n;
  let nextOffset = 0n;
  const freshness = createFreshness({
    bounds: async (topic) => [{ partition, low: 0n, high: topic === topics.roomEvents ? high : 0n }],
    readPositions: async () => [{ topic: topics.roomEvents, partition, nextOffset, tables: '' }],
    maxAgeMs: 10_000,
    logger,
  });
  await freshness.look();
  high = 1n;
  // The clock that nobody sets has stood still.
  vi.setSystemTime(Date.now() + 3_600_000);
  await freshness.look();
  expect(freshness.isCurrent('room-42', 'u-7')).toBe(false);
  nextOffset = 1n;
  await freshness.look();
  expect(freshness.isCurrent('room-42', 'u-7')).toBe(true);
});

test('keys are fetched again', async () => {
  const [k1, k2] = await Promise.all([createSigningKey('k1'), createSigningKey('k2')]);
  const server = await startKeyServer(answerKeys(k1.jwk));
  const keys = createKeySet({ url: server.url, logger });
  await keys.find({ alg: 'RS256', kid: 'k1' });
  server.answer = answerKeys(k2.jwk);
  setBack(31_000);
  expect(await keys.find({ alg: 'RS256', kid: 'k2' })).toHaveProperty('pem');
  keys.stop();
  await server.close();
});

test('a token that was verified is verified again', () => {
  const cache = createVerifiedCache<string>();
  const setAtMs = Date.now();
  cache.set('token', 'u-7', setAtMs + 300_000, setAtMs);
  setBack(1_000);
  expect(cache.get('token', Date.now())).toBeUndefined();
});
