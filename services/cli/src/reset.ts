import { topics } from '@realtime-service/contracts';
import { isBusy, readKnownPartitions, resetTopic } from '@realtime-service/room-store';
import { readTopic } from './arguments.ts';
import { CommandError, defineCommand, UsageError, type Workplace } from './command.ts';
import { withDuty } from './rebuild-duty.ts';

const losses: Readonly<Record<string, string>> = {
  [topics.roomEvents]:
    'all rooms, members, bans, users and ended logins, its dead letters and the doubts that they left',
  [topics.livekitWebhooks]: 'its dead letters',
};

const isConfirmed = async (topic: string, { terminal }: Workplace): Promise<boolean> => {
  const what = `give up what was applied of ${topic} (${losses[topic]})`;
  if (!terminal.isInteractive) throw new UsageError(`To ${what} without a terminal to ask at, say --yes`);
  return (await terminal.ask(`Really ${what}? Type the topic's name: `)).trim() === topic;
};

/** Read from its beginning, a topic that was grown brings facts about one key from two partitions, in any order. */
const assertNotGrown = async (topic: string, count: number, { pool }: Workplace): Promise<void> => {
  const { grownFrom } = await readKnownPartitions(pool, topic, count);
  if (grownFrom === null) return;
  throw new CommandError(
    `${topic} has ${count} partitions, and was applied with ${grownFrom} once: read anew, people who were removed since ` +
      'it was grown could come back. If it was made again instead, or if that is taken into account: --accept-misplaced',
  );
};

const reset = async (topic: string, workplace: Workplace, acceptsMisplaced: boolean): Promise<void> => {
  const { pool, log } = workplace;
  const bounds = await (await log()).bounds(topic);
  if (!acceptsMisplaced) await assertNotGrown(topic, bounds.length, workplace);
  const lows = new Map(bounds.map(({ partition, low }) => [partition, low]));
  await withDuty(workplace, async () => {
    try {
      await resetTopic(pool, { topic, lows });
    } catch (error) {
      if (!isBusy(error)) throw error;
      throw new CommandError('The positions are in use for too long: nothing was given up, try again', {
        cause: error,
      });
    }
  });
};

export const resetCommand = defineCommand({
  name: 'reset',
  summary: 'Give up what was applied of a topic, and have it read anew from its beginning',
  positionals: '<topic>',
  options: {
    yes: { type: 'boolean', description: 'Do not ask; needed where there is no terminal' },
    'accept-misplaced': {
      type: 'boolean',
      description: 'Also a topic that has more partitions than before: see confirm-partitions',
    },
  },
  details: [
    'For a topic that was made again, or that has lost records which were not applied: the tables say what another log said.',
    `What is dropped of ${topics.roomEvents}:`,
    `${losses[topics.roomEvents]};`,
    `of ${topics.livekitWebhooks}: ${losses[topics.livekitWebhooks]}. Who is inside stays known, and the next sweep repairs it.`,
    'The room-workers then apply the topic from its first record. Until they have applied all room events, rooms admit nobody (503),',
    'and nobody is taken out of a call. What the topic does not hold any more is gone for good.',
    'Dead letters that were discarded or retried may be open again afterwards, with their doubts, where the action stands in',
    'another partition or topic than the letter: settle them again. What this release can read of them counts.',
    'Where the log is the one that was applied, use rebuild: nobody waits for that.',
  ].join('\n'),
  examples: [`reset ${topics.roomEvents}`, `reset ${topics.livekitWebhooks} --yes`],
  run: async ({ values, positionals }, open) => {
    const topic = readTopic(positionals);
    const workplace = open();
    const { terminal } = workplace;
    if (!values.yes && !(await isConfirmed(topic, workplace))) {
      terminal.tell('Nothing was done.\n');
      return 'failed';
    }
    await reset(topic, workplace, values['accept-misplaced'] ?? false);
    terminal.tell(
      `${topic} is read anew from its beginning, as soon as a room-worker is up. Dead letters that had been settled may be open again then: see realtime dead-letters list.\n`,
    );
    return 'done';
  },
});
