import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { keptAlive, unlimitedTransactionSql } from './database.ts';

const folder = new URL('./migrations/', import.meta.url);

/** Whoever needs the table next waits behind a migration that waits for it. */
const lockTimeoutMs = 300;
/** Of all but the migrations themselves, which take as long as they take. A connection that fell silent ends by it. */
const answerTimeoutMs = 5_000;
/** The longest that a timer can be told, in milliseconds: none at all would be the client's own. */
const unbounded = { query_timeout: 2 ** 31 - 1 };
const tryAgainMs = 200;

/** By other defaults of a role or a database, tables would stand where we do not look, or refuse people's names. */
const assertFit = async (client: pg.Client): Promise<void> => {
  const { rows } = await client.query<{ schema: string | null; encoding: string }>(
    `select current_schema() as schema, current_setting('server_encoding') as encoding`,
  );
  const [{ schema, encoding } = { schema: null, encoding: '' }] = rows;
  if (schema !== 'public')
    throw new Error(`the tables belong into the schema public, and search_path leads to ${schema ?? 'none'} first`);
  if (encoding !== 'UTF8') throw new Error(`the database must have the encoding UTF8, and has ${encoding}`);
};

/** Those of these files that are not applied yet, as far as can be said without a lock. */
const missingOf = async (client: pg.Client, files: readonly string[]): Promise<readonly string[]> => {
  const table = await client.query(
    `select from pg_tables where schemaname = 'public' and tablename = 'schema_migrations'`,
  );
  if (table.rowCount === 0) return files;
  const { rows } = await client.query<{ name: string }>('select name from schema_migrations');
  const applied = new Set(rows.map(({ name }) => name));
  return files.filter((file) => !applied.has(file));
};

/** One process at a time. Another one may migrate for long: it is asked for, not waited for within a statement. */
const begin = async (client: pg.Client, signal: AbortSignal | undefined): Promise<void> => {
  const lock = `select pg_try_advisory_xact_lock(hashtextextended('realtime-service.migrate', 0)) as is_ours`;
  for (;;) {
    await client.query('begin');
    const { rows } = await client.query<{ is_ours: boolean }>(lock);
    if (rows[0]?.is_ours) return;
    await client.query('rollback');
    await delay(tryAgainMs, undefined, signal && { signal });
  }
};

/**
 * Brings the schema up to date, each migration in a transaction of its own, under a lock that ends with it. Several
 * processes may start at once. Where somebody reads a table for long that a migration alters, such as a dump, it fails
 * ({@link isBusy}) and is to be tried again a little later. `directUrl` must lead past any pooler in transaction mode.
 * Aborted, it ends at once and rejects; what was under way is rolled back. Where all are applied nothing is written,
 * and nobody waited for: an api may start while the database takes no writes.
 */
export const migrate = async (directUrl: string, signal?: AbortSignal): Promise<readonly string[]> => {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
  const client = new pg.Client({
    connectionString: directUrl,
    connectionTimeoutMillis: answerTimeoutMs,
    application_name: 'realtime-migrate',
    query_timeout: answerTimeoutMs,
    ...keptAlive,
  });
  // One that breaks would end the process; the query that waits for it tells of it.
  client.on('error', () => undefined);
  const end = (): void => void client.end().catch(() => undefined);
  await client.connect();
  signal?.addEventListener('abort', end);
  const applied: string[] = [];
  try {
    await assertFit(client);
    for (const file of await missingOf(client, files)) {
      signal?.throwIfAborted();
      await begin(client, signal);
      // A database or a role may have a limit for statements: an index that takes longer would never be built.
      // Who falls silent before the commit must not keep what it has locked.
      await client.query(
        `set local lock_timeout = ${lockTimeoutMs}; set local statement_timeout = 0; ` +
          `set local idle_in_transaction_session_timeout = ${answerTimeoutMs}; ${unlimitedTransactionSql}`,
      );
      await client.query(
        'create table if not exists schema_migrations (name text primary key, applied_at timestamptz not null default now())',
      );
      const { rowCount } = await client.query(
        'insert into schema_migrations (name) values ($1) on conflict do nothing',
        [file],
      );
      if (rowCount === 1) {
        const text = await readFile(new URL(file, folder), 'utf8');
        await client.query({ text, ...unbounded });
        applied.push(file);
      }
      await client.query('commit');
    }
  } finally {
    signal?.removeEventListener('abort', end);
    await client.end();
  }
  return applied;
};
