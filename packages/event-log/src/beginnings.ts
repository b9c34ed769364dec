import type { LogPosition } from '@realtime-service/contracts';
import { assertInside, type LogStart, type PartitionBounds } from './event-log.ts';

/**
 * Where reading begins. The bounds are read when `starts` are known: by older ones, a position that another consumer
 * has moved on since would lie beyond the log.
 * @throws {OffsetOutOfRangeError} when the log cannot go on at one of them
 * @throws {LogUnavailableError}
 */
export async function beginningsOf(
  starts: readonly LogStart[],
  bounds: (topic: string) => Promise<readonly PartitionBounds[]>,
): Promise<LogPosition[]> {
  const topics = [...new Set(starts.map(({ topic }) => topic))];
  const held = new Map(await Promise.all(topics.map(async (topic) => [topic, await bounds(topic)] as const)));
  return starts.map(({ lastRead, ...start }) => {
    const { low } = assertInside(start, held.get(start.topic));
    return lastRead === undefined || lastRead < low ? start : { ...start, offset: lastRead };
  });
}
