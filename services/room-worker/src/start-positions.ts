import type { EventLog, LogPosition, PartitionBounds } from '@realtime-service/event-log';
import type { StoredPosition } from '@realtime-service/room-store';

/**
 * Where to begin to read: at the last record that was applied instead of after it, so that a log which was made again is
 * noticed, also where it holds more than had been applied. After it where retention has dropped it, and where the position
 * is not in the log: the log then says so itself.
 * @throws {LogUnavailableError}
 */
export const startPositions = async (
  log: Pick<EventLog, 'bounds'>,
  positions: readonly StoredPosition[],
): Promise<LogPosition[]> => {
  const bounds = new Map<string, readonly PartitionBounds[]>();
  for (const topic of new Set(positions.map((each) => each.topic))) bounds.set(topic, await log.bounds(topic));
  return positions.map(({ topic, partition, nextOffset, last }) => {
    const held = bounds.get(topic)?.find((each) => each.partition === partition);
    const isHeld = last !== null && held !== undefined && held.low <= last.offset && nextOffset <= held.high;
    return { topic, partition, offset: isHeld ? last.offset : nextOffset };
  });
};
