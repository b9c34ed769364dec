import type { LogStart } from '@realtime-service/event-log';
import type { StoredPosition } from '@realtime-service/room-store';

/** What a release before this one has applied is not all read again. */
const readAgainAtMost = 10_000n;

/**
 * Where to begin to read: at the last record that was applied instead of after it, so that a log which was made again
 * is noticed, also where it holds more than had been applied.
 */
export const startPositions = (positions: readonly StoredPosition[]): LogStart[] =>
  positions.map(({ topic, partition, nextOffset, last }) => ({
    topic,
    partition,
    offset: nextOffset,
    lastRead: last !== null && nextOffset - last.offset <= readAgainAtMost ? last.offset : undefined,
  }));
