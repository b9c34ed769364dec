import { partitionName, topics } from '@realtime-service/contracts';
import { type EventLog, LogUnavailableError, partitionOf } from '@realtime-service/event-log';
import type { PartitionPosition, RoomStore } from '@realtime-service/room-store';
import { msSince, thisMoment, withDeadline } from '@realtime-service/telemetry';
import { type Clock, systemClock } from './clock.ts';

/** How long the lanes may take to the end of the log, and how often they are looked at meanwhile. */
const patienceMs = 500;
const lookEveryMs = 50;
/** A silent log must hold nobody's turn up for as long as its own client is patient. */
const endsWithinMs = 2_000;
/** Positions are looked at every two seconds: the database was away, or this process or its machine stood still. */
const awayAfterMs = 5_000;

/** Positions by {@link partitionName}. */
export type Positions = Map<string, bigint>;

/** Notes where the database was seen to stand. */
export const noteSeen = (seen: Positions, positions: readonly PartitionPosition[]): void => {
  for (const each of positions)
    if (each.nextOffset > (seen.get(partitionName(each)) ?? 0n)) seen.set(partitionName(each), each.nextOffset);
};

/**
 * Whether the facts about a room or a user are fresh enough to act on. A restored or empty database believes that
 * nobody is a member, or that somebody is still removed; acting on that would empty live calls.
 */
export interface LaneGate {
  /**
   * The lanes of these keys have reached the log's end as it was when this process first looked at these tables (a
   * rebuild puts others in their place), or anew where the projection stood lower than it had been seen, by a restore
   * or a reset under a running worker, and where facts may have waited meanwhile: after some seconds in which it could
   * not be looked at, or when partitions were taken over. To be asked every few seconds, also about no keys: a position
   * that was never seen cannot be seen to have gone back.
   */
  readonly hasReachedKnown: (keys: readonly string[]) => Promise<boolean>;
  /**
   * The lanes of these keys have reached the log's end as it is when this is asked, now or within half a second: only
   * then does absence mean anything. A lane in which something is always under way never reaches the end of the moment.
   * Every other lane has come to what is known: where a topic was grown, or a producer has another partitioner, facts
   * stand in other lanes than their keys give. A lane that was waited for in vain is waited for by one question at a
   * time, until it has moved: others must not be held up by it. Rejects with a {@link LogUnavailableError}
   * where the log says nothing for 2 s.
   */
  readonly isCaughtUp: (keys: readonly string[]) => Promise<boolean>;
  /**
   * Asked before facts are read, and then about these keys and where those facts stood: whether they had reached what
   * {@link hasReachedKnown} says, and stood no lower than these tables were seen to stand by then. Otherwise they have
   * gone back since, or another database has answered, such as a primary that a failover has left running.
   */
  readonly compare: () => (keys: readonly string[], standing: readonly bigint[]) => Promise<boolean>;
}

export interface LaneGateOfConsumer extends LaneGate {
  /**
   * As after a start: when partitions are assigned, to this worker or to others, of which nobody may have applied
   * anything for a while.
   */
  readonly beginAnew: () => void;
}

/** Whoever asks while an answer is on its way gets that one. */
const oneForAll = <T>(read: () => Promise<T>): (() => Promise<T>) => {
  let reading: Promise<T> | undefined;
  return () => {
    reading ??= read().finally(() => {
      reading = undefined;
    });
    return reading;
  };
};

/** Of one topic, by partition. */
type Offsets = ReadonlyMap<number, bigint>;

/** How far the log is known to go. Forgotten as a whole: what is being asked then may have been answered before. */
interface Knowledge {
  ends: Offsets | undefined;
  readonly ask: () => Promise<Offsets>;
}

const isBehind = (lane: number, next: Offsets, ends: Offsets): boolean =>
  (next.get(lane) ?? -1n) < (ends.get(lane) ?? 0n);

/** The lanes of these keys that have not come as far as `ends` says. */
const lanesBehind = (keys: readonly string[], next: Offsets, ends: Offsets): number[] =>
  keys.map((key) => partitionOf(key, ends.size)).filter((lane) => isBehind(lane, next, ends));

interface LaneGateOptions {
  /** The system's unless said. */
  readonly clock?: Pick<Clock, 'now' | 'elapsed' | 'delay'>;
  /** Where the projection was seen to stand: by the gate, and by whoever applies batches in this process. */
  readonly seen?: Positions;
}

