import type { Random } from './random.ts';

/** What a process waits for: to be let go, to meet an error there, or never to go on. */
interface Turn {
  readonly process: SimulatedProcess;
  readonly point: string;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface Timer {
  readonly process: SimulatedProcess;
  readonly atMs: number;
  readonly resolve: () => void;
}

/** A process whose every step outwards waits to be let go. */
export interface SimulatedProcess {
  readonly name: string;
  isDead: boolean;
  /** Held back as a whole: a zombie in the making. */
  isPaused: boolean;
  /** Its clock's error, milliseconds. */
  skewMs: number;
}

/**
 * Whose turn it is: the only source of order. All that runs between two turns runs to its next wait, so a run is a
 * sequence of turns, and the same seed gives the same one.
 */
export class Scheduler {
  nowMs = Date.parse('2026-03-01T12:00:00Z');
  /** How often each point was let go, and how often a process died there. */
  readonly crashedAt = new Map<string, number>();
  turns = 0;
  readonly #random: Random;
  #waiting: Turn[] = [];
  #timers: Timer[] = [];
  #errorRate = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** The share of turns that meet an error, for as long as faults last. */
  set errorRate(rate: number) {
    this.#errorRate = rate;
  }

  /** Waits for the process's turn; `toError` makes the error that may be met there. */
  wait(process: SimulatedProcess, point: string, toError: () => Error): Promise<void> {
    return new Promise((resolve, reject) => {
      if (process.isDead) return;
      const isFault = this.#errorRate > 0 && this.#random.isLikely(this.#errorRate);
      this.#waiting.push({ process, point, resolve: isFault ? () => reject(toError()) : resolve, reject });
    });
  }

  /** Resolves when the clock has come so far. */
  delay(process: SimulatedProcess, ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = { process, atMs: this.nowMs + Math.max(ms, 1), resolve };
      this.#timers.push(timer);
      signal?.addEventListener('abort', () => {
        this.#timers = this.#timers.filter((each) => each !== timer);
        reject(signal.reason);
      });
    });
  }

  get isIdle(): boolean {
    return !this.#waiting.some(({ process }) => !process.isPaused);
  }

  isWaitingAt(process: SimulatedProcess, point: string): boolean {
    return this.#waiting.some((turn) => turn.process === process && turn.point === point);
  }

  /** Lets one of those who wait go on, and everything that follows run to its next wait. */
  async turn(): Promise<void> {
    const ready = this.#waiting.filter(({ process }) => !process.isPaused);
    if (ready.length === 0) return;
    const turn = this.#random.pick(ready);
    this.#waiting.splice(this.#waiting.indexOf(turn), 1);
    this.turns += 1;
    turn.resolve();
    await settle();
  }

  async advance(ms: number): Promise<void> {
    this.nowMs += ms;
    const due = this.#timers.filter(({ atMs, process }) => atMs <= this.nowMs && !process.isPaused);
    this.#timers = this.#timers.filter((timer) => !due.includes(timer));
    for (const { resolve } of due.sort((left, right) => left.atMs - right.atMs)) resolve();
    await settle();
  }

  /** Everything of the process ends where it is; what it has asked for is never answered. */
  kill(process: SimulatedProcess): readonly string[] {
    process.isDead = true;
    const points = this.#waiting.filter((turn) => turn.process === process).map(({ point }) => point);
    for (const point of points) this.crashedAt.set(point, (this.crashedAt.get(point) ?? 0) + 1);
    this.#waiting = this.#waiting.filter((turn) => turn.process !== process);
    this.#timers = this.#timers.filter((timer) => timer.process !== process);
    return points;
  }
}

/** Everything that can go on by itself has done so. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
