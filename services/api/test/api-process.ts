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

type Environment = Readonly<Record<string, string>>;

/** Starts the api as operators do, with this environment and nothing else. */
export const startProcess = (env: Environment, ...args: string[]): ApiProcess =>
  start(process.execPath, [script, ...args], env);

/** Starts the api where a process may have no more than so many files and connections open. */
export const startWithFewFiles = (env: Environment, files: number): ApiProcess =>
  start('sh', ['-c', `ulimit -n ${files} && exec "$0" "$@"`, process.execPath, script], env);

const start = (command: string, args: readonly string[], env: Environment): ApiProcess => {
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
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
