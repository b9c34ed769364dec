import { mkdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { writeNew } from './kept-file.ts';
import type { Report } from './part.ts';

const lockPollMs = 250;
const lockRefreshMs = 2_000;
const lockAbandonedMs = 20_000;

/**
 * The directory of something that is fetched or built once per machine, outside the checkout. `build` fills an empty
 * directory, which is moved into place when it is complete; other processes wait meanwhile. Should two of them build
 * after all (a lock was taken for an abandoned one), the first to finish wins and the other's work is thrown away.
 */
export async function cached(
  name: string,
  report: Report,
  build: (directory: string) => Promise<void>,
): Promise<string> {
  const complete = pathOf(name);
  await mkdir(dirname(complete), { recursive: true });
  if (await exists(complete)) return complete;

  const lock = `${complete}.lock`;
  await acquire(lock, () => report(`waiting for another process that prepares ${name}`));
  const refresh = setInterval(() => void touch(lock), lockRefreshMs);
  try {
    if (await exists(complete)) return complete;
    const unfinished = `${complete}.${process.pid}`;
    await rm(unfinished, { recursive: true, force: true });
    await mkdir(unfinished);
    try {
      await build(unfinished);
      await rename(unfinished, complete);
    } catch (error) {
      await rm(unfinished, { recursive: true, force: true });
      if (!(await exists(complete))) throw error;
    }
    return complete;
  } finally {
    clearInterval(refresh);
    await rm(lock, { force: true });
  }
}

/** The directory if it has been filled already. */
export async function findCached(name: string): Promise<string | undefined> {
  const complete = pathOf(name);
  return (await exists(complete)) ? complete : undefined;
}

function pathOf(name: string): string {
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'realtime-service', name);
}

async function acquire(lock: string, onWait: () => void): Promise<void> {
  let hasReported = false;
  while (!(await writeNew(lock, String(process.pid)))) {
    const held = await stat(lock).catch(() => undefined);
    if (held !== undefined && Date.now() - held.mtimeMs > lockAbandonedMs) {
      await rm(lock, { force: true });
      continue;
    }
    if (!hasReported) onWait();
    hasReported = true;
    await delay(lockPollMs);
  }
}

async function touch(file: string): Promise<void> {
  const now = new Date();
  await utimes(file, now, now).catch(() => undefined);
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
