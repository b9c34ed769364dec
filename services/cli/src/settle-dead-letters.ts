import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type LogPosition,
  positionName,
  type RoomEventType,
  RoomId,
  toBinaryHeaders,
  topics,
} from '@realtime-service/contracts';
import type { EventLog, NewRecord } from '@realtime-service/event-log';
import {
  activeProjection,
  type DeadLetterStatus,
  type DeadLetterSummary,
  findDeadLetters,
  inTransaction,
  type Pool,
  readNextOffsets,
  settledFrom,
  summariseDeadLetters,
} from '@realtime-service/room-store';
import { parseNumber, parsePosition } from './arguments.ts';
import { type Command, CommandError, defineCommand, type Outcome, UsageError, type Workplace } from './command.ts';
import { jsonOption, letterTable, toJson, whereOption, writeJson } from './dead-letters.ts';
import { plural } from './figures.ts';
import { reasonsOf } from './reasons.ts';
import { parseWhere, whereHelp } from './where.ts';

/** What an operator can do with letters. */
interface Action {
  readonly verb: 'retry' | 'discard';
  readonly type: Extract<RoomEventType, 'dead_letter.retried' | 'dead_letter.discarded'>;
  /** The status of letters that it did its work on. */
  readonly becomes: DeadLetterStatus;
  /** Which letters it can be done with. */
  readonly from: readonly string[];
}

const retry: Action = {
  verb: 'retry',
  type: 'dead_letter.retried',
  becomes: 'retried',
  from: settledFrom.retried,
};
const discard: Action = {
  verb: 'discard',
  type: 'dead_letter.discarded',
  becomes: 'discarded',
  from: settledFrom.discarded,
};

const source = '/operators/realtime-cli';
const batchSize = 500;
const appendTimeoutMs = 5_000;
const pollMs = 100;
const maxLetters = 10_000;
const maxWaitSeconds = 600;

/**
 * The record of an action. Its key is what the letter is about, so that it keeps its place among the facts of that
 * room; a letter that nobody can be read from leaves no doubt, and any key will do.
 */
const recordOf = ({ type }: Action, letter: DeadLetterSummary, nowMs: number): NewRecord => {
  const { topic, partition, offset } = letter;
  const subject = letter.subject ?? RoomId.safeParse(letter.key?.toString('utf8')).data ?? positionName(letter);
  const context = { specversion: '1.0', id: randomUUID(), source, type, subject } as const;
  return {
    topic: topics.roomEvents,
    key: subject,
    value: Buffer.from(JSON.stringify({ topic, partition, offset: offset.toString() })),
    headers: toBinaryHeaders({ ...context, time: new Date(nowMs).toISOString() }),
  };
};

/** @throws {CommandError} saying how far it came */
const append = async (
  log: EventLog,
  records: readonly NewRecord[],
  ending: AbortSignal,
): Promise<readonly LogPosition[]> => {
  const positions: LogPosition[] = [];
  for (let at = 0; at < records.length; at += batchSize) {
    const stop = (why: string, cause?: unknown): never => {
      throw new CommandError(`${why}: ${at} of ${records.length} are known to be appended; the same command goes on`, {
        cause,
      });
    };
    if (ending.aborted) stop('Stopped');
    try {
      positions.push(...(await log.append(records.slice(at, at + batchSize), appendTimeoutMs)));
    } catch (cause) {
      stop(`The log cannot be reached (${reasonsOf(cause)})`, cause);
    }
  }
  return positions;
};

interface Sight {
  /** Whether the projection has come beyond the records of the action. */
  readonly isApplied: boolean;
  readonly letters: readonly DeadLetterSummary[];
}

type LookOnce = (isLast: boolean) => Promise<Sight | undefined>;

/**
 * Both as of one moment: a standby that takes over in between may know less of the letters. There may be thousands:
 * they are read when the action is applied, or at the last look.
 */
