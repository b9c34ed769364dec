import { consumedTopics, DeadLetterPosition, type LogPosition, toLogPosition } from '@realtime-service/contracts';
import { UsageError } from './command.ts';

/** The value of an option that takes a number. @throws {UsageError} */
export const parseNumber = (
  name: string,
  text: string | undefined,
  { min, max, fallback }: { readonly min: number; readonly max: number; readonly fallback: number },
): number => {
  if (text === undefined) return fallback;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max)) throw new UsageError(`--${name} is a number from ${min} to ${max}`);
  return value;
};

/** The one topic that a command was told of. @throws {UsageError} */
export const readTopic = (positionals: readonly string[]): (typeof consumedTopics)[number] => {
  const topic = consumedTopics.find((each) => each === positionals[0]);
  if (topic === undefined || positionals.length > 1)
    throw new UsageError(`Say which topic: ${consumedTopics.join(' or ')}`);
  return topic;
};

/** A place in the log, as `positionName` writes it. @throws {UsageError} */
export const parsePosition = (text: string): LogPosition => {
  const [topic, partition = '', offset, ...more] = text.split('/');
  const parsed = DeadLetterPosition.safeParse({
    topic,
    partition: /^\d+$/.test(partition) ? Number(partition) : partition,
    offset,
  });
  if (!parsed.success || more.length > 0)
    throw new UsageError(`A position is <topic>/<partition>/<offset>, not '${text}'`);
  return toLogPosition(parsed.data);
};
