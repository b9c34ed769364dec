import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { createConnection, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Part } from './part.ts';
import { type Readiness, tail, untilReady } from './readiness.ts';
import { hasEnded, signalProcess, signalTree } from './signals.ts';

export interface Command {
  readonly command: string;
  readonly args: readonly string[];
  /** Above this process's own. */
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Run as somebody else; only root can ask for that. */
  readonly user?: { readonly uid: number; readonly gid: number };
}

export interface ProcessSpec extends Command, Readiness {
  readonly stopSignal?: NodeJS.Signals;
  readonly stopTimeoutMs?: number;
}

const pollMs = 25;

/** Starts a process without a shell and resolves when it is ready. It ends with this process, however that ends. */
export async function startProcess(spec: ProcessSpec): Promise<Part> {
  let child: ChildProcess | undefined;
  let isFrozen = false;

  async function start(): Promise<void> {
    if (child !== undefined) return;
    const started = await launch(spec);
    child = started;
    started.once('exit', () => {
      if (child === started) child = undefined;
    });
    try {
      await untilReady(spec, async () =>
        started.exitCode === null && started.signalCode === null ? undefined : (started.signalCode ?? started.exitCode),
      );
    } catch (error) {
      await end('SIGKILL');
      throw error;
    }
    // It does not keep this process alive; it goes when this process goes.
    started.unref();
  }

  /** Resolves when it has ended; with SIGKILL, all that it had started as well. */
  async function end(signal: NodeJS.Signals): Promise<void> {
    const ending = child;
    if (ending?.pid === undefined) return;
    const { pid } = ending;
    let killed: readonly number[] = [];
    const kill = () => {
      killed = signalTree(pid, 'SIGKILL');
    };

    ending.ref();
    const exited = once(ending, 'exit');
    if (signal === 'SIGKILL') kill();
    else signalProcess(pid, signal);
    // A frozen process does not see the signal.
    if (isFrozen) freeze(false);
    const insist = setTimeout(kill, spec.stopTimeoutMs ?? 15_000);
    await exited;
    clearTimeout(insist);
    while (!killed.every(hasEnded)) await delay(pollMs);
  }

  function freeze(isToFreeze: boolean): void {
    if (child?.pid === undefined) throw new Error(`${spec.name} is not running`);
    signalTree(child.pid, isToFreeze ? 'SIGSTOP' : 'SIGCONT');
    isFrozen = isToFreeze;
  }

  await start();
  return {
    start,
    stop: () => end(spec.stopSignal ?? 'SIGTERM'),
    kill: () => end('SIGKILL'),
    pause: async () => freeze(true),
    resume: async () => freeze(false),
    logFile: spec.logFile,
  };
}

/** Runs a command to its end; throws with what it printed when it fails. Returns its standard output. */
export async function runCommand(spec: Command): Promise<string> {
  const child = spawn(spec.command, spec.args, {
    ...spawnOptions(spec),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const stdout: string[] = [];
  const all: string[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout.push(text);
    all.push(text);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => all.push(text));
  watch(child);
  const [code, signal] = await once(child, 'close');
  if (code !== 0) {
    throw new Error(`${spec.command} ended with ${String(signal ?? code)}:\n${tail(all.join(''))}`);
  }
  return stdout.join('');
}

/** True when something on 127.0.0.1 accepts connections at this port. */
export async function acceptsConnections(port: number): Promise<boolean> {
  const socket = createConnection({ port, host: '127.0.0.1' });
  try {
    await once(socket, 'connect');
    return true;
  } finally {
    socket.destroy();
  }
}

/** A new empty directory that is removed when this process has ended. */
export function runDirectory(part: string): string {
  const directory = mkdtempSync(join(reaper().directory, `${part}-`));
  chmodSync(directory, 0o711);
  return directory;
}

async function launch(spec: ProcessSpec): Promise<ChildProcess> {
  const log = openSync(spec.logFile, 'w');
  const child = spawn(spec.command, spec.args, {
    ...spawnOptions(spec),
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  try {
    await once(child, 'spawn');
  } catch (cause) {
    throw new Error(`${spec.name} could not be started`, { cause });
  }
  watch(child);
  return child;
}

function spawnOptions({ env, cwd, user }: Command) {
  return {
    env: { ...process.env, ...env },
    ...(cwd === undefined ? {} : { cwd }),
    ...user,
    // Its own process group: Ctrl-C in a terminal must reach us alone, since we end things in order.
    detached: process.platform !== 'win32',
    windowsHide: true,
  };
}

function watch(child: ChildProcess): void {
  const { pid } = child;
  if (pid === undefined) return;
  const { pipe } = reaper();
  pipe.write(`+${pid}\n`);
  child.once('exit', () => pipe.write(`-${pid}\n`));
}

interface Reaper {
  readonly directory: string;
  readonly pipe: NodeJS.WritableStream;
}

let onlyReaper: Reaper | undefined;

/** One per process, started with the first child. */
function reaper(): Reaper {
  if (onlyReaper !== undefined) return onlyReaper;
  const directory = mkdtempSync(join(tmpdir(), 'realtime-service-'));
  // Started by root, PostgreSQL runs as somebody else and must find its way to its data.
  chmodSync(directory, 0o711);
  const script = fileURLToPath(new URL('./reaper.ts', import.meta.url));
  const child = spawn(process.execPath, [script, directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    windowsHide: true,
  });
  child.once('error', () => rmSync(directory, { recursive: true, force: true }));
  child.unref();
  if (child.stdin instanceof Socket) child.stdin.unref();
  onlyReaper = { directory, pipe: child.stdin };
  return onlyReaper;
}
