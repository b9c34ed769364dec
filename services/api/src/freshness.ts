import { setTimeout as delay } from 'node:timers/promises';
import {
  consumedTopics,
  type LogPartition,
  type LogPosition,
  partitionName,
  topics,
} from '@realtime-service/contracts';
import { type EventLog, partitionOf } from '@realtime-service/event-log';
import type { NoteStanding, PartitionPosition } from '@realtime-service/room-store';
import { type Logger, type Moment, msSince, thisMoment, withDeadline } from '@realtime-service/telemetry';
import { type PartitionFreshness, PartitionProgress } from './partition-progress.ts';
import { ProblemError } from './problem.ts';

const lookEveryMs = 1_000;
const waitAtMostMs = 1_000;
const pollEveryMs = 20;
/** A log that is away must not keep a process from starting. */
const firstLookWithinMs = 2_000;
export interface Freshness {
  /**
   * False while the room's partition or the person's is older than the limit, or is behind where a first look found the
   * log to end: at all, or for longer than that. Where any partition is, while a topic was grown and that is not
   * confirmed, and before the log has told how many there are. What else is not known is no reason to refuse.
   */
  readonly isCurrent: (roomId: string, userId: string) => boolean;
  /**
   * Asked before facts are read, and told where those stood. What stands before where it was seen to stand by then has
   * gone back, as by a standby that took over: it is too old at once, not only from the next look on.
   */
  readonly compare: () => NoteStanding;
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
  const progresses = new Map<string, PartitionProgress>();
  const partitionCounts = new Map<string, number>();
  const clocks = { elapsed: now, now: () => Date.now() };
  /** When a topic's end was read last. */
  const lookedAt = new Map<string, Moment>();
  const stopping = new AbortController();
  let isLogKnown: boolean | undefined;
  let looking: Promise<unknown> | undefined;
  let polling: Promise<void> | undefined;
  let reading: Promise<void> | undefined;

  const progressOf = ({ topic, partition }: LogPartition): PartitionProgress => {
    const key = partitionName({ topic, partition });
    const known = progresses.get(key) ?? new PartitionProgress({ topic, partition }, maxAgeMs);
    progresses.set(key, known);
    return known;
  };

  /**
   * One at a time, since an older answer that comes later would look like a database that has gone back. Where the
   * database is away, joins fail for want of facts: nothing needs to be decided here.
   */
  const readApplied = (): Promise<void> => {
    reading ??= readPositions()
      .then(
        (positions) => {
          for (const position of positions) progressOf(position).noteApplied(position.nextOffset, now());
        },
        (error: unknown) => logger.debug({ err: error }, 'applied positions could not be read'),
      )
      .finally(() => {
        reading = undefined;
      });
    return reading;
  };

  const appliedOfEach = (): Map<PartitionProgress, bigint> =>
    new Map(progresses.values().map((progress) => [progress, progress.applied]));

  const readHigh = async (topic: string): Promise<void> => {
    const appliedBefore = appliedOfEach();
    const partitions = await bounds(topic);
    const nowMs = now();
    // After a start, or a time in which the log was away or this process stood still.
    const last = lookedAt.get(topic);
    const isFirst = last === undefined || msSince(last, clocks) > maxAgeMs + lookEveryMs;
    lookedAt.set(topic, thisMoment(clocks));
    partitionCounts.set(topic, partitions.length);
    for (const { partition, high } of partitions) {
      const progress = progressOf({ topic, partition });
      progress.noteHigh(high, appliedBefore.get(progress) ?? 0n, { nowMs, isFirst });
    }
  };

  const note = (isKnown: boolean, error?: unknown): void => {
    if (!isKnown && isLogKnown !== false) logger.warn({ err: error }, 'high positions of the log are unknown');
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

  /** Facts about a key may still stand where the count before put it, and that count is not known here. */
  const isGrown = (): boolean => {
    const isProjected = [...Array(partitionCounts.get(topics.roomEvents) ?? 0).keys()].map(
      (partition) => progressOf({ topic: topics.roomEvents, partition }).isProjected,
    );
    return isProjected.includes(true) && isProjected.includes(false);
  };

  /** Facts about a room have its id as their key, those about a person and a login have the person's. */
  const progressOfKey = (key: string): PartitionProgress | undefined => {
    const topic = topics.roomEvents;
    const count = partitionCounts.get(topic);
    if (count === undefined) return undefined;
    return progresses.get(partitionName({ topic, partition: partitionOf(key, count) }));
  };

  const areApplied = (positions: readonly LogPosition[]): boolean =>
    positions.every((position) => progresses.get(partitionName(position))?.hasApplied(position.offset) ?? false);

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
      const nowMs = now();
      const isTooOld = (progress: PartitionProgress): boolean =>
        progress.topic === topics.roomEvents && progress.isTooOld(nowMs);
      // Partitions are worked out only where they can matter: every join asks.
      if (!progresses.values().some(isTooOld)) return true;
      if (isGrown()) return false;
      return [roomId, userId].map(progressOfKey).every((progress) => progress !== undefined && !isTooOld(progress));
    },
    compare: () => {
      const before = appliedOfEach();
      return (nextOffsets) => {
        for (const [partition, nextOffset] of nextOffsets.entries()) {
          const progress = progressOf({ topic: topics.roomEvents, partition });
          if (nextOffset < (before.get(progress) ?? 0n)) progress.noteApplied(nextOffset, now());
        }
      };
    },
    reaches: async (positions) => {
      const deadlineMs = now() + waitAtMostMs;
      while (!areApplied(positions)) {
        const leftMs = deadlineMs - now();
        if (leftMs <= 0) return false;
        // A database that hangs answers later than that, if at all.
        await withDeadline(poll(), leftMs).catch(() => {});
      }
      return true;
    },
    partitions: () => [...progresses.values()].map((progress) => progress.freshness(now())),
    ofKey: (key) => progressOfKey(key)?.freshness(now()),
    isLogKnown: () => isLogKnown === true,
    look,
    start: async () => {
      const first = look();
      // Apart, so that a log which takes its time does not make what has been applied look old.
      looking = first.then(() => Promise.all([repeat(readHighs), repeat(readApplied)]));
      await withDeadline(first, firstLookWithinMs).catch(() => {});
    },
    stop: async () => {
      stopping.abort();
      await looking;
    },
  };
};
