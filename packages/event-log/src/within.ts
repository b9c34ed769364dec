import { setTimeout as sleep } from 'node:timers/promises';

/** Waits for work that may hang or fail, but not longer than this. */
export async function within(deadlineMs: number, work: Promise<unknown>): Promise<void> {
  const deadline = Promise.withResolvers<void>();
  const timer = setTimeout(deadline.resolve, deadlineMs);
  await Promise.race([Promise.allSettled([work]), deadline.promise]);
  clearTimeout(timer);
}

/** Resolves after so long, or as soon as the signal is given. */
export function rest(delayMs: number, signal: AbortSignal): Promise<void> {
  return sleep(delayMs, undefined, { signal }).catch(() => undefined);
}
