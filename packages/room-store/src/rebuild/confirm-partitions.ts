import { inTransaction, type Pool } from '../database/database.ts';
import { activeProjection, PartitionCountChangedError } from '../positions.ts';
import { dropSet } from './rebuild-set.ts';

/**
 * Has a topic that was grown applied with as many partitions as it has now, from then on. A rebuild that was begun by
 * the count before is given up.
 * @throws {PartitionCountChangedError}
 */
export const confirmPartitions = (
  pool: Pool,
  topic: string,
  { from, to }: { from: number; to: number },
): Promise<void> =>
  inTransaction(pool, async (client) => {
    await dropSet(client);
    const { rowCount } = await client.query(
      `update log_positions set partition_count = $4, grown_from = coalesce(grown_from, $3)
        where projection = $1 and topic = $2 and partition_count = $3`,
      [activeProjection, topic, from, to],
    );
    if (rowCount !== from) throw new PartitionCountChangedError(`the count of ${topic} was changed meanwhile`);
    await client.query(
      `insert into log_positions (projection, topic, "partition", next_offset, partition_count, grown_from)
        select $1, $2, p, 0, $4, $3 from generate_series($3::int, $4::int - 1) as p`,
      [activeProjection, topic, from, to],
    );
  });
