import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

export interface Readiness {
  /** For messages: "PostgreSQL 18". */
  readonly name: string;
  /** Takes everything that it prints; the tail is in the message when a start fails. */
  readonly logFile: string;
  /** Asked again and again until it is true. A rejection, or no answer for 2 seconds, counts as "not yet". */
  readonly isReady: () => Promise<boolean>;
  readonly startTimeoutMs: number;
}

const pollMs = 25;
const answerTimeoutMs = 2_000;
const logTailLines = 25;

/**
 * Waits until it is ready. `exit` tells how it has ended if it has: then, or when the time is up, throws with the end
 * of the log.
 */
export async function untilReady(
  { name, logFile, isReady, startTimeoutMs }: Readiness,
  exit: () => Promise<string | number | null | undefined>,
): Promise<void> {
  const deadline = Date.now() + startTimeoutMs;
  for (;;) {
    const silence = delay(answerTimeoutMs, false, { ref: false });
    const isAnswered = await Promise.race([isReady().catch(() => false), silence]);
    const exited = await exit();
    if (exited !== undefined) throw await failure(`${name} ended with ${exited} while starting`, logFile);
    if (isAnswered) return;
    if (Date.now() > deadline) throw await failure(`${name} was not ready after ${startTimeoutMs} ms`, logFile);
    await delay(pollMs);
  }
}

/** The last lines of what something has printed. */
export function tail(text: string): string {
  return text.trimEnd().split('\n').slice(-logTailLines).join('\n');
}

async function failure(message: string, logFile: string): Promise<Error> {
  const log = await readFile(logFile, 'utf8').catch(() => '');
  return new Error(`${message}. The end of its log:\n${tail(log)}`);
}
