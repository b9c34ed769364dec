/**
 * Where a fact came from. It is an entity's provenance and its version at once: facts are ordered per entity by
 * `sequence` where both sides have one, else by their place in the log.
 */
export interface Origin {
  readonly eventId: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  /** The fact's own time, else the record's; milliseconds since the epoch. Never used for order. */
  readonly timeMs: number;
  readonly sequence: bigint | null;
}

/** Whether a fact comes after the one that an entity was last changed by. */
export const isNewer = (incoming: Origin, stored: Origin | null): boolean => {
  if (stored === null) return true;
  if (incoming.sequence !== null && stored.sequence !== null && incoming.sequence !== stored.sequence)
    return incoming.sequence > stored.sequence;
  // Offsets of different partitions say nothing about each other; a producer with a wrong partitioner is alarmed.
  if (incoming.partition !== stored.partition || incoming.topic !== stored.topic) return true;
  return incoming.offset > stored.offset;
};

/** Whether a fact stands later in the log, whatever its sequence. */
export const isLaterInLog = (incoming: Origin, stored: Origin | null): boolean =>
  stored === null || isNewer({ ...incoming, sequence: null }, stored);

/**
 * The version that an entity has after a fact: the fact's own. One without a sequence does not make the entity forget
 * the one that it had, else a late fact could pass for a new one.
 */
export const following = (incoming: Origin, stored: Origin | null): Origin =>
  incoming.sequence === null && stored !== null ? { ...incoming, sequence: stored.sequence } : incoming;
