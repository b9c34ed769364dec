import { consumedTopics } from '@realtime-service/contracts';
import { UsageError } from './command.ts';

/** The one topic that a command was told of. @throws {UsageError} */
export const readTopic = (positionals: readonly string[]): (typeof consumedTopics)[number] => {
  const topic = consumedTopics.find((each) => each === positionals[0]);
  if (topic === undefined || positionals.length > 1)
    throw new UsageError(`Say which topic: ${consumedTopics.join(' or ')}`);
  return topic;
};
