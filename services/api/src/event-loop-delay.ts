import { monitorEventLoopDelay } from 'node:perf_hooks';

const resolutionMs = 10;
const lookEveryMs = 1_000;

export interface EventLoopWatch {
  /** How late the event loop was within the last second, on average. */
  readonly delayMs: () => number;
  readonly stop: () => void;
}

/**
 * @fastify/under-pressure does the same, but asks for the memory in use as well. That takes a file: where strangers'
 * connections have left none, the process ends.
 */
export const watchEventLoop = (): EventLoopWatch => {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  histogram.enable();
  let delayMs = 0;
  let lookedAtMs = performance.now();
  const timer = setInterval(() => {
    const nowMs = performance.now();
    // Without a single sample it stood still.
    delayMs = histogram.count === 0 ? nowMs - lookedAtMs : Math.max(0, histogram.mean / 1e6 - resolutionMs);
    lookedAtMs = nowMs;
    histogram.reset();
  }, lookEveryMs);
  timer.unref();
  return {
    delayMs: () => delayMs,
    stop: () => {
      clearInterval(timer);
      histogram.disable();
    },
  };
};
