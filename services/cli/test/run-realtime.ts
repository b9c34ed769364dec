import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('../src/main.ts', import.meta.url));

/** So that each of some hundred processes need not compile the same sources. */
const { NODE_COMPILE_CACHE } = process.env;
const compileCache = NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE };

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts the command line as its users do, without a terminal, with these settings and no others. */
export const startRealtime = (
  env: Readonly<Record<string, string>>,
  ...args: readonly string[]
): ChildProcessByStdio<null, Readable, Readable> =>
  spawn(process.execPath, [script, ...args], {
    env: { PATH: '/usr/bin:/bin', ...compileCache, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });

/** Runs it to its end. */
export const runRealtime = async (
  env: Readonly<Record<string, string>>,
  ...args: readonly string[]
): Promise<Ended> => {
  const child = startRealtime(env, ...args);
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  const [code] = await once(child, 'close');
  return { code, ...output };
};
