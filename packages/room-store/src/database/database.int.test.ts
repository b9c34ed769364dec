import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDatabase, type FaultProxy, startFaultProxy, startPgbouncer, until } from '@realtime-service/dev-stack';
import { describeWith, realParts } from '@realtime-service/dev-stack/vitest';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { setForDatabase } from '../../test/given.ts';
import { activeProjection, preparePositions } from '../positions.ts';
import { readFacts } from '../read-facts.ts';
import {
  type Client,
  createPool,
  inTransaction,
  isBusy,
  isUnstorable,
  type Pool,
  preparedAs,
  statementTimeoutMs,
} from './database.ts';
import { listen } from './listen.ts';
import { migrate } from './migrate.ts';

const maxConnections = 5;

/** As if one that alters the table of positions were new. */
const undoMigration = (pool: Pool): Promise<unknown> =>
  pool.query(`alter table log_positions drop column last_offset, drop column last_recorded_at;
      delete from schema_migrations where name = '0007-which-log-it-was.sql'`);

/** Locks of others' databases are none of these: several files use the one PostgreSQL at a time. */
const locksHere = `pg_locks join pg_database on pg_database.oid = pg_locks.database and datname = current_database()`;
/** Resolves when somebody waits for such a lock. */
const untilAwaited = (pool: Pool, lock: string): Promise<unknown> => {
  const waiting = `select from ${locksHere} where not granted and ${lock}`;
  return until('somebody waits for the lock', async () => (await pool.query(waiting)).rowCount !== 0);
};
const positionsLock = `relation = 'log_positions'::regclass`;

const planningOf = async (pool: Pool): Promise<unknown> => {
  const names = `current_setting('plan_cache_mode') as "planCacheMode", current_setting('enable_seqscan') as "enableSeqscan"`;
  return (await pool.query(`select ${names}`)).rows[0];
};

describeWith(['postgres'], 'C28: a pool whose connections', () => {
  let proxy: Awaited<ReturnType<typeof startFaultProxy>>;
  let pool: Pool;
  let witness: Pool;

  beforeEach(async () => {
    const { postgres } = realParts(['postgres']);
    const direct = await createDatabase(postgres.url);
    proxy = await startFaultProxy(postgres.port);
    const url = new URL(direct);
    url.port = String(proxy.port);
    pool = createPool({ url: url.href, maxConnections, applicationName: 'pool', onError: () => undefined });
    witness = createPool({ url: direct, maxConnections: 1, applicationName: 'witness', onError: () => undefined });
  });
  afterEach(async () => {
    await proxy.heal();
    await pool.end();
    await witness.end();
    await proxy.stop();
  });

  const ask = (): Promise<unknown> => pool.query('select 1');
  const sessionsSql = `select count(*)::int as n from pg_stat_activity
    where datname = current_database() and application_name = 'pool'`;
  const sessions = async (): Promise<number> => (await witness.query(sessionsSql)).rows[0].n;

  test('are all in use refuses within its time-out, and serves again when one is free', async () => {
    const held = Array.from({ length: maxConnections }, () => Promise.withResolvers<void>());
    const inHand = Array.from({ length: maxConnections }, () => Promise.withResolvers<void>());
    const holding = held.map(({ promise }, at) =>
      inTransaction(pool, async (client) => {
        await client.query('select 1');
        inHand[at]?.resolve();
        await promise;
      }),
    );
    await Promise.all(inHand.map(({ promise }) => promise));
    const startedAtMs = performance.now();
    const answers = await Promise.allSettled(Array.from({ length: 50 }, ask));
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set(['rejected']));
    for (const { resolve } of held) resolve();
    await Promise.all(holding);
    await ask();
  });

  test('cannot be made in time, 20 times, leaves none behind', async () => {
    proxy.stall();
    const startedAtMs = performance.now();
    const answers = await Promise.allSettled(Array.from({ length: 20 }, ask));
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set(['rejected']));
    await proxy.heal();
    await Promise.all(Array.from({ length: 20 }, ask));
    expect(await sessions()).toBeLessThanOrEqual(maxConnections);
  });

  test('wait behind a lock that is held for long leaves none waiting that nobody hears any more', async () => {
    await witness.query('create table held (at int)');
    const holder = await witness.connect();
    await holder.query('begin; lock table held');
    const askAll = () =>
      Promise.allSettled(Array.from({ length: maxConnections }, () => pool.query('select from held')));
    const answers = [...(await askAll()), ...(await askAll())];
    const { rows } = await holder.query(sessionsSql);
    await holder.query('commit');
    holder.release();
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set(['rejected']));
    expect(rows[0].n).toBeLessThanOrEqual(maxConnections);
  }, 20_000);

  test('lead to PostgreSQL itself keeps statements prepared by name, and their plans', async () => {
    await ask();
    expect(await planningOf(pool)).toEqual({ planCacheMode: 'force_generic_plan', enableSeqscan: 'off' });
    const client = await pool.connect();
    expect([preparedAs('x', pool), preparedAs('x', client)]).toEqual([{ name: 'x' }, { name: 'x' }]);
    client.release();
  });

  test.each([
    ['datestyle', 'German, DMY'],
    ['datestyle', 'SQL, MDY'],
    ['datestyle', 'Postgres, DMY'],
    ['array_nulls', 'off'],
    ['quote_all_identifiers', 'on'],
    ['default_transaction_isolation', `'repeatable read'`],
  ])('lead to a database whose %s is %s are as they are elsewhere', async (name, value) => {
    await witness.query(setForDatabase(name, value));
    const { rows } = await pool.query(
      `select timestamptz '2026-02-03T04:05:06.789Z' as at, ($1::text[])[1] is null as "isNull",
        quote_ident('id') as name, current_setting('transaction_isolation') as isolation`,
      [[null]],
    );
    expect(rows).toEqual([
      { at: new Date('2026-02-03T04:05:06.789Z'), isNull: true, name: 'id', isolation: 'read committed' },
    ]);
  });
});

