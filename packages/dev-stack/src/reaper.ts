/**
 * Outlives the process that started it by a moment, and ends what that process left behind: however it died, its end of
 * the pipe closes. Reads lines `+<pid>` (a child was started) and `-<pid>` (it has ended); at the end of input it kills
 * the remaining ones and removes the directory that it was given.
 */
import { rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { hasEnded, signalProcess, signalTree } from './signals.ts';

const gracePeriodMs = 5_000;
const pollMs = 50;

const [, , runDirectory] = process.argv;
const children = new Set<number>();

for await (const line of createInterface({ input: process.stdin })) {
  const pid = Number(line.slice(1));
  if (line.startsWith('+')) children.add(pid);
  else children.delete(pid);
}

for (const pid of children) signalProcess(pid, 'SIGTERM');
const deadline = Date.now() + gracePeriodMs;
while (Date.now() < deadline && ![...children].every(hasEnded)) await delay(pollMs);
for (const pid of children) if (!hasEnded(pid)) signalTree(pid, 'SIGKILL');
if (runDirectory !== undefined) await rm(runDirectory, { recursive: true, force: true, maxRetries: 5 });
