import { topics } from '@realtime-service/contracts';
import { type EventLog, type PartitionBounds, partitionOf } from '@realtime-service/event-log';
import { type Pool, readPositions } from '@realtime-service/room-store';

/**
 * Whether the facts about a room or a user are fresh enough to act on. A restored or empty database believes that
 * nobody is a member; acting on that would empty every live call.
 */
export interface LaneGate {
  /** The lanes of these keys have reached what was the log's end when this gate was opened. */
  readonly hasReachedStart: (keys: readonly string[]) => Promise<boolean>;
  /** The lanes of these keys have reached the log's end as it is now: only then does absence mean anything. */
  readonly isCaughtUp: (keys: readonly string[]) => Promise<boolean>;
}

export const createLaneGate = (pool: Pool, log: EventLog, projection: string): LaneGate => {
  let startBounds: Promise<PartitionBounds[]> | undefined;
  let hasReachedAll = false;

  const readStart = (): Promise<PartitionBounds[]> => {
    startBounds ??= log.bounds(topics.roomEvents).catch((error: unknown) => {
      startBounds = undefined;
      throw error;
    });
    return startBounds;
  };

  const reached = async (
    bounds: readonly PartitionBounds[],
    isConcerned: (partition: number) => boolean,
  ): Promise<boolean> => {
    const positions = await readPositions(pool, projection);
    const next = new Map(
      positions.filter(({ topic }) => topic === topics.roomEvents).map((each) => [each.partition, each.nextOffset]),
    );
    return bounds.every(({ partition, high }) => !isConcerned(partition) || (next.get(partition) ?? -1n) >= high);
  };

  const concerned = (keys: readonly string[], count: number): ((partition: number) => boolean) => {
    const partitions = new Set(keys.map((key) => partitionOf(key, count)));
    return (partition) => partitions.has(partition);
  };

  return {
    hasReachedStart: async (keys) => {
      if (hasReachedAll) return true;
      const bounds = await readStart();
      hasReachedAll = await reached(bounds, () => true);
      return hasReachedAll || reached(bounds, concerned(keys, bounds.length));
    },
    isCaughtUp: async (keys) => {
      const bounds = await log.bounds(topics.roomEvents);
      return reached(bounds, concerned(keys, bounds.length));
    },
  };
};
