/** Both clocks of a process, in milliseconds: one for durations, that nobody sets, and the time of day. */
interface Clocks {
  readonly elapsed: () => number;
  readonly now: () => number;
}

const systemClocks: Clocks = { elapsed: () => performance.now(), now: () => Date.now() };

/** A moment by both clocks. */
export interface Moment {
  readonly elapsedMs: number;
  readonly nowMs: number;
}

export const thisMoment = ({ elapsed, now }: Clocks = systemClocks): Moment => ({ elapsedMs: elapsed(), nowMs: now() });

/**
 * Milliseconds since then, by the clock that shows more of them: that of durations stands still while the machine is
 * suspended, and the time of day may be set back.
 */
export const msSince = ({ elapsedMs, nowMs }: Moment, { elapsed, now }: Clocks = systemClocks): number =>
  Math.max(elapsed() - elapsedMs, now() - nowMs);