describeWith(['postgres', 'pgbouncer'], 'C30: through PgBouncer in transaction mode', () => {
  test('three migrate at once by one connection, facts are read by each, and no lock stays', async () => {
    const databaseUrl = await createDatabase(realParts(['postgres']).postgres.url);
    const pooler = await startPgbouncer({ databaseUrl, poolSize: 1 });
    const applied = await Promise.all([migrate(pooler.url), migrate(pooler.url), migrate(pooler.url)]);
    expect(applied.filter((names) => names.includes('0001-projections.sql'))).toHaveLength(1);
    const pools = ['first', 'second'].map((applicationName) =>
      createPool({ url: pooler.url, maxConnections: 2, applicationName, onError: () => undefined }),
    );
    const query = { roomId: 'room', userId: 'ann', loginId: null };
    for (const pool of [...pools, ...pools]) {
      expect(await readFacts(pool, [query])).toMatchObject([{ facts: { room: null } }]);
      expect(await inTransaction(pool, (client) => readFacts(client, [query]))).toHaveLength(1);
    }
    const [pool] = pools as [Pool];
    expect(await planningOf(pool)).toEqual({ planCacheMode: 'auto', enableSeqscan: 'on' });
    expect((await pool.query(`select pid from ${locksHere} where locktype = 'advisory'`)).rows).toEqual([]);
    await Promise.all(pools.map((each) => each.end()));
    await pooler.stop();
  });

  test.each([
    ['datestyle', 'German, DMY'],
    ['array_nulls', 'off'],
  ])(
    'a database whose %s is %s is asked nothing: what is kept and read would be something else',
    async (name, value) => {
      const databaseUrl = await createDatabase(realParts(['postgres']).postgres.url);
      const pooler = await startPgbouncer({ databaseUrl, poolSize: 1 });
      const [direct, pool] = [databaseUrl, pooler.url].map((url) =>
        createPool({ url, maxConnections: 1, applicationName: 'x', onError: () => undefined }),
      ) as [Pool, Pool];
      await direct.query(setForDatabase(name, value));
      await expect(pool.query('select 1')).rejects.toThrow('behind the pooler the database must have');
      await Promise.all([direct.end(), pool.end()]);
      await pooler.stop();
    },
  );

  test('one that is killed in the middle of a migration leaves nothing that others wait for, and nothing half done', async () => {
    const databaseUrl = await createDatabase(realParts(['postgres']).postgres.url);
    const pooler = await startPgbouncer({ databaseUrl, poolSize: 3 });
    const witness = createPool({
      url: databaseUrl,
      maxConnections: 2,
      applicationName: 'w',
      onError: () => undefined,
    });
    const all = await migrate(databaseUrl);
    await undoMigration(witness);
    // It waits for a table that somebody holds, again and again.
    const holder = await witness.connect();
    await holder.query('begin; lock table log_positions in share mode');
    const script = `import { migrate } from ${JSON.stringify(import.meta.resolve('./migrate.ts'))}; for (;;) await migrate(${JSON.stringify(pooler.url)}).catch(() => undefined);`;
    const killed = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'ignore' });
    await untilAwaited(witness, positionsLock);
    killed.kill('SIGKILL');
    await once(killed, 'exit');
    const others = [migrate(pooler.url), migrate(pooler.url)];
    await holder.query('commit');
    holder.release();
    const startedAtMs = performance.now();
    expect((await Promise.all(others)).flat()).toEqual(['0007-which-log-it-was.sql']);
    expect(performance.now() - startedAtMs).toBeLessThan(10_000);
    expect((await witness.query('select name from schema_migrations order by name')).rows).toEqual(
      all.map((name) => ({ name })),
    );
    expect((await witness.query(`select pid from ${locksHere} where locktype = 'advisory'`)).rows).toEqual([]);
    await witness.end();
    await pooler.stop();
  });
});

