import { setTimeout as delay } from 'node:timers/promises';
import {
  consumedTopics,
  type LogPartition,
  type LogPosition,
  partitionName,
  topics,
} from '@realtime-service/contracts';
import { type EventLog, partitionOf } from '@realtime-service/event-log';
import type { PartitionPosition } from '@realtime-service/room-store';
import { type Logger, withDeadline } from '@realtime-service/telemetry';
import { ProblemError } from './problem.ts';

const lookEveryMs = 1_000;
const waitAtMostMs = 1_000;
const pollEveryMs = 20;
/** A log that is away must not keep a process from starting. */
const firstLookWithinMs = 2_000;
/** Observations kept per partition, one a second at most. */
const maxUnreached = 600;

/** A high position that was seen and has not been applied yet. */
interface Observation {
  high: bigint;
  readonly seenAtMs: number;
  /** Found at the first look, so that nobody knows since when it waits; or applied once, and gone by a restore. */
  readonly isFromBefore: boolean;
}

interface PartitionState {
  readonly topic: string;
  readonly partition: number;
  high: bigint;
  applied: bigint;
  readonly unreached: Observation[];
  /** Since when the log ends before what had been applied: it is another one, of which nothing is applied. */
  shortSinceMs: number | null;
}

export interface PartitionFreshness {
  readonly topic: string;
  readonly partition: number;
  /** Records that are not applied. */
  readonly lag: bigint;
  /**
   * Time since the oldest high position that is not reached was first seen, or since the log was found to end before
   * what had been applied; 0 where neither is.
   */
  readonly ageMs: number;
}

