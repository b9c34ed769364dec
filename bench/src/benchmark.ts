import type { Conditions } from './conditions.ts';

/** How long and how often to measure. */
export interface Effort {
  /** Of one side in one round. */
  readonly seconds: number;
  /** Each has every side once. */
  readonly rounds: number;
}

/** What a benchmark found: written as JSON, and as the lines that are printed. */
export interface Findings {
  readonly lines: readonly string[];
  /** All figures of all rounds. */
  readonly figures: Readonly<Record<string, unknown>>;
}

export interface Benchmark {
  readonly summary: string;
  readonly defaults: Effort;
  readonly run: (effort: Effort, say: (line: string) => void) => Promise<Findings>;
}

export interface Report extends Findings {
  readonly benchmark: string;
  readonly conditions: Conditions;
  readonly effort: Effort;
}
