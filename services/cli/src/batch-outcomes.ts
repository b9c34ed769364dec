import type { BatchOutcome } from '@realtime-service/event-log';

/** How long a command waits for its consumer to end. */
export const stopWithinMs = 5_000;

/** What stands from here on is not for this command: it is left alone for as long as any may take. */
export const leftAlone = (nextOffset: bigint): BatchOutcome => ({
  kind: 'retry',
  nextOffset,
  afterMs: 24 * 3_600_000,
});

/** Somebody else was in the way. */
export const triedAgain = (nextOffset: bigint): BatchOutcome => ({ kind: 'retry', nextOffset, afterMs: 500 });
