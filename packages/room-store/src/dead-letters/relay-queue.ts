import type { DeadLetter, OutboxEvent } from '../apply/chunk.ts';
import { inTransaction, type Pool } from '../database/database.ts';
import { toDeadLetter } from './dead-letters.ts';

/**
 * Publishes waiting presence events in id order, which is per-room order since rows are written under the room's lock.
 * Rows go when `publish` has succeeded: at least once, with a stable id. For the holder of the relay's duty only.
 */
export const relayOutbox = (
  pool: Pool,
  limit: number,
  publish: (events: readonly OutboxEvent[]) => Promise<void>,
): Promise<number> =>
  inTransaction(pool, async (client) => {
    const { rows } = await client.query('select * from outbox order by outbox_id limit $1 for update', [limit]);
    if (rows.length === 0) return 0;
    await publish(
      rows.map((row) => ({
        roomId: row.room_id,
        eventId: row.event_id,
        type: row.type,
        occurredAtMs: row.occurred_at.getTime(),
        data: row.data,
        trace: row.trace,
      })),
    );
    await client.query('delete from outbox where outbox_id = any($1::bigint[])', [rows.map((row) => row.outbox_id)]);
    return rows.length;
  });

/**
 * Publishes the first dead letter of a topic that its producer has not seen yet, and says whether there was one. Each
 * is noted by itself, so that none is published again for another's sake. No row is locked meanwhile, since a log may
 * take long: one that a retry has given another reason by then is published again. For the holder of the relay's duty
 * only.
 */
export const relayDeadLetter = async (
  pool: Pool,
  topic: string,
  publish: (letter: DeadLetter) => Promise<void>,
): Promise<boolean> => {
  const { rows } = await pool.query(
    'select * from dead_letters where not is_relayed and topic = $1 order by "partition", "offset" limit 1',
    [topic],
  );
  if (rows[0] === undefined) return false;
  const letter = toDeadLetter(rows[0]);
  await publish(letter);
  await pool.query(
    `update dead_letters set is_relayed = true
      where topic = $1 and "partition" = $2 and "offset" = $3 and reason = $4 and message = $5`,
    [topic, letter.partition, letter.offset.toString(), letter.reason, letter.message],
  );
  return true;
};