describeWith(['postgres'], 'a migration', () => {
  let url: string;
  let pool: Pool;

  beforeEach(async () => {
    url = await createDatabase(realParts(['postgres']).postgres.url);
    await migrate(url);
    pool = createPool({ url, maxConnections, applicationName: 'x', onError: () => undefined });
    await preparePositions(pool, activeProjection, 'topic', 1);
    await undoMigration(pool);
  });
  afterEach(() => pool.end());

  test('gives up where somebody reads its table for long: others go on, and it goes through another time', async () => {
    const reader = await pool.connect();
    await reader.query('begin isolation level repeatable read read only; select from log_positions');
    const refused = migrate(url).catch((refusal: unknown) => refusal);
    await untilAwaited(pool, positionsLock);
    const startedAtMs = performance.now();
    // As the release before it does.
    const { rows } = await inTransaction(pool, async (client) => {
      await client.query('select next_offset from log_positions for no key update');
      return client.query('update log_positions set next_offset = next_offset + 1 returning next_offset');
    });
    expect(rows).toEqual([{ next_offset: '1' }]);
    expect(performance.now() - startedAtMs).toBeLessThan(1_000);
    expect(isBusy(await refused)).toBe(true);
    await reader.query('commit');
    reader.release();
    expect(await migrate(url)).toEqual(['0007-which-log-it-was.sql']);
  });

  /** As if one that builds an index were new, which takes a second. */
  const undoIndex = (): Promise<unknown> =>
    pool.query(`drop index sessions_ended; delete from schema_migrations where name = '0008-who-left-lately.sql';
      create function take_long() returns event_trigger language plpgsql as 'begin perform pg_sleep(1); end';
      create event trigger slow on ddl_command_end when tag in ('CREATE INDEX') execute function take_long()`);

  test.each(['statement_timeout', 'transaction_timeout'])(
    'takes as long as it takes, whatever %s the database has',
    async (limit) => {
      await undoIndex();
      await pool.query(setForDatabase(limit, `'500ms'`));
      expect(await migrate(url)).toContain('0008-who-left-lately.sql');
    },
  );

  test('writes nothing where all are applied: an api may start while the database takes no writes, as when it is full', async () => {
    await migrate(url);
    await pool.query(setForDatabase('default_transaction_read_only', 'on'));
    expect(await migrate(url)).toEqual([]);
  });

  test('makes no table where another schema than public comes first', async () => {
    const empty = await createDatabase(realParts(['postgres']).postgres.url);
    const atIt = createPool({ url: empty, maxConnections: 1, applicationName: 'x', onError: () => undefined });
    await atIt.query(`create schema app; ${setForDatabase('search_path', 'app, public')}`);
    await expect(migrate(empty)).rejects.toThrow('into the schema public, and search_path leads to app first');
    const { rows } = await atIt.query(
      `select from pg_class where relnamespace in ('app'::regnamespace, 'public'::regnamespace)`,
    );
    expect(rows).toEqual([]);
    await atIt.end();
  });

  test('refuses a database that cannot hold every name', async () => {
    const name = `${new URL(url).pathname.slice(1)}_latin1`;
    await pool.query(`create database ${name} encoding latin1 locale 'C' template template0`);
    const latin1 = Object.assign(new URL(url), { pathname: `/${name}` }).href;
    await expect(migrate(latin1)).rejects.toThrow('must have the encoding UTF8, and has LATIN1');
  });

  test('whose process falls silent in the middle of it leaves nothing locked for long', async () => {
    await undoIndex();
    const proxy = await startFaultProxy(realParts(['postgres']).postgres.port);
    const silent = migrate(throughProxy(proxy)).catch((refusal: unknown) => refusal);
    const locks = `select from ${locksHere} where relation = 'sessions'::regclass and mode = 'ShareLock' and granted`;
    await until('it builds the index', async () => (await pool.query(locks)).rowCount === 1);
    proxy.stall();
    await until('nobody holds the table', async () => (await pool.query(locks)).rowCount === 0, 15_000);
    await proxy.stop();
    expect(await silent).toBeInstanceOf(Error);
    expect(await migrate(url)).toContain('0008-who-left-lately.sql');
  });

  describe('that adds a column', () => {
    const named = (name: string): string => {
      const withName = new URL(url);
      withName.searchParams.set('application_name', name);
      return withName.href;
    };
    beforeEach(async () => {
      await pool.query(`alter table sessions drop column is_end_told; alter table room_lives drop column last_fact_at;
        delete from schema_migrations where name = '0011-what-lists-may-overrule.sql'`);
    });

    test.each([
      ['as they are by default', (plain: string) => plain],
      ["as all of one URL are, the migration's own too", () => named('realtime')],
      ['as the room-worker is by default, the migration too', () => named('room-worker')],
    ])('leaves no worker of the release before with statements that fail for good: named %s', async (_, urlOf) => {
      const worker = createPool({
        url: urlOf(url),
        maxConnections: 1,
        applicationName: 'room-worker',
        onError: () => undefined,
      });
      const all = { name: 'all', text: 'select * from sessions' };
      const read = () => inTransaction(worker, (client) => client.query(all));
      await read();
      expect(await migrate(urlOf(url))).toContain('0011-what-lists-may-overrule.sql');
      await read().catch(() => undefined);
      expect((await read()).fields.map(({ name }) => name)).toContain('is_end_told');
      await worker.end();
    });
  });

  test('that adds columns to what a worker reads, long after the one that ended its connections, does so again', async () => {
    await pool.query(`alter table sessions drop column is_end_told; alter table room_lives drop column last_fact_at;
      alter table rooms drop column members_told, drop column decided; alter table members drop column decided;
      delete from schema_migrations where name in ('0011-what-lists-may-overrule.sql', '0014-what-decides.sql')`);
    const worker = createPool({ url, maxConnections: 1, applicationName: 'room-worker', onError: () => undefined });
    const read = (table: string) =>
      inTransaction(worker, (client) => client.query({ name: table, text: `select * from ${table}` }));
    // As `verify` does: the migration before goes through, and this one does not.
    const reader = await pool.connect();
    await reader.query('begin; select from members');
    expect(isBusy(await migrate(url).catch((refusal: unknown) => refusal))).toBe(true);
    for (const table of ['rooms', 'members']) await read(table);
    await reader.query('commit');
    reader.release();
    expect(await migrate(url)).toEqual(['0014-what-decides.sql']);
    await read('rooms').catch(() => undefined);
    for (const table of ['rooms', 'members'])
      expect((await read(table)).fields.map(({ name }) => name)).toContain('decided');
    await worker.end();
  });

  test('whose columns came by those that it has taken the place of goes through', async () => {
    await pool.query(`update schema_migrations set name = '0014-full-state.sql' where name = '0014-what-decides.sql'`);
    expect(await migrate(url)).toContain('0014-what-decides.sql');
  });

  describe('while another process migrates', () => {
    let other: Client;
    beforeEach(async () => {
      other = await pool.connect();
      await other.query(`begin; select pg_advisory_xact_lock(hashtextextended('realtime-service.migrate', 0))`);
    });
    afterEach(() => other.release(true));

    const refusals = `select from pg_stat_activity where datname = current_database()
      and application_name = 'realtime-migrate' and query = 'rollback'`;
    const untilRefused = () => until('it has asked in vain', async () => (await pool.query(refusals)).rowCount === 1);

    test('waits, however long that takes', async () => {
      const migrating = migrate(url);
      await untilRefused();
      await other.query('commit');
      expect(await migrating).toEqual(['0007-which-log-it-was.sql']);
    });

    test('ends at once when told to', async () => {
      const ending = new AbortController();
      const refused = migrate(url, ending.signal).catch((refusal: unknown) => refusal);
      await untilRefused();
      ending.abort();
      expect(await refused).toBeInstanceOf(Error);
      await other.query('commit');
      expect(await migrate(url)).toEqual(['0007-which-log-it-was.sql']);
    });

    test('fails where its connection breaks, and ends no process', async () => {
      const proxy = await startFaultProxy(realParts(['postgres']).postgres.port);
      const refused = migrate(throughProxy(proxy)).catch((refusal: unknown) => refusal);
      await untilRefused();
      await proxy.stop();
      expect(await refused).toBeInstanceOf(Error);
    });

    test('fails where its connection falls silent, so that it can be tried by another one', async () => {
      const proxy = await startFaultProxy(realParts(['postgres']).postgres.port);
      const refused = migrate(throughProxy(proxy)).catch((refusal: unknown) => refusal);
      await untilRefused();
      proxy.stall();
      expect(await refused).toMatchObject({ message: 'Query read timeout' });
      await proxy.stop();
    });
  });

  const throughProxy = ({ port }: FaultProxy): string => {
    const proxied = new URL(url);
    proxied.port = String(port);
    return proxied.href;
  };
});

