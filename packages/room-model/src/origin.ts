import type { LogPosition } from '@realtime-service/contracts';

export const isSamePlace = (left: LogPosition, right: LogPosition): boolean =>
  left.offset === right.offset && left.partition === right.partition && left.topic === right.topic;

/**
 * Where a fact came from. It is an entity's provenance and its version at once: facts are ordered per entity by
 * `sequence` where both sides have one, else by their place in the log.
 */
export interface Origin extends LogPosition {
  readonly eventId: string;
  /** The fact's own time, else the record's; milliseconds since the epoch. Never used for order. */
  readonly timeMs: number;
  readonly sequence: bigint | null;
}

/** As much of an origin as decides about order. */
export type Version = LogPosition & Pick<Origin, 'sequence'>;

/**
 * Whether a fact stands later in the log. Offsets of different partitions say nothing about each other: there it counts
 * as later, and the producer's wrong partitioner is alarmed.
 */
export const isLaterInLog = (incoming: LogPosition, stored: LogPosition | null): boolean =>
  stored === null ||
  incoming.topic !== stored.topic ||
  incoming.partition !== stored.partition ||
  incoming.offset > stored.offset;

/**
 * Whether a fact comes after the one that an entity was last changed by. What stands before that one in the log was
 * told already, or is a dead letter retried too late; of what stands after it an older sequence was overtaken.
 */
export const isNewer = (incoming: Origin, stored: Version | null): boolean => {
  if (!isLaterInLog(incoming, stored)) return false;
  const known = stored?.sequence ?? null;
  return incoming.sequence === null || known === null || incoming.sequence >= known;
};

/**
 * The version that an entity has after a fact: the fact's own. One without a sequence does not make the entity forget
 * the one that it had, else a late fact could pass for a new one.
 */
export const following = (incoming: Origin, stored: Version | null): Origin =>
  incoming.sequence === null && stored !== null ? { ...incoming, sequence: stored.sequence } : incoming;

/** The same of a row that keeps versions of several things, each without a provenance of its own. */
export const versionAfter = (incoming: Origin, stored: Version | null): Version => {
  const { topic, partition, offset, sequence } = following(incoming, stored);
  return { topic, partition, offset, sequence };
};
