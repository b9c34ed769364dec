import { inTransaction, type Pool } from './database.ts';
import { transactionOf } from './postgres-store.ts';
import type { ChunkStore } from './store.ts';
import { writeState } from './write-chunk.ts';

/**
 * The store that `applyChunk` fills a second set of tables through; `pool` leads there (`rebuildUrlOf`). Only state is
 * written. Marks, orders, presence events and dead letters were made when the facts were new. Doubts stay with the dead
 * letters that raised them: one that a record under a wrong key has left is settled by facts of another partition, and
 * between partitions there is no order that could be repeated. Rows are not locked: each partition has one writer, who
 * is fenced by its position as everywhere.
 */
export const createRebuildStore = (pool: Pool): ChunkStore => ({
  transaction: (work) =>
    inTransaction(pool, (client) =>
      work({
        ...transactionOf(client),
        lock: async () => {},
        write: async (writes) => {
          await writeState(client, writes);
          return 0;
        },
      }),
    ),
  notifyMarks: async () => {},
});