describeWith(['postgres'], 'a connection that is kept for long', () => {
  let url: string;
  beforeEach(async () => {
    url = await createDatabase(realParts(['postgres']).postgres.url);
  });

  test.each([
    ['of a pool', () => ask()],
    ['of a migration', () => migrate(url)],
    ['that listens', () => listenOnce(url)],
  ])('%s says that it is there, every few seconds', async (_, use) => {
    const keepAlive = vi.spyOn(Socket.prototype, 'setKeepAlive');
    await use();
    expect(keepAlive.mock.calls).toEqual([[true, 10_000]]);
    keepAlive.mockRestore();
  });

  test('and listens, ends at once, also where it has fallen silent', async () => {
    const proxy = await startFaultProxy(realParts(['postgres']).postgres.port);
    const proxied = new URL(url);
    proxied.port = String(proxy.port);
    await expect(listenOnce(proxied.href, () => proxy.stall())).resolves.toBeUndefined();
    await proxy.stop();
  });

  const ask = async (): Promise<void> => {
    const pool = createPool({ url, maxConnections: 1, applicationName: 'x', onError: () => undefined });
    await pool.query('select 1');
    await pool.end();
  };

  /** Listens until it is connected, and ends. */
  const listenOnce = async (at: string, then = (): void => undefined): Promise<void> => {
    const connected = Promise.withResolvers<void>();
    const listener = listen(at, 'channel', connected.resolve, connected.reject);
    await connected.promise;
    then();
    await listener.stop();
  };
});

