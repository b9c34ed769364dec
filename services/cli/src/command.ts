import { parseArgs } from 'node:util';
import type { EventLog } from '@realtime-service/event-log';
import type { Pool } from '@realtime-service/room-store';
import type { CliSettings } from './config.ts';

/** What a script can tell a command's outcome by. */
export const exitCodes = {
  done: { code: 0, meaning: 'done' },
  failed: { code: 1, meaning: 'could not be done, or not to the end: the message says why' },
  usage: { code: 2, meaning: 'called in a wrong way, or settings are missing' },
  nothing: { code: 3, meaning: 'nothing there that was asked for' },
} as const;
export type Outcome = keyof typeof exitCodes;

/** Called in a wrong way. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** An expected failure, told in one line. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
}

/** The terminal as a command sees it. */
export interface Terminal {
  /** The result: what a pipe takes. */
  readonly write: (text: string) => void;
  /** What is only for people: progress, hints, failures. */
  readonly tell: (text: string) => void;
  /** Whether there is somebody to ask. */
  readonly isInteractive: boolean;
  readonly ask: (question: string) => Promise<string>;
}

/** What a command works with. Nothing is connected before its first use; all is closed after the command. */
export interface Workplace {
  readonly settings: CliSettings;
  readonly pool: Pool;
  /** What the log tries again is told to `tell`, where that is given: else it fails in time, and that is told. */
  readonly log: (tell?: Terminal['tell']) => Promise<EventLog>;
  readonly terminal: Terminal;
  /** Aborted by Ctrl-C and SIGTERM: finish what is under way, and end. */
  readonly ending: AbortSignal;
}

export interface Option {
  readonly type: 'string' | 'boolean';
  readonly description: string;
  /** What stands for the value in help. */
  readonly placeholder?: string;
  /** May be given several times. */
  readonly multiple?: true;
}
type Options = Readonly<Record<string, Option>>;

export type ValuesOf<O extends Options> = {
  readonly [Name in keyof O]?: O[Name]['type'] extends 'boolean'
    ? boolean
    : O[Name] extends { readonly multiple: true }
      ? readonly string[]
      : string;
};

export interface Arguments<O extends Options> {
  readonly values: ValuesOf<O>;
  readonly positionals: readonly string[];
}

interface Description<O extends Options> {
  /** One or two words: `verify`, `dead-letters list`. */
  readonly name: string;
  readonly summary: string;
  /** What follows the name, as in `[<position>…]`; empty where nothing does. */
  readonly positionals: string;
  readonly options: O;
  /** Paragraphs below the options. */
  readonly details?: string;
  readonly examples: readonly string[];
}

export interface Command extends Description<Options> {
  /** @throws {UsageError} {@link CommandError} */
  readonly run: (args: readonly string[], open: () => Workplace) => Promise<Outcome>;
}

interface Definition<O extends Options> extends Description<O> {
  readonly run: (args: Arguments<O>, open: () => Workplace) => Promise<Outcome>;
}

/** A command whose `run` gets its options typed. It checks what it was given before it opens its workplace. */
export const defineCommand = <const O extends Options>({ run, ...description }: Definition<O>): Command => ({
  ...description,
  run: (args, open) => run(parse(args, description), open),
});

const parse = <O extends Options>(args: readonly string[], { options, positionals }: Description<O>): Arguments<O> => {
  const config = Object.fromEntries(
    Object.entries(options).map(([name, { type, multiple = false }]) => [name, { type, multiple }]),
  );
  try {
    const parsed = parseArgs({ args: [...args], options: config, allowPositionals: positionals !== '', strict: true });
    return { values: parsed.values as ValuesOf<O>, positionals: parsed.positionals };
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
};
