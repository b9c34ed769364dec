import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { errorCode } from './error-code.ts';
import { PartAbsent } from './part.ts';
import { acceptsConnections } from './process-part.ts';
import { StartFailure } from './start-failure.ts';

/** What the stack needs to know of something that runs. */
export interface StackPart {
  /** Watched: once connections are refused here, the part has ended. */
  readonly port?: number;
  readonly logFile?: string;
  stop(): Promise<void>;
  /** At once; `stop` where there is nothing harsher. */
  kill?(): Promise<void>;
}

export interface NamedPart extends StackPart {
  readonly name: string;
}

export interface Stack {
  /**
   * Starts a part and says how long that took.
   * @throws {PartAbsent} @throws {StartFailure} that names the part
   */
  add<T extends StackPart>(name: string, start: () => Promise<T>): Promise<T>;
  /** Does something that leaves nothing to be stopped, and says how long that took. @throws {StartFailure} */
  perform<T>(name: string, action: () => Promise<T>): Promise<T>;
  /** Resolves with the first part that ended although nobody asked it to. */
  firstToEnd(): Promise<NamedPart>;
  /**
   * Ends all parts, the newest first, each before the next, so that none loses what it still needs. One that is being
   * started is waited for, within reason.
   */
  stop(): Promise<void>;
  kill(): Promise<void>;
}

const watchIntervalMs = 500;
const usualMs = 5_000;
const startingPatienceMs = 3_000;

export function createStack(say: (line: string) => void): Stack {
  const parts: NamedPart[] = [];
  let underWay: Promise<unknown> = Promise.resolve();
  let isEnding = false;

  async function perform<T>(name: string, action: () => Promise<T>): Promise<T> {
    if (isEnding) return forever();
    const startedAtMs = performance.now();
    const patience = setTimeout(() => say(`  ${name} takes its time …`), usualMs);
    try {
      const running = action();
      underWay = running;
      const result = await running;
      say(`  ${name.padEnd(13)}${((performance.now() - startedAtMs) / 1000).toFixed(1)} s`);
      return result;
    } catch (error) {
      if (error instanceof PartAbsent) throw error;
      throw new StartFailure(`${name} could not be started: ${readable(error)}`, { cause: error });
    } finally {
      clearTimeout(patience);
    }
  }

  return {
    perform,
    add: (name, start) =>
      perform(name, async () => {
        const part = await start();
        parts.push({ ...part, name });
        return part;
      }),
    firstToEnd: async () => {
      for (;;) {
        await delay(watchIntervalMs);
        const watched = [...parts];
        const ended = await Promise.all(watched.map(hasEnded));
        const first = watched[ended.indexOf(true)];
        if (isEnding) return forever();
        if (first !== undefined) return first;
      }
    },
    stop: async () => {
      isEnding = true;
      await Promise.race([underWay.catch(() => undefined), delay(startingPatienceMs, undefined, { ref: false })]);
      for (let part = parts.at(-1); part !== undefined; part = parts.at(-1)) {
        await part.stop();
        parts.pop();
      }
    },
    kill: async () => {
      isEnding = true;
      await Promise.all(parts.map((part) => (part.kill ?? part.stop)()));
    },
  };
}

async function hasEnded({ port }: StackPart): Promise<boolean> {
  if (port === undefined) return false;
  return acceptsConnections(port).then(
    () => false,
    (error: unknown) => errorCode(error) === 'ECONNREFUSED',
  );
}

/** What nobody is to hear of any more. */
export function forever(): Promise<never> {
  return new Promise(() => undefined);
}

/** The end of a part's log, JSON lines made readable. */
export async function logTail(logFile: string, lines: number): Promise<string> {
  const text = await readFile(logFile, 'utf8').catch(() => '');
  return text.trimEnd().split('\n').slice(-lines).map(readableLine).join('\n');
}

/** An error's message may hold the end of a log. */
function readable(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof StartFailure) return error.message;
  const cause = error.cause instanceof Error ? `\n${error.cause.message}` : '';
  return `${error.message}${cause}`.split('\n').map(readableLine).join('\n');
}

/** `12:00:01 error consumer ended {"topic":"…"}` of a line that pino wrote; other lines stay as they are. */
function readableLine(line: string): string {
  const entry = parseEntry(line);
  if (entry === undefined) return line;
  const { time, level, msg, service: _, trace_id: __, span_id: ___, ...fields } = entry;
  const rest = Object.keys(fields).length === 0 ? '' : JSON.stringify(fields);
  return [String(time).slice(11, 19), level, msg, rest].filter(Boolean).join(' ');
}

function parseEntry(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
