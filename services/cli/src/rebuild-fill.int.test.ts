import { setTimeout as delay } from 'node:timers/promises';
import { topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { createEmbeddedLog } from '@realtime-service/event-log';
import {
  activeProjection,
  createPool,
  createRebuildStore,
  dropRebuild,
  type Pool,
  preparePositions,
  prepareRebuild,
  purgeFacts,
  readPositions,
  rebuildProjection,
  rebuildUrlOf,
} from '@realtime-service/room-store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { appendHistory, partitionCount, type RebuiltDatabase, startRebuiltDatabase } from '../test/rebuilt-database.ts';
import { createFiller } from './rebuild-fill.ts';

const topic = topics.roomEvents;

describeWith(['postgres'], 'filling the second set', () => {
  let database: RebuiltDatabase;
  let pool: Pool;

  beforeAll(async () => {
    database = await startRebuiltDatabase();
    pool = createPool({
      url: rebuildUrlOf(database.url),
      maxConnections: 10,
      applicationName: 'test',
      onError: () => undefined,
    });
    await appendHistory(database, { seed: 31, count: 1_500 });
    await tellAgainLater(40);
    await database.caughtUp();
    await purgeFacts(database.pool, { projection: activeProjection });
  });
  afterAll(async () => {
    await pool.end();
    await database.stop();
  });

  /** The first facts of a partition once more, by when their ids count for new facts. */
  const tellAgainLater = async (count: number): Promise<void> => {
    await database.pool.query(
      `with head as (
          update log_heads set next_offset = next_offset + $1 where topic = $2 and partition = 0 returning next_offset)
        insert into log_records (topic, partition, "offset", appended_at, key, value, headers)
          select topic, partition, next_offset - $1 + "offset", appended_at + interval '8 days', key, value, headers
            from log_records, head where topic = $2 and partition = 0 and "offset" < $1`,
      [count, topic],
    );
  };

  const positionsOf = async (projection: string): Promise<Map<number, bigint>> =>
    new Map(
      (await readPositions(pool, projection)).flatMap((each) =>
        each.topic === topic ? [[each.partition, each.nextOffset]] : [],
      ),
    );

  const rowsOf = async (schema: string): Promise<string[]> => {
    const lines: string[] = [];
    for (const name of ['rooms', 'members', 'bans', 'users', 'ended_logins', 'applied_facts']) {
      const isFact = name === 'applied_facts' ? '' : 'where event_id is not null';
      const { rows } = await pool.query<{ line: string }>(
        `select each::text as line from ${schema}.${name} as each ${isFact} order by 1`,
      );
      lines.push(...rows.map(({ line }) => `${name} ${line}`));
    }
    return lines;
  };

  /** Fills in batches of a few records, each of which rests on what those before it have written. */
  const fill = async (isEmpty: boolean, isOurs: (partition: number) => boolean): Promise<void> => {
    const log = createEmbeddedLog({ pool, writeLog: () => undefined });
    const consumer = log.consume({
      group: 'test',
      topics: [topic],
      onBatch: createFiller({
        store: createRebuildStore(pool, isEmpty),
        partitionCount,
        acceptsMisplaced: false,
        isOurs,
        readLimits: () => positionsOf(activeProjection),
        purge: (partition) => purgeFacts(pool, { projection: rebuildProjection, topic, partition }),
      }),
      startAt: async () =>
        [...(await positionsOf(rebuildProjection))].map(([partition, offset]) => ({ topic, partition, offset })),
      maxBatchRecords: 11,
    });
    const isFilled = async (): Promise<boolean> => {
      const [ends, next] = [await positionsOf(activeProjection), await positionsOf(rebuildProjection)];
      return [...ends].every(([partition, end]) => !isOurs(partition) || next.get(partition) === end);
    };
    while (!(await isFilled())) await Promise.race([consumer.done, delay(20)]);
    await consumer.stop(5_000);
    await log.close();
  };

  test.each([true, false])(
    'batch by batch comes to the same rows; from an empty set: %s',
    async (isEmpty) => {
      await prepareRebuild(pool);
      await preparePositions(pool, rebuildProjection, topic, partitionCount);
      await fill(isEmpty, (partition) => partition < 2);
      const half = await positionsOf(rebuildProjection);
      expect([half.get(2), half.get(3)]).toEqual([0n, 0n]);
      await fill(isEmpty, (partition) => partition >= 2);
      await purgeFacts(pool, { projection: rebuildProjection });
      expect(await rowsOf('realtime_rebuild')).toEqual(await rowsOf('public'));
      await dropRebuild(pool);
    },
    60_000,
  );
});
