import { topics } from '@realtime-service/contracts';
import { inTransaction, type Pool, unlimitedTransactionSql } from '../database/database.ts';
import { activeProjection, readKnownPartitions } from '../positions.ts';
import { dropSet, rebuiltTables } from './rebuild-set.ts';

/** A whole table may have to be emptied. */
const emptyWithinMs = 600_000;

export interface ResetOptions {
  readonly topic: string;
  /** The first offset that each partition of the topic holds. */
  readonly lows: ReadonlyMap<number, bigint>;
}

/**
 * Gives up all that was applied of a topic, dead letters, doubts and an unfinished rebuild included, in one
 * transaction: whoever applies then begins at what the log holds first. Nobody is taken out of a room by it, since
 * nothing is enforced on old facts; nor does it touch who is believed to be inside, which the sweep repairs.
 */
export const resetTopic = (pool: Pool, { topic, lows }: ResetOptions): Promise<void> =>
  inTransaction(pool, async (client) => {
    const run = (text: string, values: unknown[] = []) => {
      const query = { text, values, query_timeout: emptyWithinMs };
      return client.query(query);
    };
    await run(`set local statement_timeout = 0; ${unlimitedTransactionSql}`);
    await dropSet(client);
    // Whoever applies waits here, and finds its position gone; of other topics, too, since they lock rooms and people.
    await run('select from log_positions where projection = $1 order by topic, "partition" for update', [
      activeProjection,
    ]);
    if (topic === topics.roomEvents)
      for (const name of rebuiltTables) if (name !== 'applied_facts') await run(`delete from ${name}`);
    await run('delete from applied_facts where topic = $1', [topic]);
    await run('delete from suspects where cause_topic = $1', [topic]);
    await run('delete from dead_letters where topic = $1', [topic]);
    const { grownFrom } = await readKnownPartitions(client, topic, lows.size);
    await run('delete from log_positions where projection = $1 and topic = $2', [activeProjection, topic]);
    await run(
      `insert into log_positions (projection, topic, "partition", next_offset, partition_count, grown_from)
        select $1, $2, "partition", low, $3, $6 from unnest($4::int[], $5::bigint[]) as bound ("partition", low)`,
      [activeProjection, topic, lows.size, [...lows.keys()], [...lows.values()].map(String), grownFrom],
    );
  });
