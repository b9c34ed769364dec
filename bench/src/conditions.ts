import { spawnSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';

/** Under which circumstances something was measured: figures without them mean nothing. */
export interface Conditions {
  readonly at: string;
  readonly commit: string;
  readonly node: string;
  readonly processor: string;
  readonly cores: number;
  readonly memoryGb: number;
  /** Of the last minute, before the first round. Near 0 on a machine that does nothing else. */
  readonly loadBefore: number;
}

const outputOf = (command: string, args: readonly string[]): string =>
  spawnSync(command, args, { encoding: 'utf8' }).stdout?.trim() ?? '';

export const readConditions = (): Conditions => ({
  at: new Date().toISOString(),
  commit: outputOf('git', ['describe', '--always', '--dirty']) || 'unknown',
  node: process.version,
  processor: cpus()[0]?.model ?? 'unknown',
  cores: availableParallelism(),
  memoryGb: Math.round(totalmem() / 2 ** 30),
  loadBefore: Math.round((loadavg()[0] ?? 0) * 100) / 100,
});
