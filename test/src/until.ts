import { setTimeout as delay } from 'node:timers/promises';

/** Resolves with the first value that is not null, undefined or false; a condition with a deadline, never a fixed wait. */
export const until = async <T>(
  what: string,
  condition: () => Promise<T> | T,
  withinMs = 10_000,
): Promise<Exclude<T, null | undefined | false>> => {
  const deadlineMs = performance.now() + withinMs;
  let lastError: unknown;
  for (;;) {
    try {
      const value = await condition();
      if (value !== null && value !== undefined && value !== false)
        return value as Exclude<T, null | undefined | false>;
    } catch (error) {
      lastError = error;
    }
    if (performance.now() > deadlineMs)
      throw new Error(`${what} did not come true within ${withinMs} ms`, { cause: lastError });
    await delay(20);
  }
};
