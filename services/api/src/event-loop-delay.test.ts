import { expect, test } from 'vitest';
import { watchEventLoop } from './event-loop-delay.ts';

test('a process that stood still was late by as long as that, not for ever', async () => {
  const watch = watchEventLoop();
  // Right after the watch has looked: there is no sample until it looks again.
  const standing = setInterval(() => {
    for (const untilMs = performance.now() + 1_100; performance.now() < untilMs; );
  }, 1_000);
  await expect.poll(watch.delayMs, { timeout: 10_000 }).toBeGreaterThan(1_000);
  clearInterval(standing);
  expect(watch.delayMs()).toBeLessThan(30_000);
  watch.stop();
});
