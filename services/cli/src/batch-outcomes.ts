import type { BatchOutcome } from '@realtime-service/event-log';
import { isBusy, isOverdue } from '@realtime-service/room-store';

/** How long a command waits for its consumer to end. */
export const stopWithinMs = 5_000;

/** What stands from here on is not for this command: it is left alone for as long as any may take. */
export const leftAlone = (nextOffset: bigint): BatchOutcome => ({
  kind: 'retry',
  nextOffset,
  afterMs: 24 * 3_600_000,
});

/**
 * Where somebody else was in the way, or the database did not answer in time.
 * @throws whatever else it was
 */
export const triedAgain = (error: unknown, nextOffset: bigint): BatchOutcome => {
  if (!isBusy(error) && !isOverdue(error)) throw error;
  return { kind: 'retry', nextOffset, afterMs: 500 };
};
