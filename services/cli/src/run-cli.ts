import { type EventLog, openEventLog } from '@realtime-service/event-log';
import { createPool, isSchemaMissing } from '@realtime-service/room-store';
import { scrub } from '@realtime-service/telemetry';
import {
  type Command,
  CommandError,
  exitCodes,
  type Outcome,
  type Terminal,
  UsageError,
  type Workplace,
} from './command.ts';
import type { CliSettings } from './config.ts';
import { commandHelp, overviewHelp } from './help.ts';
import { reasonsOf } from './reasons.ts';
import { tellWarnings } from './tell-warnings.ts';

const applicationName = 'realtime-cli';
/** `verify` compares by one, while the embedded log listens by a second and reads by a third. */
const fewestConnections = 3;

export interface Surroundings {
  readonly terminal: Terminal;
  readonly ending: AbortSignal;
  /** Read only when a command needs them: help does without. */
  readonly readSettings: () => CliSettings;
}

/** Finds the command, runs it, and says what went wrong. @returns the exit code */
export const runCli = async (
  commands: readonly Command[],
  args: readonly string[],
  surroundings: Surroundings,
): Promise<number> => {
  const { terminal } = surroundings;
  const { command, rest, group } = find(commands, args);
  const asksHelp = args.includes('--help') || args.includes('-h');
  if (command === undefined) {
    const known = commands.filter(({ name }) => group === '' || name.startsWith(`${group} `));
    const [first] = args;
    if (asksHelp || first === undefined) {
      terminal.write(overviewHelp(known, group));
      return exitCodes[asksHelp ? 'done' : 'usage'].code;
    }
    terminal.tell(`${mistakeOf(first, rest[0], group)}. See realtime ${group === '' ? '' : `${group} `}--help.\n`);
    return exitCodes.usage.code;
  }
  if (asksHelp) {
    terminal.write(commandHelp(command));
    return exitCodes.done.code;
  }
  return exitCodes[await runCommand(command, rest, surroundings)].code;
};

const mistakeOf = (first: string, unknown: string | undefined, group: string): string => {
  if (unknown !== undefined) return `There is no command ${[group, unknown].join(' ').trim()}`;
  return group === '' ? `${first} stands before any command` : `${group} needs a command`;
};

const find = (commands: readonly Command[], args: readonly string[]) => {
  const firstOption = args.findIndex((arg) => arg.startsWith('-'));
  const words = firstOption === -1 ? args : args.slice(0, firstOption);
  const command =
    commands.find(({ name }) => name === words.slice(0, 2).join(' ')) ?? commands.find(({ name }) => name === words[0]);
  if (command !== undefined) return { command, rest: args.slice(command.name.split(' ').length), group: '' };
  const group = commands.some(({ name }) => name.startsWith(`${words[0]} `)) ? (words[0] as string) : '';
  return { command, rest: words.slice(group === '' ? 0 : 1), group };
};

const runCommand = async (command: Command, args: readonly string[], surroundings: Surroundings): Promise<Outcome> => {
  const { terminal } = surroundings;
  const closing: (() => Promise<void>)[] = [];
  try {
    return await command.run(args, () => openWorkplace(surroundings, closing));
  } catch (error) {
    if (error instanceof UsageError) {
      terminal.tell(`${error.message}\nSee realtime ${command.name} --help.\n`);
      return 'usage';
    }
    terminal.tell(`${describeError(error)}\n`);
    return 'failed';
  } finally {
    for (const close of closing.reverse()) await close().catch(() => undefined);
  }
};

const openWorkplace = (
  { terminal, ending, readSettings }: Surroundings,
  closing: (() => Promise<void>)[],
): Workplace => {
  const settings = readSettings();
  const { url, maxConnections } = settings.database;
  const pool = createPool({
    url,
    maxConnections: Math.max(maxConnections, fewestConnections),
    applicationName,
    onError: () => undefined,
  });
  closing.push(() => pool.end());
  let log: Promise<EventLog> | undefined;
  const open = async (tell?: Terminal['tell']): Promise<EventLog> => {
    const opened = await openEventLog(settings, {
      clientId: applicationName,
      pool,
      writeLog: tell === undefined ? () => undefined : tellWarnings(tell),
    });
    closing.push(opened.close);
    return opened;
  };
  return { settings, pool, log: (tell) => (log ??= open(tell)), terminal, ending };
};

/** What failed and why, without what drivers quote of addresses and passwords. */
const describeError = (error: unknown): string => {
  if (error instanceof CommandError) return scrub(error.message);
  if (isSchemaMissing(error)) return 'The database has not the tables of this version: start the room-worker once';
  // Nothing can be interrupted so, but a question, and the wait for another one's end: before anything is done.
  if (error instanceof Error && error.name === 'AbortError') return 'Interrupted: nothing was done.';
  return scrub(`Failed: ${reasonsOf(error)}`);
};
