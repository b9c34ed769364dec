import { setTimeout as delay } from 'node:timers/promises';

type Held<T> = Exclude<T, null | undefined | false>;

/**
 * Resolves with the first value that holds: a condition with a deadline, never a fixed wait. One that throws does not
 * hold yet; where the last look threw, its error is the cause.
 */
export const until = async <T>(what: string, condition: () => Promise<T> | T, withinMs = 10_000): Promise<Held<T>> => {
  const deadlineMs = performance.now() + withinMs;
  for (;;) {
    let cause: unknown;
    try {
      const value = await condition();
      if (value !== null && value !== undefined && value !== false) return value as Held<T>;
    } catch (error) {
      cause = error;
    }
    if (performance.now() > deadlineMs) throw new Error(`${what} did not come true within ${withinMs} ms`, { cause });
    await delay(10);
  }
};
