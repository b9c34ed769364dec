import { inTransaction, type Pool } from './database/database.ts';

/** A record that the log did not take. */
export interface KeptRecord {
  readonly topic: string;
  readonly key: string;
  readonly value: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

/** Keeps records to be appended later, in their order; all of them or none. */
export const keepRecords = async (pool: Pool, records: readonly KeptRecord[]): Promise<void> => {
  await pool.query(
    `insert into kept_records (topic, key, value, headers)
      select topic, key, value, headers
        from unnest($1::text[], $2::text[], $3::bytea[], $4::jsonb[]) with ordinality as kept (topic, key, value, headers, at)
        order by at`,
    [
      records.map(({ topic }) => topic),
      records.map(({ key }) => key),
      records.map(({ value }) => value),
      records.map(({ headers }) => JSON.stringify(headers)),
    ],
  );
};

/** How many wait to be appended. */
export const countKeptRecords = async (pool: Pool): Promise<number> => {
  const { rows } = await pool.query<{ count: number }>('select count(*)::int as count from kept_records');
  return rows[0]?.count ?? 0;
};

/**
 * Appends kept records in the order in which they were kept, `limit` at most, and forgets them once that has succeeded:
 * at least once. Only one process does it at a time; another that tries meanwhile does nothing. Answers how many.
 */
export const releaseRecords = async (
  pool: Pool,
  limit: number,
  append: (records: readonly KeptRecord[]) => Promise<void>,
): Promise<number> =>
  inTransaction(pool, async (client) => {
    const lock = await client.query(
      `select pg_try_advisory_xact_lock(hashtextextended('realtime-service.kept-records', 0)) as is_ours`,
    );
    if (lock.rows[0]?.is_ours !== true) return 0;
    const { rows } = await client.query<KeptRecord & { readonly kept_id: string }>(
      'select kept_id, topic, key, value, headers from kept_records order by kept_id limit $1',
      [limit],
    );
    await append(rows.map(({ kept_id: _, ...record }) => record));
    await client.query('delete from kept_records where kept_id = any($1::bigint[])', [
      rows.map(({ kept_id }) => kept_id),
    ]);
    return rows.length;
  });
