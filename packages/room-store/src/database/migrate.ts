import { readdir, readFile } from 'node:fs/promises';
import pg from 'pg';

const folder = new URL('./migrations/', import.meta.url);

/** Whoever needs the table next waits behind a migration that waits for it. */
const lockTimeoutMs = 300;

/**
 * Brings the schema up to date, each migration in a transaction of its own, under a lock that ends with it. Several
 * processes may start at once. Where somebody reads a table for long that a migration alters, such as a dump, it fails
 * ({@link isBusy}) and is to be tried again a little later. `directUrl` must lead past any pooler in transaction mode.
 */
export const migrate = async (directUrl: string): Promise<readonly string[]> => {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
  const client = new pg.Client({ connectionString: directUrl, connectionTimeoutMillis: 5_000 });
  // One that breaks would end the process; the query that waits for it tells of it.
  client.on('error', () => undefined);
  await client.connect();
  const applied: string[] = [];
  try {
    for (const file of files) {
      await client.query('begin');
      await client.query(`select pg_advisory_xact_lock(hashtextextended('realtime-service.migrate', 0))`);
      // Not before: another process may migrate for long.
      await client.query(`set local lock_timeout = ${lockTimeoutMs}`);
      await client.query(
        'create table if not exists schema_migrations (name text primary key, applied_at timestamptz not null default now())',
      );
      const { rowCount } = await client.query(
        'insert into schema_migrations (name) values ($1) on conflict do nothing',
        [file],
      );
      if (rowCount === 1) {
        await client.query(await readFile(new URL(file, folder), 'utf8'));
        applied.push(file);
      }
      await client.query('commit');
    }
  } finally {
    await client.end();
  }
  return applied;
};
