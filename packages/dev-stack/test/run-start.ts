/** Runs `start.ts` as a person would, on free ports and in a directory of its own. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ownPorts, type PortName, readStartSettings } from '../src/config.ts';
import { freePort } from '../src/ports.ts';

const script = fileURLToPath(new URL('../src/start.ts', import.meta.url));

export type StartEnvironment = Readonly<Record<'DATA_DIR' | PortName, string>>;

export interface RunningStart {
  readonly child: ChildProcess;
  /** Everything that was printed so far. */
  output(): string;
  /** Resolves when it says that it is ready; rejects with what it printed when it ends before. */
  readonly ready: Promise<void>;
  readonly exitCode: Promise<number | null>;
  /** Itself and everything that it has started, directly or not. */
  processes(): readonly OwnProcess[];
}

export interface OwnProcess {
  readonly pid: number;
  readonly command: string;
}

/** A new directory and free ports; the same for all starts that are to follow one another. */
export async function newStartEnvironment(): Promise<StartEnvironment> {
  const directory = mkdtempSync(join(tmpdir(), 'start-test-'));
  // Started by root, PostgreSQL runs as somebody else and must find its way to its data.
  chmodSync(directory, 0o711);
  const ports: Record<string, string> = {};
  for (const { name } of ownPorts(readStartSettings({}))) ports[name] = String(await freePort());
  return { ...ports, DATA_DIR: join(directory, 'data') } as StartEnvironment;
}

export async function removeStartEnvironment({ DATA_DIR }: StartEnvironment): Promise<void> {
  await rm(dirname(DATA_DIR), { recursive: true, force: true });
}

export function runStart(env: Readonly<Record<string, string>>, ...args: string[]): RunningStart {
  const child = spawn(process.execPath, [script, ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const isReady = Promise.withResolvers<void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.includes('Ctrl-C ends everything')) isReady.resolve();
    });
  }
  const exitCode = once(child, 'close').then(([code]) => {
    isReady.reject(new Error(`ended with ${code} before it was ready:\n${output}`));
    return code as number | null;
  });
  isReady.promise.catch(() => undefined);
  return {
    child,
    output: () => output,
    ready: isReady.promise,
    exitCode,
    processes: () => processTree(child.pid ?? 0),
  };
}

function processTree(root: number): OwnProcess[] {
  const rows = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,args='], { encoding: 'utf8' })
    .split('\n')
    .map((row) => /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(row))
    .filter((match) => match !== null)
    .map(([, pid, parent, command = '']) => ({ pid: Number(pid), parent: Number(parent), command }));
  const tree = new Set([root]);
  for (let size = 0; size < tree.size; ) {
    size = tree.size;
    for (const { pid, parent } of rows) if (tree.has(parent)) tree.add(pid);
  }
  return rows.filter(({ pid }) => tree.has(pid));
}
