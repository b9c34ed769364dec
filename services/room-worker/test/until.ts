import { setTimeout as delay } from 'node:timers/promises';

type Held<T> = Exclude<T, null | undefined | false>;

/** Resolves with the first value that holds: a condition with a deadline, never a fixed wait. */
export const until = async <T>(what: string, condition: () => Promise<T> | T, withinMs = 10_000): Promise<Held<T>> => {
  const deadlineMs = performance.now() + withinMs;
  for (;;) {
    const value = await condition();
    if (value !== null && value !== undefined && value !== false) return value as Held<T>;
    if (performance.now() > deadlineMs) throw new Error(`${what} did not come true within ${withinMs} ms`);
    await delay(10);
  }
};
