import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { topics } from '@realtime-service/contracts';
import type { BatchOutcome, LogBatch } from '@realtime-service/event-log';
import {
  activeProjection,
  type ChunkStore,
  confirmPartitions,
  createPostgresStore,
  readKnownPartitions,
  readNextOffsets,
  readPositions,
} from '@realtime-service/room-store';
import { applyDecoded, decodeRecord, startPositions } from '@realtime-service/room-worker';
import { readTopic } from './arguments.ts';
import { leftAlone, stopWithinMs, triedAgain } from './batch-outcomes.ts';
import { CommandError, defineCommand, UsageError, type Workplace } from './command.ts';
import { plural } from './figures.ts';
import { createProgress } from './progress.ts';
import { withDuty } from './rebuild-duty.ts';

const lookEveryMs = 200;

/** A topic that was grown: the partitions that it was applied with, and where each of them ends now. */
interface Grown {
  readonly topic: string;
  readonly known: number;
  readonly count: number;
  readonly ends: ReadonlyMap<number, bigint>;
}

const findGrown = async (topic: string, { pool, log, terminal }: Workplace): Promise<Grown> => {
  const bounds = await (await log(terminal.tell)).bounds(topic);
  const { count: known } = await readKnownPartitions(pool, topic, bounds.length);
  if (known === 0) throw new CommandError(`No room-worker has applied ${topic} yet: there is nothing to confirm`);
  if (known > bounds.length)
    throw new CommandError(
      `${topic} has ${bounds.length} partitions, and was applied with ${known}: it is another topic, or another cluster`,
    );
  const before = bounds.filter(({ partition }) => partition < known);
  return { topic, known, count: bounds.length, ends: new Map(before.map(({ partition, high }) => [partition, high])) };
};

/** Only by a multiple does each key stay where it was, or go to a new partition. */
const assertOrdered = ({ topic, known, count }: Grown): void => {
  if (count % known === 0) return;
  throw new CommandError(
    `${topic} was applied with ${known} partitions and has ${count}, which is no multiple: keys moved between those from ` +
      `before, too, and which of their facts came first cannot be told. Grow it on to ${Math.ceil(count / known) * known} ` +
      'before more is written, or --accept-misplaced, and look for people who were removed meanwhile',
  );
};

/** Applies what the partitions from before hold, as a room-worker does, and nothing else. */
const drainBatch =
  (store: ChunkStore, { topic, known, ends }: Grown) =>
  async ({ partition, fetchedOffset, nextOffset, records, heartbeat }: LogBatch): Promise<BatchOutcome> => {
    const end = ends.get(partition) ?? 0n;
    if (fetchedOffset >= end) return leftAlone(fetchedOffset);
    const isWhole = nextOffset <= end;
    const decoded = records.filter(({ offset }) => offset < end).map((stored) => decodeRecord(stored, known));
    const at = { projection: activeProjection, topic, partition };
    const stretch = { ...at, fetchedOffset, nextOffset: isWhole ? nextOffset : end, decoded };
    try {
      const result = await applyDecoded(store, stretch, heartbeat);
      if (isWhole || result.kind === 'behind') return { kind: 'advance', nextOffset: result.nextOffset };
      return leftAlone(end);
    } catch (error) {
      return triedAgain(error, fetchedOffset);
    }
  };

