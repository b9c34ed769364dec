import type { Pool } from '@realtime-service/room-store';
import { createLogger } from '@realtime-service/telemetry';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { startPurging } from './purging.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('purges again every ten minutes, and not while a purge is under way', async () => {
  const answers: PromiseWithResolvers<unknown>[] = [];
  const query = vi.fn(() => {
    const answer = Promise.withResolvers<unknown>();
    answers.push(answer);
    return answer.promise;
  });
  const lines: string[] = [];
  const logger = createLogger({ service: 'test', destination: { write: (line) => void lines.push(line) } });
  const purging = startPurging({ pool: { query } as unknown as Pool, logger });
  await vi.advanceTimersByTimeAsync(600_000);
  const atOnce = answers.length;
  expect(atOnce).toBeGreaterThan(0);
  await vi.advanceTimersByTimeAsync(1_200_000);
  expect(query).toHaveBeenCalledTimes(atOnce);
  for (const { reject } of answers) reject(new Error('cancelled'));
  await vi.advanceTimersByTimeAsync(600_000);
  expect(lines).toEqual([expect.stringContaining('purge failed')]);
  expect(query).toHaveBeenCalledTimes(2 * atOnce);
  purging.stop();
  await vi.advanceTimersByTimeAsync(600_000);
  expect(query).toHaveBeenCalledTimes(2 * atOnce);
});
