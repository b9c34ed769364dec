import { consumedTopics, topics } from '@realtime-service/contracts';
import { confirmPartitions } from '@realtime-service/room-store';
import { CommandError, defineCommand, UsageError, type Workplace } from './command.ts';

const isConfirmed = async (topic: string, count: number, { terminal }: Workplace): Promise<boolean> => {
  if (!terminal.isInteractive) throw new UsageError('Without a terminal to ask at, say --yes');
  const question = `Do all producers of ${topic} know of its ${count} partitions, or are they stopped? Type yes: `;
  return (await terminal.ask(question)).trim() === 'yes';
};

export const confirmPartitionsCommand = defineCommand({
  name: 'confirm-partitions',
  summary: 'Have a topic that was grown applied with the partitions that it has now',
  positionals: '<topic>',
  options: { yes: { type: 'boolean', description: 'Do not ask; needed where there is no terminal' } },
  details: [
    'The room-workers end when a topic is grown: a removal in a new partition could overtake an older addition in the old',
    'one. After this they apply the partitions from before up to where they end now, and only then the new ones. So whoever',
    'still writes by the old count must be stopped, or must have learned of the new one (Kafka clients do within five minutes).',
    'From then on rebuild refuses the topic, and verify finds differences that are none: both need each key in one partition.',
  ].join('\n'),
  examples: [`confirm-partitions ${topics.roomEvents}`],
  run: async ({ values, positionals }, open) => {
    const topic = consumedTopics.find((each) => each === positionals[0]);
    if (topic === undefined || positionals.length > 1)
      throw new UsageError(`Say which topic: ${consumedTopics.join(' or ')}`);
    const workplace = open();
    const { pool, log, terminal } = workplace;
    const bounds = await (await log()).bounds(topic);
    if (!values.yes && !(await isConfirmed(topic, bounds.length, workplace))) {
      terminal.tell('Nothing was done.\n');
      return 'failed';
    }
    // Read again: while somebody was asked, more was written.
    const now = values.yes ? bounds : await (await log()).bounds(topic);
    const highs = new Map(now.map(({ partition, high }) => [partition, high]));
    const known = await confirmPartitions(pool, topic, highs);
    if (known === 0) throw new CommandError(`No room-worker has applied ${topic} yet: there is nothing to confirm`);
    if (known > highs.size)
      throw new CommandError(
        `${topic} has ${highs.size} partitions, and was applied with ${known}: it is another topic, or another cluster`,
      );
    terminal.tell(
      known === highs.size
        ? `${topic} was applied with ${known} partitions before: nothing was changed.\n`
        : `${topic} is applied with ${highs.size} partitions, as soon as a room-worker is up; the first ${known} come first.\n`,
    );
    return 'done';
  },
});
