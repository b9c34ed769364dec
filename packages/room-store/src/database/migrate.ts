import { readdir, readFile } from 'node:fs/promises';
import pg from 'pg';

const folder = new URL('./migrations/', import.meta.url);

/**
 * Brings the schema up to date, each migration in a transaction of its own, under a lock that ends with it. Several
 * processes may start at once. `directUrl` must lead past any pooler in transaction mode.
 */
export const migrate = async (directUrl: string): Promise<readonly string[]> => {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
  const client = new pg.Client({ connectionString: directUrl, connectionTimeoutMillis: 5_000 });
  await client.connect();
  const applied: string[] = [];
  try {
    for (const file of files) {
      await client.query('begin');
      await client.query(`select pg_advisory_xact_lock(hashtextextended('realtime-service.migrate', 0))`);
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