describeWith(['postgres'], 'a certificate that cannot be read any more', () => {
  let url: string;
  let certificate: string;

  beforeEach(async () => {
    certificate = join(await mkdtemp(join(tmpdir(), 'certificate-')), 'ca.pem');
    await writeFile(certificate, '');
    const direct = await createDatabase(realParts(['postgres']).postgres.url);
    url = `${direct}?sslrootcert=${certificate}&sslmode=disable`;
  });

  test('is told to whoever waits for a connection, and to who comes later, until it is there', async () => {
    const pool = createPool({ url, maxConnections: 1, applicationName: 'test', onError: () => undefined });
    const client = await pool.connect();
    const waiting = pool.query('select 1');
    await rm(certificate);
    client.release(true);
    await expect(waiting).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(pool.query('select 1')).rejects.toMatchObject({ code: 'ENOENT' });
    await writeFile(certificate, '');
    expect((await pool.query('select 1')).rowCount).toBe(1);
    await pool.end();
  });

  test('is told to whoever listens, until it is there', async () => {
    await rm(certificate);
    const connected = Promise.withResolvers<void>();
    const failed = Promise.withResolvers<Error>();
    const listener = listen(url, 'channel', connected.resolve, failed.resolve);
    expect(await failed.promise).toMatchObject({ code: 'ENOENT' });
    await writeFile(certificate, '');
    await connected.promise;
    listener.stop();
  });
});

