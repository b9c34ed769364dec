import type { Terminal } from './command.ts';
import { figure, plural } from './figures.ts';

const tellEveryMs = 1_000;
const rateOverMs = 5_000;

/** How many records are applied, and of how many. */
export interface Standing {
  readonly done: bigint;
  readonly total: bigint;
}

export const durationOf = (seconds: number): string =>
  seconds < 90
    ? `${Math.ceil(seconds)} s`
    : seconds < 5_400
      ? `${Math.ceil(seconds / 60)} min`
      : `${(seconds / 3_600).toFixed(1)} h`;

/** Tells how far applying has come, at most once a second. */
export const createProgress = (terminal: Terminal) => {
  const samples: { readonly atMs: number; readonly done: bigint }[] = [];
  let toldAtMs = 0;
  return ({ done, total }: Standing): void => {
    const atMs = performance.now();
    samples.push({ atMs, done });
    while (samples.length > 2 && (samples[1]?.atMs ?? atMs) < atMs - rateOverMs) samples.shift();
    if (atMs - toldAtMs < tellEveryMs) return;
    toldAtMs = atMs;
    const first = samples[0] ?? { atMs, done };
    const perSecond = atMs > first.atMs ? (Number(done - first.done) / (atMs - first.atMs)) * 1000 : 0;
    const left = perSecond > 0 ? `, ${durationOf(Number(total - done) / perSecond)} left` : '';
    const percent = total === 0n ? 100 : Number((done * 100n) / total);
    terminal.tell(
      `${figure(done)} of ${plural(total, 'event')} (${percent} %), ${figure(perSecond)} events/s${left}\n`,
    );
  };
};
