import { defaultPartitionCount } from '@realtime-service/contracts';
import type { Pool } from 'pg';

/** Tables of the embedded log. Running it again changes nothing. */
const embeddedLogSchema = `
create table if not exists log_heads (
  topic       text collate "C" not null,
  partition   integer not null,
  next_offset bigint not null default 0,
  primary key (topic, partition)
);

create table if not exists log_records (
  topic       text collate "C" not null,
  partition   integer not null,
  "offset"    bigint not null,
  appended_at timestamptz not null,
  key         bytea,
  value       bytea,
  headers     json not null, -- name to base64
  primary key (topic, partition, "offset")
);
`;

/** Two processes may prepare at once; `create table if not exists` alone races. */
const prepareLock = 7_265_114;

/**
 * Creates the tables and the topics that are not there yet; the partition count of a topic is fixed for its life.
 */
export async function prepareEmbeddedLog(
  pool: Pool,
  topics: readonly string[],
  partitionCount = defaultPartitionCount,
): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('begin');
    await client.query('select pg_advisory_xact_lock($1)', [prepareLock]);
    await client.query(embeddedLogSchema);
    await client.query(
      `insert into log_heads (topic, partition)
       select wanted, partition
         from unnest($1::text[]) wanted, generate_series(0, $2::int - 1) partition
        where not exists (select from log_heads existing where existing.topic = wanted)
       on conflict do nothing`,
      [topics, partitionCount],
    );
    await client.query('commit');
    client.release();
  } catch (error) {
    client.release(true);
    throw error;
  }
}