/** Applies up to the ends, also what an open transaction holds back. False where it was interrupted. */
const drain = async (grown: Grown, { pool, log, terminal, ending }: Workplace): Promise<boolean> => {
  const { topic, known, ends } = grown;
  const readLeft = async (): Promise<bigint> => {
    const next = await readNextOffsets(pool, activeProjection, topic);
    return [...ends].reduce((left, [partition, end]) => {
      const at = next.get(partition) ?? 0n;
      return at < end ? left + end - at : left;
    }, 0n);
  };
  const total = await readLeft();
  terminal.tell(`Applying ${plural(total, 'record')} that stand in the ${plural(known, 'partition')} from before\n`);
  const consumer = (await log(terminal.tell)).consume({
    // Of its own: for another database, which has to confirm the topic too, half of the partitions would be left alone.
    group: `realtime-confirm-partitions-${randomUUID()}`,
    topics: [topic],
    concurrency: 4,
    onBatch: drainBatch(createPostgresStore(pool), grown),
    startAt: async () =>
      startPositions((await readPositions(pool, activeProjection)).filter((each) => each.topic === topic)),
  });
  // Heard of when it is next waited for.
  consumer.done.catch(() => undefined);
  const tell = createProgress(terminal);
  let wasHeldBack = false;
  try {
    while (!ending.aborted) {
      const left = await readLeft();
      if (left === 0n) return true;
      tell({ done: total - left, total });
      const held = consumer.heldBack().find(({ partition }) => partition < known);
      if (held !== undefined && !wasHeldBack) {
        wasHeldBack = true;
        terminal.tell(
          `A transaction is open in partition ${held.partition}: waiting until it ends, or the broker ends it\n`,
        );
      }
      await Promise.race([consumer.done, delay(lookEveryMs, undefined, { signal: ending }).catch(() => undefined)]);
    }
    return false;
  } finally {
    await consumer.stop(stopWithinMs);
  }
};

/** False where it was interrupted. Neither a rebuild nor a reset, which rest on the count, may run meanwhile. */
const confirm = ({ topic, known, count }: Grown, workplace: Workplace): Promise<boolean> =>
  withDuty(workplace, async () => {
    if (!(await drain(await findGrown(topic, workplace), workplace))) return false;
    await confirmPartitions(workplace.pool, topic, { from: known, to: count });
    return true;
  });

const isAgreed = async ({ topic, count }: Grown, { terminal }: Workplace): Promise<boolean> => {
  if (!terminal.isInteractive) throw new UsageError('Without a terminal to ask at, say --yes');
  const question = `Do all producers of ${topic} know of its ${count} partitions, or are they stopped? Type yes: `;
  return (await terminal.ask(question)).trim() === 'yes';
};

export const confirmPartitionsCommand = defineCommand({
  name: 'confirm-partitions',
  summary: 'Have a topic that was grown applied with the partitions that it has now',
  positionals: '<topic>',
  options: {
    yes: { type: 'boolean', description: 'Do not ask; needed where there is no terminal' },
    'accept-misplaced': {
      type: 'boolean',
      description: 'Also where the order of facts about one key cannot be told any more',
    },
  },
  details: [
    'The room-workers end when a topic is grown: a removal in a new partition could overtake an older addition in the old',
    'one. This applies what the partitions from before hold, to where they end now, and only then lets the room-workers begin',
    'with the new ones. So whoever still writes by the old count must be stopped, or must have learned of the new one (Kafka',
    'clients do within five minutes). The order is known only where the new count is a multiple of the old one. From then on',
    'rebuild and reset refuse the topic, and verify finds differences that are none: they need each key in one partition.',
  ].join('\n'),
  examples: [`confirm-partitions ${topics.roomEvents}`],
  run: async ({ values, positionals }, open) => {
    const topic = readTopic(positionals);
    const workplace = open();
    const { terminal } = workplace;
    const asked = await findGrown(topic, workplace);
    if (asked.known === asked.count) {
      terminal.tell(`${topic} was applied with ${asked.known} partitions before: nothing was changed.\n`);
      return 'done';
    }
    if (!values['accept-misplaced']) assertOrdered(asked);
    if (!values.yes && !(await isAgreed(asked, workplace))) {
      terminal.tell('Nothing was done.\n');
      return 'failed';
    }
    if (!(await confirm(asked, workplace))) {
      terminal.tell('Interrupted: what was applied stays, and the same command goes on.\n');
      return 'failed';
    }
    terminal.tell(`${topic} is applied with ${asked.count} partitions, as soon as a room-worker is up.\n`);
    return 'done';
  },
});