const lookAt =
  (pool: Pool, letters: readonly LogPosition[], positions: readonly LogPosition[]): LookOnce =>
  (isLast) =>
    inTransaction(pool, async (client) => {
      await client.query('set transaction isolation level repeatable read, read only');
      const next = await readNextOffsets(client, activeProjection, topics.roomEvents);
      const isApplied = positions.every(({ partition, offset }) => (next.get(partition) ?? 0n) > offset);
      return isApplied || isLast ? { isApplied, letters: await summariseDeadLetters(client, letters) } : undefined;
    });

/** What is to be seen once the projection has come so far, or by then. A database that fails over is back in time. */
const lookUntilApplied = async (
  lookOnce: LookOnce,
  { waitMs, ending }: { readonly waitMs: number; readonly ending: AbortSignal },
): Promise<Sight> => {
  const deadlineMs = performance.now() + waitMs;
  for (;;) {
    const isLast = performance.now() > deadlineMs || ending.aborted;
    try {
      const sight = await lookOnce(isLast);
      if (sight !== undefined) return sight;
    } catch (error) {
      if (isLast) throw error;
    }
    await delay(pollMs, undefined, { signal: ending }).catch(() => {});
  }
};

const lettersOf = (count: number): string => plural(count, 'dead letter');

const countsOf = (values: readonly string[]): string =>
  [...Map.groupBy(values, (value) => value)].map(([value, all]) => `${all.length} ${value}`).join(', ');

type Selection = (pool: Pool, tell: (text: string) => void) => Promise<readonly DeadLetterSummary[]>;

const byPosition =
  ({ verb, from }: Action, positionals: readonly string[]): Selection =>
  async (pool, tell) => {
    const wanted = positionals.map(parsePosition);
    const found = await summariseDeadLetters(pool, wanted);
    const known = new Map(found.map((letter) => [positionName(letter), letter]));
    for (const place of wanted.map(positionName)) {
      const status = known.get(place)?.status;
      if (status === undefined) tell(`There is no dead letter at ${place}.\n`);
      else if (!from.includes(status)) tell(`${place} is ${status} already: nothing to ${verb}.\n`);
    }
    return found.filter(({ status }) => from.includes(status));
  };

const byWhere = (action: Action, conditions: readonly string[], limit: number): Selection => {
  const filter = parseWhere(conditions, Date.now());
  const unfit = filter.status.find((status) => !action.from.includes(status));
  if (unfit !== undefined) throw new UsageError(`Letters that are ${unfit} cannot be ${action.becomes}`);
  return async (pool, tell) => {
    const found = await findDeadLetters(pool, filter, { after: null, limit: limit + 1 });
    if (found.length > limit) tell(`More than ${limit} match: these are the first ${limit}.\n`);
    if (found.length === 0) tell('No dead letter matches.\n');
    return found.slice(0, limit);
  };
};

/** @throws {UsageError} where there is nobody to ask */
const isConfirmed = async (
  action: Action,
  letters: readonly DeadLetterSummary[],
  { terminal }: Workplace,
): Promise<boolean> => {
  const what = `${action.verb} ${lettersOf(letters.length)} (${countsOf(letters.map(({ reason }) => reason))})`;
  if (!terminal.isInteractive) throw new UsageError(`To ${what} without a terminal to ask at, say --yes`);
  return /^y(?:es)?$/i.test((await terminal.ask(`Really ${what}? [y/N] `)).trim());
};