export interface Freshness {
  /**
   * False while the room's partition or the person's is older than the limit, or is behind where the first look found
   * the log to end. What is not known is no reason to refuse.
   */
  readonly isCurrent: (roomId: string, userId: string) => boolean;
  /** Waits up to a second until the projection has applied these positions. False when it has not. */
  readonly reaches: (positions: readonly LogPosition[]) => Promise<boolean>;
  readonly partitions: () => PartitionFreshness[];
  /** The partition that the facts about a room or a person are in, as far as it is known. */
  readonly ofKey: (key: string) => PartitionFreshness | undefined;
  /** Whether the log's high positions could be read at the last look. */
  readonly isLogKnown: () => boolean;
  /** Looks once; `start` does so every second. */
  readonly look: () => Promise<void>;
  /** Done after the first look, and after two seconds at the latest. */
  readonly start: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

interface FreshnessOptions {
  readonly bounds: EventLog['bounds'];
  readonly readPositions: () => Promise<PartitionPosition[]>;
  readonly maxAgeMs: number;
  readonly logger: Logger;
  /** Milliseconds by a clock that nobody sets. */
  readonly now?: () => number;
}

/** @throws {ProblemError} 503 where the facts about the room or the person are too old to decide by */
export const assertCurrent = ({ isCurrent }: Pick<Freshness, 'isCurrent'>, roomId: string, userId: string): void => {
  if (!isCurrent(roomId, userId)) throw new ProblemError('projection_stale', { reason: 'partition_too_old' });
};

/** How far the projection is behind the log, looked at once a second. */
export const createFreshness = ({
  bounds,
  readPositions,
  maxAgeMs,
  logger,
  now = () => performance.now(),
}: FreshnessOptions): Freshness => {
  const states = new Map<string, PartitionState>();
  const partitionCounts = new Map<string, number>();
  const stopping = new AbortController();
  let isLogKnown = false;
  let looking: Promise<unknown> | undefined;
  let polling: Promise<void> | undefined;
  let reading: Promise<void> | undefined;

  const stateOf = ({ topic, partition }: LogPartition): PartitionState => {
    const key = partitionName({ topic, partition });
    const known = states.get(key) ?? {
      topic,
      partition,
      high: 0n,
      applied: 0n,
      unreached: [],
      shortSinceMs: null,
    };
    states.set(key, known);
    return known;
  };

  const noteApplied = (position: PartitionPosition): void => {
    const { nextOffset } = position;
    const state = stateOf(position);
    if (nextOffset < state.applied)
      state.unreached.unshift({ high: state.applied, seenAtMs: now(), isFromBefore: true });
    // Somebody applies it, from the beginning or by an operator's word.
    if (nextOffset !== state.applied) state.shortSinceMs = null;
    state.applied = nextOffset;
    dropReached(state);
  };

  const dropReached = ({ unreached, applied }: PartitionState): void => {
    while (unreached[0] !== undefined && unreached[0].high <= applied) unreached.shift();
  };

  /**
   * One at a time, since an older answer that comes later would look like a database that has gone back. Where the
   * database is away, joins fail for want of facts: nothing needs to be decided here.
   */
  const readApplied = (): Promise<void> => {
    reading ??= readPositions()
      .then(
        (positions) => positions.forEach(noteApplied),
        (error: unknown) => logger.debug({ err: error }, 'applied positions could not be read'),
      )
      .finally(() => {
        reading = undefined;
      });
    return reading;
  };

  const readHigh = async (topic: string): Promise<void> => {
    // Noted before the log is asked: what is applied meanwhile may lie beyond its answer.
    const applied = new Map(states.values().map((state) => [state, state.applied]));
    const partitions = await bounds(topic);
    const isFromBefore = !partitionCounts.has(topic);
    partitionCounts.set(topic, partitions.length);
    for (const { partition, high } of partitions) {
      const state = stateOf({ topic, partition });
      state.high = high;
      for (const seen of state.unreached) if (seen.high > high) seen.high = high;
      dropReached(state);
      const last = state.unreached.at(-1);
      if (high < (applied.get(state) ?? 0n)) state.shortSinceMs ??= now();
      // A broker that has failed over may tell of less for a moment. Later it is another log, however long it grows.
      else if (ageMs(state) <= maxAgeMs) state.shortSinceMs = null;
      if (high <= (last?.high ?? state.applied)) continue;
      if (last !== undefined && state.unreached.length >= maxUnreached) last.high = high;
      else state.unreached.push({ high, seenAtMs: now(), isFromBefore });
    }
  };

  const note = (isKnown: boolean, error?: unknown): void => {
    if (isKnown !== isLogKnown && !isKnown) logger.warn({ err: error }, 'high positions of the log are unknown');
    isLogKnown = isKnown;
  };

  const readHighs = (): Promise<void> =>
    Promise.all(consumedTopics.map(readHigh)).then(
      () => note(true),
      (error: unknown) => note(false, error),
    );

  const look = async (): Promise<void> => {
    await Promise.all([readHighs(), readApplied()]);
  };

  const repeat = async (read: () => Promise<void>): Promise<void> => {
    while (!stopping.signal.aborted) {
      await read();
      await delay(lookEveryMs, undefined, { signal: stopping.signal }).catch(() => {});
    }
  };

  const ageMs = ({ unreached: [oldest], shortSinceMs }: PartitionState): number => {
    const nowMs = now();
    return nowMs - Math.min(oldest?.seenAtMs ?? nowMs, shortSinceMs ?? nowMs);
  };

  const isTooOld = (state: PartitionState): boolean =>
    state.unreached[0]?.isFromBefore === true || ageMs(state) > maxAgeMs;

  /** Facts about a room have its id as their key, those about a person and a login have the person's. */
  const stateOfKey = (key: string): PartitionState | undefined => {
    const topic = topics.roomEvents;
    const count = partitionCounts.get(topic);
    return count === undefined ? undefined : states.get(partitionName({ topic, partition: partitionOf(key, count) }));
  };

  const toFreshness = (state: PartitionState): PartitionFreshness => ({
    topic: state.topic,
    partition: state.partition,
    lag: state.high > state.applied ? state.high - state.applied : 0n,
    ageMs: ageMs(state),
  });

  const isReached = (positions: readonly LogPosition[]): boolean =>
    positions.every((position) => {
      const state = states.get(partitionName(position));
      return state !== undefined && state.shortSinceMs === null && state.applied > position.offset;
    });

  /** All who wait share one query at a time. */
  const poll = (): Promise<void> => {
    polling ??= Promise.all([readApplied(), delay(pollEveryMs)])
      .then(() => {})
      .finally(() => {
        polling = undefined;
      });
    return polling;
  };

  return {
    isCurrent: (roomId, userId) => {
      // Partitions are worked out only where they can matter: every join asks.
      if (!states.values().some(isTooOld)) return true;
      return [roomId, userId].map(stateOfKey).every((state) => state === undefined || !isTooOld(state));
    },
    reaches: async (positions) => {
      const deadlineMs = now() + waitAtMostMs;
      while (!isReached(positions)) {
        const leftMs = deadlineMs - now();
        if (leftMs <= 0) return false;
        // A database that hangs answers later than that, if at all.
        await withDeadline(poll(), leftMs).catch(() => {});
      }
      return true;
    },
    partitions: () => [...states.values()].map(toFreshness),
    ofKey: (key) => {
      const state = stateOfKey(key);
      return state === undefined ? undefined : toFreshness(state);
    },
    isLogKnown: () => isLogKnown,
    look,
    start: async () => {
      const first = look();
      // Apart, so that a log which takes its time does not make what has been applied look old.
      looking ??= first.then(() => Promise.all([repeat(readHighs), repeat(readApplied)]));
      await withDeadline(first, firstLookWithinMs).catch(() => {});
    },
    stop: async () => {
      stopping.abort();
      await looking;
    },
  };
};
