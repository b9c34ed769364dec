import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { acceptsConnections } from './process-part.ts';

/** What the stack needs to know of something that runs. */
export interface StackPart {
  readonly name: string;
  /** Watched: once nothing accepts connections here any more, the part has ended. */
  readonly port?: number;
  readonly logFile?: string;
  stop(): Promise<void>;
  /** At once; `stop` where there is nothing harsher. */
  kill?(): Promise<void>;
}

export interface Stack {
  /** Starts a part and says how long that took. */
  add<T extends StackPart>(name: string, start: () => Promise<T>): Promise<T>;
  /** Resolves with the first part that ended although nobody asked it to. */
  firstToEnd(): Promise<StackPart>;
  /** Ends all parts, the newest first, each before the next: none loses what it still needs. */
  stop(): Promise<void>;
  kill(): Promise<void>;
}

const watchIntervalMs = 500;

export function createStack(say: (line: string) => void): Stack {
  const parts: StackPart[] = [];
  const ending = new AbortController();

  return {
    add: async (name, start) => {
      const startedAtMs = performance.now();
      const part = await start();
      parts.push(part);
      say(`  ${name.padEnd(14)} ${((performance.now() - startedAtMs) / 1000).toFixed(1)} s`);
      return part;
    },
    firstToEnd: async () => {
      for (;;) {
        await delay(watchIntervalMs);
        const ended = await Promise.all(parts.map(hasEnded));
        const first = parts[ended.indexOf(true)];
        if (ending.signal.aborted) return new Promise<never>(() => undefined);
        if (first !== undefined) return first;
      }
    },
    stop: async () => {
      ending.abort();
      for (const part of parts.splice(0).reverse()) await part.stop();
    },
    kill: async () => {
      ending.abort();
      await Promise.all(parts.splice(0).map((part) => (part.kill ?? part.stop)()));
    },
  };
}

async function hasEnded({ port }: StackPart): Promise<boolean> {
  if (port === undefined) return false;
  return acceptsConnections(port).then(
    () => false,
    (error: unknown) => error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED',
  );
}

/** The end of a part's log, JSON lines made readable. */
export async function logTail(logFile: string, lines: number): Promise<string> {
  const text = await readFile(logFile, 'utf8').catch(() => '');
  return text.trimEnd().split('\n').slice(-lines).map(readableLine).join('\n');
}

/** `12:00:01 error consumer ended {"topic":"…"}` of a line that pino wrote; other lines stay as they are. */
export function readableLine(line: string): string {
  const entry = parseEntry(line);
  if (entry === undefined) return line;
  const { time, level, msg, service: _, trace_id: __, span_id: ___, ...fields } = entry;
  const rest = Object.keys(fields).length === 0 ? '' : JSON.stringify(fields);
  return [String(time).slice(11, 19), level, msg, rest].filter(Boolean).join(' ');
}

function parseEntry(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}