const act = async (
  action: Action,
  letters: readonly DeadLetterSummary[],
  { workplace, waitMs, isJson }: { readonly workplace: Workplace; readonly waitMs: number; readonly isJson: boolean },
): Promise<Outcome> => {
  const { pool, log, terminal, ending } = workplace;
  const nowMs = Date.now();
  const positions = await append(
    await log(),
    letters.map((letter) => recordOf(action, letter, nowMs)),
    ending,
  );
  if (waitMs === 0) {
    if (isJson) for (const letter of letters) writeJson(terminal, toJson(letter));
    terminal.tell(`Asked to ${action.verb} ${lettersOf(letters.length)}.\n`);
    return 'done';
  }
  const asked = `Asked to ${action.verb} ${lettersOf(letters.length)}, but`;
  const lookOnce = lookAt(pool, letters, positions);
  const { isApplied, letters: after } = await lookUntilApplied(lookOnce, { waitMs, ending }).catch((cause: unknown) => {
    throw new CommandError(`${asked} the database does not say what came of it (${reasonsOf(cause)})`, { cause });
  });
  if (isJson) for (const letter of after) writeJson(terminal, toJson(letter));
  if (!isApplied) {
    terminal.tell(`${asked} the room-worker has not come that far yet.\n`);
    return 'failed';
  }
  const left = after.filter(({ status }) => status !== action.becomes);
  terminal.tell(`${lettersOf(after.length - left.length)} ${action.becomes}.\n`);
  const before = new Map(letters.map((letter) => [positionName(letter), letter.status]));
  const isAsBefore = (letter: DeadLetterSummary): boolean => letter.status === before.get(positionName(letter));
  const unread = left.filter(isAsBefore).map(({ reason }) => reason);
  if (unread.length > 0) terminal.tell(`${unread.length} cannot be read still (${countsOf(unread)}).\n`);
  const settled = left.filter((letter) => !isAsBefore(letter)).map(({ status }) => status);
  if (settled.length > 0) terminal.tell(`${settled.length} had been settled meanwhile (${countsOf(settled)}).\n`);
  return left.length === 0 ? 'done' : 'failed';
};

const settlingCommand = (action: Action, words: { readonly summary: string; readonly details: string }): Command =>
  defineCommand({
    name: `dead-letters ${action.verb}`,
    summary: words.summary,
    positionals: '[<position>…]',
    options: {
      where: whereOption,
      limit: {
        type: 'string',
        placeholder: 'n',
        description: `At most so many of those, up to ${maxLetters} [${maxLetters}]`,
      },
      'dry-run': { type: 'boolean', description: 'Only list them' },
      yes: { type: 'boolean', description: 'Do not ask; needed where there is no terminal' },
      wait: {
        type: 'string',
        placeholder: 'seconds',
        description: `How long to wait for the room-worker, up to ${maxWaitSeconds}; 0 does not [10]`,
      },
      json: jsonOption,
    },
    details: `${words.details}\n\n${whereHelp}`,
    examples: [
      `dead-letters ${action.verb} realtime.room-events.v1/3/1204`,
      `dead-letters ${action.verb} --where reason=invalid_data --where type=member.updated --dry-run`,
      `dead-letters ${action.verb} --where room=room-42 --where since=2h --yes`,
    ],
    run: async ({ values, positionals }, open) => {
      const limit = parseNumber('limit', values.limit, { min: 1, max: maxLetters, fallback: maxLetters });
      const waitMs = parseNumber('wait', values.wait, { min: 0, max: maxWaitSeconds, fallback: 10 }) * 1_000;
      if (positionals.length > 0 === (values.where !== undefined))
        throw new UsageError(`Say what to ${action.verb}: positions, or --where`);
      const select =
        values.where === undefined ? byPosition(action, positionals) : byWhere(action, values.where, limit);
      const workplace = open();
      const { terminal } = workplace;
      const letters = await select(workplace.pool, terminal.tell);
      if (letters.length === 0) return 'nothing';
      if (values['dry-run']) {
        if (values.json) for (const letter of letters) writeJson(terminal, toJson(letter));
        else terminal.write(letterTable(letters));
        terminal.tell(`Would ${action.verb} ${lettersOf(letters.length)}.\n`);
        return 'done';
      }
      if (!values.yes && !(await isConfirmed(action, letters, workplace))) {
        terminal.tell('Nothing was done.\n');
        return 'failed';
      }
      return act(action, letters, { workplace, waitMs, isJson: values.json ?? false });
    },
  });

export const retryDeadLetters = settlingCommand(retry, {
  summary: 'Have records that could not be applied read and applied again',
  details: `For letters that became readable: the decoder was mended, or the schema widened. What such a letter says changes only
what nothing newer has been said about; the doubts that it left end. One that still cannot be read stays, with its new
reason. A letter that was discarded can be retried, too.`,
});

export const discardDeadLetters = settlingCommand(discard, {
  summary: 'Give up records that could not be applied',
  details: `What such a letter said will never count: make sure that it is told anew, or was not true. Whoever it left in doubt may
enter again, unless another letter says otherwise.`,
});
