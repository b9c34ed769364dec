import { topics } from '@realtime-service/contracts';
import { type EventLog, partitionOf } from '@realtime-service/event-log';
import type { RoomStore } from '@realtime-service/room-store';
import { type Clock, systemClock } from './clock.ts';

/** How long the lanes may take to the end of the log, and how often they are looked at meanwhile. */
const patienceMs = 500;
const lookEveryMs = 50;

/**
 * Whether the facts about a room or a user are fresh enough to act on. A restored or empty database believes that
 * nobody is a member, or that somebody is still removed; acting on that would empty live calls.
 */
export interface LaneGate {
  /**
   * The lanes of these keys stand no lower than this process knows them to reach: the log's end when it first looked
   * at these tables (a rebuild puts others in their place), and wherever it has seen the projection since. A database
   * that is restored under a running worker closes the gate.
   */
  readonly hasReachedKnown: (keys: readonly string[]) => Promise<boolean>;
  /**
   * The lanes of these keys have reached the log's end as it is when this is asked, now or within half a second: only then
   * does absence mean anything. A lane in which something is always under way never reaches the end of the moment.
   */
  readonly isCaughtUp: (keys: readonly string[]) => Promise<boolean>;
}

export const createLaneGate = (
  store: Pick<RoomStore, 'readPositions'>,
  log: Pick<EventLog, 'bounds'>,
  projection: string,
  clock: Pick<Clock, 'delay'> = systemClock,
): LaneGate => {
  /** Per partition, the highest position that is known to be reachable. */
  const known = new Map<number, bigint>();
  let serving: string | undefined;

  const raise = (partition: number, position: bigint): void => {
    if (position > (known.get(partition) ?? -1n)) known.set(partition, position);
  };

  const readNext = async (): Promise<Map<number, bigint>> => {
    const positions = await store.readPositions(projection);
    const next = new Map<number, bigint>();
    for (const { topic, partition, nextOffset, tables } of positions) {
      if (topic !== topics.roomEvents) continue;
      // Other tables have taken the place of those that were known: as after a start.
      if (tables !== serving) known.clear();
      serving = tables;
      next.set(partition, nextOffset);
      if (known.size > 0) raise(partition, nextOffset);
    }
    return next;
  };

  /** Whether the lanes of these keys have come as far as `ends` says. */
  const isReached = (
    keys: readonly string[],
    next: ReadonlyMap<number, bigint>,
    ends: ReadonlyMap<number, bigint>,
  ): boolean =>
    keys.every((key) => {
      const partition = partitionOf(key, ends.size);
      return (next.get(partition) ?? -1n) >= (ends.get(partition) ?? 0n);
    });

  const readEnds = async (): Promise<Map<number, bigint>> =>
    new Map((await log.bounds(topics.roomEvents)).map(({ partition, high }) => [partition, high]));

  return {
    hasReachedKnown: async (keys) => {
      const next = await readNext();
      if (known.size === 0) for (const [partition, high] of await readEnds()) raise(partition, high);
      return isReached(keys, next, known);
    },
    isCaughtUp: async (keys) => {
      const ends = await readEnds();
      for (let waitedMs = 0; !isReached(keys, await readNext(), ends); waitedMs += lookEveryMs) {
        if (waitedMs >= patienceMs) return false;
        await clock.delay(lookEveryMs);
      }
      return true;
    },
  };
};