export const createLaneGate = (
  store: Pick<RoomStore, 'readPositions'>,
  log: Pick<EventLog, 'bounds'>,
  { clock = systemClock, seen = new Map() }: LaneGateOptions = {},
): LaneGateOfConsumer => {
  /** Lanes that were waited for in vain, and those of them that somebody waits for. */
  const stalled = new Set<number>();
  const waitedFor = new Set<number>();
  let serving: string | undefined;
  let lookedAt = thisMoment(clock);

  const readNext = async (): Promise<Offsets> => {
    // As it was before: answers overtake each other, and what is applied while they are on their way.
    const before = new Map(seen);
    const positions = (await store.readPositions()).filter(({ topic }) => topic === topics.roomEvents);
    // Other tables have taken the place of those that were known, or a position went back, by a restore or a reset: as
    // after a start.
    const isAnew = positions.some(
      (each) => each.tables !== serving || each.nextOffset < (before.get(partitionName(each)) ?? 0n),
    );
    if (isAnew) {
      forget();
      seen.clear();
      serving = positions[0]?.tables;
    }
    forgetAfterAway();
    lookedAt = thisMoment(clock);
    noteSeen(seen, positions);
    return new Map(positions.map(({ partition, nextOffset }) => [partition, nextOffset]));
  };

  const readEnds = async (): Promise<Offsets> => {
    const bounds = await withDeadline(log.bounds(topics.roomEvents), endsWithinMs).catch((cause: unknown) => {
      throw new LogUnavailableError('the log did not say how far it goes', { cause });
    });
    return new Map(bounds.map(({ partition, high }) => [partition, high]));
  };

  const knowNothing = (): Knowledge => ({ ends: undefined, ask: oneForAll(readEnds) });
  let known = knowNothing();
  const forget = (): void => {
    known = knowNothing();
  };
  const forgetAfterAway = (): void => {
    if (msSince(lookedAt, clock) > awayAfterMs) forget();
  };

  const knownEnds = async (): Promise<Offsets> => {
    const current = known;
    current.ends ??= await current.ask();
    return current.ends;
  };

  const readNextForAll = oneForAll(readNext);

  return {
    hasReachedKnown: async (keys) => {
      const next = await readNext();
      return lanesBehind(keys, next, await knownEnds()).length === 0;
    },
    beginAnew: forget,
    compare: () => {
      const seenBefore = new Map(seen);
      const isLower = (nextOffset: bigint, partition: number): boolean =>
        nextOffset < (seenBefore.get(partitionName({ topic: topics.roomEvents, partition })) ?? 0n);
      return async (keys, standing) => {
        if (standing.some(isLower)) return false;
        forgetAfterAway();
        return lanesBehind(keys, new Map(standing.entries()), await knownEnds()).length === 0;
      };
    },
    isCaughtUp: async (keys) => {
      const current = known;
      const ends = await readEnds();
      const next = await readNext();
      current.ends ??= ends;
      for (const lane of stalled) if (!isBehind(lane, next, ends)) stalled.delete(lane);
      // A log may end earlier than it was known to: what a broker that failed over has lost is waited for by nobody.
      const lanesLeft = (at: Offsets): number[] => [
        ...lanesBehind(keys, at, ends),
        ...[...ends.keys()].filter((lane) => isBehind(lane, at, known.ends ?? ends) && isBehind(lane, at, ends)),
      ];
      const lanes = lanesLeft(next);
      if (lanes.some((lane) => waitedFor.has(lane))) return false;
      const ours = lanes.filter((lane) => stalled.has(lane));
      for (const lane of ours) waitedFor.add(lane);
      try {
        const startedAtMs = clock.now();
        let left = lanes;
        // Looks are counted as well as time, which may be set back.
        for (let look = 0; left.length > 0 && look < patienceMs / lookEveryMs; look += 1) {
          if (clock.now() - startedAtMs >= patienceMs) break;
          await clock.delay(lookEveryMs);
          left = lanesLeft(await readNextForAll());
        }
        for (const lane of lanes) stalled.delete(lane);
        for (const lane of left) stalled.add(lane);
        return left.length === 0;
      } finally {
        for (const lane of ours) waitedFor.delete(lane);
      }
    },
  };
};
