import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { topics } from '@realtime-service/contracts';
import type { EventLog } from '@realtime-service/event-log';
import {
  activeProjection,
  cleanUpAfterSwap,
  DependentsError,
  dropRebuild,
  isBusy,
  LogReplacedError,
  type Pool,
  preparePositions,
  prepareRebuild,
  RebuildOutdatedError,
  readNextOffsets,
  readTableUsers,
  rebuildProjection,
  type Swapped,
  settleRebuild,
  swapRebuild,
} from '@realtime-service/room-store';
import { parseNumber } from './arguments.ts';
import { CommandError, defineCommand, type Terminal, UsageError, type Workplace } from './command.ts';
import { figure, plural } from './figures.ts';
import { createProgress, durationOf, type Standing } from './progress.ts';
import { reasonsOf } from './reasons.ts';
import { takeDuty } from './rebuild-duty.ts';
import type { RebuildShare } from './rebuild-thread.ts';

const topic = topics.roomEvents;
const resetHint = `. To have it read anew: realtime reset ${topic}`;
const lookEveryMs = 500;
/** So few records that they are applied in the time that the worker can be held up. */
const nearEnough = 2_000n;
const catchUpWithinMs = 1_000;
const maxThreads = 64;

/** Of a thread, whatever the size of the log: a batch of each lane, with room to collect garbage seldom. */
const heapLimits = { maxOldGenerationSizeMb: 96, maxYoungGenerationSizeMb: 32 };

/** The log must begin at its beginning, and hold what the tables have applied: else a rebuild would lose state. */
const assertWhole = async (log: EventLog, active: ReadonlyMap<number, bigint>): Promise<number> => {
  const bounds = await log.bounds(topic);
  for (const { partition, low, high } of bounds) {
    const position = active.get(partition) ?? 0n;
    if (low > 0n)
      throw new CommandError(
        `Partition ${partition} of ${topic} begins at offset ${low}: what stood before it cannot be rebuilt. Restore the topic, and keep all of it (retention.ms=-1)`,
      );
    if (position > high)
      throw new CommandError(
        `Partition ${partition} of ${topic} ends at offset ${high}, but ${position} have been applied: it is another log${resetHint}`,
      );
  }
  if (active.size === 0) throw new CommandError('No room-worker has worked on this database yet: nothing to rebuild');
  return bounds.length;
};

const readStanding = async (pool: Pool): Promise<Standing> => {
  const sum = (positions: ReadonlyMap<number, bigint>): bigint =>
    [...positions.values()].reduce((left, right) => left + right, 0n);
  const [total, done] = await Promise.all([
    readNextOffsets(pool, activeProjection, topic),
    readNextOffsets(pool, rebuildProjection, topic),
  ]);
  return { done: sum(done), total: sum(total) };
};

/** Threads that fill the set; `failed` rejects when one of them ended by itself. */
const startThreads = (count: number, share: Omit<RebuildShare, 'index' | 'count'>) => {
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => undefined);
  const threads = Array.from({ length: count }, (_, index) => {
    const workerData: RebuildShare = { index, count, ...share };
    const thread = new Worker(new URL('./rebuild-thread.ts', import.meta.url), {
      workerData,
      argv: [],
      resourceLimits: heapLimits,
    });
    thread.on('error', (error) =>
      failed.reject(new CommandError(`The log cannot be applied: ${error.message}`, { cause: error })),
    );
    return { thread, ended: new Promise<void>((resolve) => thread.once('exit', () => resolve())) };
  });
  return {
    failed: failed.promise,
    stop: async (): Promise<void> => {
      for (const { thread } of threads) thread.postMessage('stop');
      await Promise.all(threads.map(({ ended }) => ended));
    },
  };
};

const rounded = (value: number, digits: number): number => Number(value.toFixed(digits));

/** How many events the tables have, once the set has as many; undefined: not in time. */
const caughtUpAt = async (pool: Pool): Promise<bigint | undefined> => {
  const untilMs = performance.now() + catchUpWithinMs;
  for (;;) {
    const { done, total } = await readStanding(pool);
    if (done === total) return total;
    if (performance.now() > untilMs) return undefined;
    await delay(10);
  }
};

/** What an operator can do something about, told in a line. */
const explained = (error: unknown): unknown => {
  if (error instanceof LogReplacedError) return new CommandError(`${error.message}${resetHint}`, { cause: error });
  if (error instanceof RebuildOutdatedError)
    return new CommandError(`${error.message}: begin anew with --restart`, { cause: error });
  if (error instanceof DependentsError) return new CommandError(error.message, { cause: error });
  return error;
};

interface Placed extends Swapped {
  /** How many events the set was made from. */
  readonly total: bigint;
}

/** Tries once to put the set in place. */
const trySwap = async (pool: Pool, terminal: Terminal, keepDuty: () => Promise<void>): Promise<Placed | undefined> => {
  let total: bigint | undefined;
  const caughtUp = async (): Promise<boolean> => {
    total = await caughtUpAt(pool);
    return total !== undefined;
  };
  try {
    const swapped = await swapRebuild(pool, { caughtUp, flush: keepDuty });
    return swapped && total !== undefined ? { ...swapped, total } : undefined;
  } catch (error) {
    if (!isBusy(error)) throw explained(error);
    const users = await readTableUsers(pool);
    terminal.tell(`The tables are in use${users.length > 0 ? ` by ${users.join(', ')}` : ''}; trying again\n`);
    await delay(lookEveryMs * (1 + Math.random()));
    return undefined;
  }
};

