import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('../src/main.ts', import.meta.url));

export interface ApiProcess {
  readonly child: ChildProcess;
  readonly output: { stdout: string; stderr: string };
  /** Where it listens, once it says so. */
  readonly listening: Promise<{ readonly url: string; readonly ops: string }>;
  /** The exit code. */
  readonly ended: Promise<number | null>;
}

/** Starts the api as operators do, with this environment and nothing else. */
export const startProcess = (env: Record<string, string>, ...args: string[]): ApiProcess => {
  const child = spawn(process.execPath, [script, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  const listening = Promise.withResolvers<{ url: string; ops: string }>();
  createInterface(child.stdout).on('line', (line) => {
    output.stdout += `${line}\n`;
    if (line.includes('api is up')) listening.resolve(JSON.parse(line));
  });
  child.stderr.on('data', (chunk) => {
    output.stderr += chunk;
  });
  return {
    child,
    output,
    listening: listening.promise,
    ended: once(child, 'close').then(([code]) => code as number | null),
  };
};
