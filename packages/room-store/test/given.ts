import { consumedTopics } from '@realtime-service/contracts';
import { createDatabase } from '@realtime-service/dev-stack';
import { realParts } from '@realtime-service/dev-stack/vitest';
import type pg from 'pg';
import { type Client, inTransaction } from '../src/database/database.ts';
import type { Pool } from '../src/index.ts';
import { createPool, migrate, preparePositions } from '../src/index.ts';
import { partitionCount, projection } from './records.ts';

export * from './records.ts';

/** A fresh database with the schema, its partitions at 0. */
export const startDatabase = async (): Promise<{ pool: Pool; url: string }> => {
  const url = await createDatabase(realParts(['postgres']).postgres.url);
  await migrate(url);
  const pool = createPool({ url, maxConnections: 20, applicationName: 'test', onError: () => undefined });
  for (const topic of consumedTopics) await preparePositions(pool, projection, topic, partitionCount);
  return { pool, url };
};

/** Writes what a long history has left, however long that takes: the pool's own statements have a limit. */
export const fill = (pool: Pool, text: string, values: readonly unknown[] = []): Promise<pg.QueryResult> =>
  inTransaction(pool, async (client) => {
    await client.query('set local statement_timeout = 0');
    return client.query(text, [...values]);
  });

/** Makes a setting the default of the database, for connections that are made from then on. */
export const setForDatabase = (name: string, value: string): string =>
  `do $$ begin execute format($set$alter database %I set ${name} = ${value}$set$, current_database()); end $$`;

/** Whether somebody waits for a lock in this database. */
export const isLockAwaited = async (pool: Pool): Promise<boolean> =>
  (await pool.query(`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`))
    .rowCount === 1;

interface ExplainedRow {
  readonly 'QUERY PLAN': readonly [{ readonly Plan: Readonly<Record<`Shared ${'Hit' | 'Read'} Blocks`, number>> }];
}

/** What `work` comes to, and how many pages of tables and indexes PostgreSQL looked into for its statements. */
export const countingPages = async <T>(
  pool: Pool,
  work: (client: Client) => Promise<T>,
): Promise<{ readonly result: T; readonly pages: number }> =>
  inTransaction(pool, async (client) => {
    let pages = 0;
    const query = async (asked: string | pg.QueryConfig, values: unknown[] = []): Promise<pg.QueryResult> => {
      const config = typeof asked === 'string' ? { text: asked, values } : asked;
      const { rows } = await client.query<ExplainedRow>(
        `explain (analyze, buffers, format json) ${config.text}`,
        config.values,
      );
      for (const row of rows)
        pages += row['QUERY PLAN'][0].Plan['Shared Hit Blocks'] + row['QUERY PLAN'][0].Plan['Shared Read Blocks'];
      return client.query(config);
    };
    const result = await work(Object.create(client, { query: { value: query } }));
    return { result, pages };
  });