/** The set is in place by now, whatever becomes of this. */
const cleanUp = async (pool: Pool, terminal: Terminal): Promise<void> => {
  try {
    await cleanUpAfterSwap(pool);
  } catch (error) {
    terminal.tell(`The tables that were replaced could not be dropped (${reasonsOf(error)}): the next rebuild does\n`);
  }
};

interface Filling {
  readonly pool: Pool;
  readonly terminal: Terminal;
  readonly ending: AbortSignal;
  readonly keepDuty: () => Promise<void>;
  readonly failed: Promise<never>;
}

/** Waits until the set has caught up, and swaps; undefined where it was interrupted. */
const untilSwapped = async ({ pool, terminal, ending, keepDuty, failed }: Filling): Promise<Placed | undefined> => {
  const tell = createProgress(terminal);
  let isSettled = false;
  while (!ending.aborted) {
    await keepDuty();
    const standing = await readStanding(pool);
    tell(standing);
    if (standing.total - standing.done <= nearEnough) {
      if (!isSettled) await settleRebuild(pool);
      isSettled = true;
      const swapped = await trySwap(pool, terminal, keepDuty);
      if (swapped !== undefined) return swapped;
    }
    await Promise.race([failed, delay(lookEveryMs, undefined, { signal: ending }).catch(() => undefined)]);
  }
  return undefined;
};

const prepare = async (pool: Pool, partitionCount: number): Promise<'new' | 'resumed'> => {
  try {
    const state = await prepareRebuild(pool);
    await preparePositions(pool, rebuildProjection, topic, partitionCount);
    return state;
  } catch (error) {
    throw explained(error);
  }
};

interface RebuildOptions {
  readonly threadCount: number;
  readonly isRestart: boolean;
  readonly acceptsMisplaced: boolean;
}

const rebuild = async (workplace: Workplace, options: RebuildOptions) => {
  const { pool, log, terminal, ending } = workplace;
  const { threadCount, isRestart, acceptsMisplaced } = options;
  const partitionCount = await assertWhole(await log(), await readNextOffsets(pool, activeProjection, topic));
  const { keep, release } = await takeDuty(workplace);
  try {
    if (isRestart) await dropRebuild(pool);
    const state = await prepare(pool, partitionCount);
    const begun = await readStanding(pool);
    if (state === 'resumed') terminal.tell(`Going on at ${figure(begun.done)} of ${plural(begun.total, 'event')}\n`);
    const startedAtMs = performance.now();
    const threads = startThreads(Math.min(threadCount, partitionCount), {
      partitionCount,
      acceptsMisplaced,
      isEmpty: begun.done === 0n,
    });
    try {
      const swapped = await untilSwapped({ pool, terminal, ending, keepDuty: keep, failed: threads.failed });
      if (swapped === undefined) return undefined;
      const seconds = (performance.now() - startedAtMs) / 1000;
      await cleanUp(pool, terminal);
      const { total, ...told } = swapped;
      return { ...told, events: Number(total - begun.done), seconds, wasResumed: state === 'resumed' };
    } finally {
      await threads.stop();
    }
  } finally {
    await release();
  }
};

export const rebuildCommand = defineCommand({
  name: 'rebuild',
  summary: 'Build rooms, members, bans and users anew from the log, while they serve',
  positionals: '',
  options: {
    threads: {
      type: 'string',
      placeholder: 'n',
      description: 'Threads that read the log and write, 1 by default; each takes about 140 MB',
    },
    restart: { type: 'boolean', description: 'Give up what an interrupted rebuild has done, and begin anew' },
    'accept-misplaced': {
      type: 'boolean',
      description:
        'Apply records in other partitions than their keys give too, in an order that nobody can tell; takes one thread',
    },
    json: { type: 'boolean', description: 'Tell the result as one JSON object' },
  },
  details: [
    'Reads the topic of room events from its beginning into a second set of tables, then puts it in the place of the first',
    'in one transaction, and has every live session looked at. Sessions, marks, seats and dead letters stay as they are.',
    'Interrupted, it goes on where it was when it is called again. DATABASE_DIRECT_URL must lead past a pooler, and the',
    'user must own the tables, or be a member of the role that does, and may make schemas in the database.',
  ].join('\n'),
  examples: ['rebuild', 'rebuild --threads 4', 'rebuild --restart'],
  run: async ({ values }, open) => {
    const threadCount = parseNumber('threads', values.threads, { min: 1, max: maxThreads, fallback: 1 });
    const { restart: isRestart = false, 'accept-misplaced': acceptsMisplaced = false } = values;
    if (acceptsMisplaced && threadCount > 1)
      throw new UsageError(
        '--accept-misplaced takes one thread: several would write over what the others have written',
      );
    const workplace = open();
    const { terminal } = workplace;
    const result = await rebuild(workplace, { threadCount, isRestart, acceptsMisplaced });
    if (result === undefined)
      throw new CommandError('Interrupted. The tables are as they were; call it again to go on');
    const { events, seconds, heldMs, marks } = result;
    const peakMemoryMb = Math.round(process.resourceUsage().maxRSS / 1024);
    if (values.json)
      terminal.write(
        `${JSON.stringify({ ...result, heldMs: rounded(heldMs, 1), seconds: rounded(seconds, 3), peakMemoryMb })}\n`,
      );
    else
      terminal.write(
        `Rebuilt from ${plural(events, 'event')} in ${durationOf(seconds)} (${figure(events / seconds)} events/s, ${peakMemoryMb} MB). ` +
          `The tables could not be read for ${heldMs.toFixed(0)} ms. ` +
          `To be looked at: ${plural(marks, 'live session or room', 'live sessions and rooms')}.\n`,
      );
    return 'done';
  },
});
