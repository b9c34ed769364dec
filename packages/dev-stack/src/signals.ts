import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { errorCode } from './error-code.ts';

/** Signals a process; that it has ended meanwhile is no error. */
export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (errorCode(error) !== 'ESRCH') throw error;
  }
}

/**
 * Kills, freezes or wakes a process with everything that it has started, directly or not. Its process group would not
 * do: PostgreSQL's backends leave theirs. Returns the processes that it has found.
 */
export function signalTree(pid: number, signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): readonly number[] {
  // Frozen, it starts no more children while we look for them.
  if (process.platform !== 'win32' && signal !== 'SIGCONT') signalProcess(pid, 'SIGSTOP');
  const tree = [pid, ...descendantsOf(pid)];
  for (const each of tree) signalProcess(each, signal);
  return tree;
}

/** Also when nobody has waited for it yet. */
export function hasEnded(pid: number): boolean {
  if (process.platform === 'linux') return (readStatus(pid)?.state ?? 'Z') === 'Z';
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return errorCode(error) === 'ESRCH';
  }
}

function descendantsOf(pid: number): number[] {
  const children = Map.groupBy(allProcesses(), ({ parent }) => parent);
  const found: number[] = [];
  for (let generation = [pid]; generation.length > 0; found.push(...generation)) {
    generation = generation.flatMap((parent) => (children.get(parent) ?? []).map((child) => child.pid));
  }
  return found;
}

interface Kinship {
  readonly pid: number;
  readonly parent: number;
}

function allProcesses(): Kinship[] {
  if (process.platform === 'win32') return [];
  if (process.platform === 'linux') {
    const pids = readdirSync('/proc').map(Number).filter(Number.isInteger);
    return pids.flatMap((pid) => readStatus(pid) ?? []);
  }
  const table = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' });
  return table.split('\n').map((row) => {
    const [pid = 0, parent = 0] = row.trim().split(/\s+/).map(Number);
    return { pid, parent };
  });
}

/** From proc(5); the command's name is in parentheses and may contain anything. */
function readStatus(pid: number): (Kinship & { readonly state: string }) | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state = '', parent = ''] = status.slice(status.lastIndexOf(')') + 2).split(' ');
    return { pid, state, parent: Number(parent) };
  } catch {
    return undefined;
  }
}
