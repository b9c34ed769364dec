/** A moment by both clocks: by one that nobody sets, and by the time of day. */
export interface Moment {
  readonly steadyMs: number;
  readonly wallMs: number;
}

export const thisMoment = (): Moment => ({ steadyMs: performance.now(), wallMs: Date.now() });

/**
 * Milliseconds since then, by the clock that shows more of them: one stands still while the machine is
 * suspended, and the other one may be set back.
 */
export const msSince = ({ steadyMs, wallMs }: Moment): number =>
  Math.max(performance.now() - steadyMs, Date.now() - wallMs);