describeWith(['postgres'], 'data that PostgreSQL refuses', () => {
  test.each([
    ['a text that no index holds', [randomBytes(4_000).toString('base64'), 1], true],
    ['a text with NUL', ['a\0b', 1], true],
    ['what a constraint forbids', ['a', -1], true],
    ['what another transaction holds', ['held', 1], false],
  ])('%s is told from what may be stored another day', async (_, values, isForEver) => {
    const url = await createDatabase(realParts(['postgres']).postgres.url);
    const pool = createPool({ url, maxConnections: 2, applicationName: 'x', onError: () => undefined });
    await pool.query('create table kept (name text primary key, count int check (count > 0))');
    const holder = await pool.connect();
    await holder.query(`begin; insert into kept values ('held', 1)`);
    const insert = inTransaction(pool, async (client) => {
      await client.query('set local lock_timeout = 100');
      await client.query('insert into kept values ($1, $2)', values);
    });
    const error = await insert.catch((refusal: unknown) => refusal);
    expect(error).toBeInstanceOf(Error);
    expect(isUnstorable(error)).toBe(isForEver);
    holder.release(true);
    await pool.end();
  });
});

describeWith(['postgres'], 'a transaction', () => {
  let url: string;
  let pool: Pool;
  let released: PromiseWithResolvers<void>;

  beforeEach(async () => {
    released = Promise.withResolvers();
    url = await createDatabase(realParts(['postgres']).postgres.url);
    pool = createPool({ url, maxConnections, applicationName: 'x', onError: () => undefined });
    await pool.query('create table held ()');
  });
  afterEach(async () => {
    released.resolve();
    await pool.end();
  });

  /** Has the table, and does nothing until it is released. */
  const standStill = async () => {
    const hasIt = Promise.withResolvers<void>();
    const ended = inTransaction(pool, async (client) => {
      await client.query('lock table held');
      hasIt.resolve();
      await released.promise;
    });
    await hasIt.promise;
    return { ended };
  };

  test('is READ COMMITTED, whatever else the database, the role, or who shares a session of a pooler has for a default', async () => {
    const other = createPool({
      url: `${url}?options=-c%20default_transaction_isolation=serializable`,
      maxConnections: 1,
      applicationName: 'x',
      onError: () => undefined,
    });
    const { rows } = await inTransaction(other, (client) => client.query('show transaction_isolation'));
    expect(rows).toEqual([{ transaction_isolation: 'read committed' }]);
    await other.end();
  });

  test('that is refused while the database takes no writes goes through once it takes them', async () => {
    await pool.query(setForDatabase('default_transaction_read_only', 'on'));
    const later = createPool({ url, maxConnections: 1, applicationName: 'x', onError: () => undefined });
    const write = () => inTransaction(later, (client) => client.query('insert into held default values'));
    await expect(write()).rejects.toMatchObject({ code: '25006' });
    await pool.query(setForDatabase('default_transaction_read_only', 'off'));
    expect(await write()).toMatchObject({ rowCount: 1 });
    await later.end();
  });

  test('whose statement takes long is refused by PostgreSQL, which works on it no longer', async () => {
    const refused = inTransaction(pool, (client) => client.query('select pg_sleep(20)'));
    await expect(refused).rejects.toMatchObject({ code: '57014' });
  });

  test('that waits long for a lock is refused by PostgreSQL, and waits no longer', async () => {
    const { ended } = await standStill();
    const refused = inTransaction(pool, (client) => client.query('lock table held'));
    await expect(refused).rejects.toMatchObject({ code: '55P03' });
    released.resolve();
    await ended;
  });

  test('whose process stands still is ended by PostgreSQL: others get what it held', async () => {
    const { ended } = await standStill();
    const locks = `select from ${locksHere} where relation = 'held'::regclass`;
    await until('nobody holds the table', async () => (await pool.query(locks)).rowCount === 0, 2 * statementTimeoutMs);
    released.resolve();
    await expect(ended).rejects.toThrow();
  });
});

