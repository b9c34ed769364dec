import type { DeadLetter } from '../apply/chunk.ts';
import { inTransaction, type Pool } from '../database/database.ts';
import { toDeadLetter } from './dead-letters.ts';

export interface OutboxEvent {
  readonly outboxId: bigint;
  readonly roomId: string;
  readonly eventId: string;
  readonly type: string;
  readonly occurredAtMs: number;
  readonly data: unknown;
  readonly trace: string | null;
}

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
        outboxId: BigInt(row.outbox_id),
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

/** Publishes dead letters of a topic that their producers have not seen yet, as `relayOutbox` does. */
export const relayDeadLetters = (
  pool: Pool,
  topic: string,
  limit: number,
  publish: (letters: readonly DeadLetter[]) => Promise<void>,
): Promise<number> =>
  inTransaction(pool, async (client) => {
    const { rows } = await client.query(
      `select * from dead_letters where not is_relayed and topic = $1 order by "partition", "offset" limit $2 for update`,
      [topic, limit],
    );
    if (rows.length === 0) return 0;
    await publish(rows.map(toDeadLetter));
    await client.query(
      `update dead_letters set is_relayed = true where (topic, "partition", "offset") in
        (select * from unnest($1::text[], $2::int[], $3::bigint[]))`,
      [rows.map((row) => row.topic), rows.map((row) => row.partition), rows.map((row) => row.offset)],
    );
    return rows.length;
  });
