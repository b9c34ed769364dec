import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { OwnPort } from './config.ts';
import { bindFailure } from './ports.ts';
import { endCommand } from './run-lock.ts';
import { StartFailure } from './start-failure.ts';

const patienceMs = 10_000;
const pollMs = 100;

/**
 * Looks at all ports before anything is started. `isAfterCrash`: whatever an earlier start left behind is being ended,
 * and is waited for.
 * @throws {StartFailure} that names every port that cannot be had, and who has it where that can be found out
 */
export async function refuseUsedPorts(ports: readonly OwnPort[], isAfterCrash: boolean): Promise<void> {
  refuseEqualPorts(ports);
  const deadline = Date.now() + (isAfterCrash ? patienceMs : 0);
  for (;;) {
    const faults = await Promise.all(ports.map(faultOf));
    const found = faults.filter((fault) => fault !== undefined);
    if (found.length === 0) return;
    if (Date.now() >= deadline) throw new StartFailure(found.join('\n'));
    await delay(pollMs);
  }
}

function refuseEqualPorts(ports: readonly OwnPort[]): void {
  for (const sharers of Map.groupBy(ports, ({ protocol, number }) => `${protocol} ${number}`).values()) {
    if (sharers.length === 1) continue;
    throw new StartFailure(
      `${sharers.map(({ name }) => name).join(' and ')} are the same port, ${sharers[0]?.number}.`,
    );
  }
}

async function faultOf(port: OwnPort): Promise<string | undefined> {
  const code = await bindFailure(port.number, port.protocol);
  if (code === undefined) return undefined;
  const change = `set ${port.name} to another port`;
  if (code !== 'EADDRINUSE') return `Port ${port.number} (${port.what}) cannot be used here (${code}): ${change}.`;
  const holder = await holderOf(port);
  const who = holder === undefined ? 'another program' : `process ${holder.pid} (${holder.command})`;
  const end = holder === undefined ? 'End it' : `End it (${endCommand(holder.pid)})`;
  return `Port ${port.number} (${port.what}) is taken by ${who}. ${end}, or ${change}.`;
}

interface Holder {
  readonly pid: number;
  readonly command: string;
}

/** Linux tells by /proc, as far as the processes are ours; other systems need tools that may not be there. */
async function holderOf({ number, protocol }: OwnPort): Promise<Holder | undefined> {
  if (process.platform !== 'linux') return undefined;
  const tables = await Promise.all([protocol, `${protocol}6`].map(readSocketTable));
  const sockets = tables.flat().filter((socket) => socket.port === number && socket.isReceiving);
  const links = new Set(sockets.map(({ inode }) => `socket:[${inode}]`));
  if (links.size === 0) return undefined;
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
    const targets = await Promise.all(files.map((file) => readlink(`/proc/${pid}/fd/${file}`).catch(() => '')));
    if (targets.some((target) => links.has(target))) return { pid: Number(pid), command: await commandOf(pid) };
  }
  return undefined;
}

interface SocketRow {
  readonly port: number;
  readonly isReceiving: boolean;
  readonly inode: string;
}

/**
 * Columns of proc(5): number, local address, remote address, state (0A listens, 07 is an open UDP socket), …, inode.
 */
async function readSocketTable(table: string): Promise<SocketRow[]> {
  const text = await readFile(`/proc/net/${table}`, 'utf8').catch(() => '');
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .map((columns) => ({
      port: Number.parseInt(columns[1]?.split(':')[1] ?? '', 16),
      isReceiving: columns[3] === '0A' || columns[3] === '07',
      inode: columns[9] ?? '',
    }));
}

async function commandOf(pid: string): Promise<string> {
  const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  const [program = '', ...args] = commandLine.split('\0');
  return [basename(program), ...args].join(' ').trim().slice(0, 80);
}