/** On connections that look there first, PostgreSQL says that it is one. */
const inventReplica =
  'create schema replica; create function replica.pg_is_in_recovery() returns boolean language sql return true';

describeWith(['postgres', 'pgbouncer'], 'a database that has become a replica behind a pooler', () => {
  test('decides nothing, though the connections to the pooler are those from before', async () => {
    const url = await createDatabase(realParts(['postgres']).postgres.url);
    await migrate(url);
    const pooler = await startPgbouncer({ databaseUrl: url, poolSize: 1 });
    const [direct, pool, later] = [url, pooler.url, pooler.url].map((each) =>
      createPool({ url: each, maxConnections: 1, applicationName: 'x', onError: () => undefined }),
    ) as [Pool, Pool, Pool];
    const ask = () => readFacts(pool, [{ roomId: 'room', userId: 'ann', loginId: null }]);
    expect(await ask()).toHaveLength(1);
    const name = new URL(url).pathname.slice(1);
    await direct.query(`${inventReplica}; alter database "${name}" set search_path = replica, pg_catalog, public`);
    await direct.query(
      'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
    );
    const isRefused = () =>
      later.query('select 1').then(
        () => false,
        ({ message }: Error) => message.includes('is a replica'),
      );
    await until('the pooler leads to the replica', isRefused);
    await expect(ask()).rejects.toThrow('the database is a replica');
    await Promise.all([direct, pool, later].map((each) => each.end()));
    await pooler.stop();
  });
});

describeWith(['postgres'], 'a database that is a replica', () => {
  test('is asked nothing', async () => {
    const url = await createDatabase(realParts(['postgres']).postgres.url);
    const primary = createPool({ url, maxConnections: 1, applicationName: 'primary', onError: () => undefined });
    await primary.query(inventReplica);
    await primary.end();
    const asReplica = new URL(url);
    asReplica.searchParams.set('options', '-c search_path=replica,pg_catalog');
    const pool = createPool({ url: asReplica.href, maxConnections: 1, applicationName: 'x', onError: () => undefined });
    await expect(pool.query('select 1')).rejects.toThrow('the database is a replica');
    await expect(pool.query('select 1')).rejects.toThrow('the database is a replica');
    await pool.end();
  });
});
