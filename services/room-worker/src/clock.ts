import { setTimeout as delay } from 'node:timers/promises';

/** Time and chance, as the worker's loops meet them: an argument, so that a simulation can have its own. */
export interface Clock {
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Milliseconds since some moment, by a clock that nobody sets: for durations. */
  readonly elapsed: () => number;
  /** Resolves after `ms`; rejects when aborted. */
  readonly delay: (ms: number, signal?: AbortSignal) => Promise<void>;
  /** From 0 up to 1, to spread what would meet again. */
  readonly random: () => number;
}

export const systemClock: Clock = {
  now: Date.now,
  elapsed: () => performance.now(),
  delay: (ms, signal) => delay(ms, undefined, signal && { signal }),
  random: Math.random,
};
