import pg from 'pg';

export type Pool = pg.Pool;
export type Client = pg.PoolClient;

export interface DatabaseOptions {
  readonly url: string;
  readonly maxConnections: number;
  readonly applicationName: string;
  /** Told of errors on idle connections; the pool replaces them by itself. */
  readonly onError: (error: Error) => void;
}

/**
 * Longer than any statement of ours should take and below Kafka's session timeout; set per transaction as well, for
 * poolers.
 */
export const statementTimeoutMs = 5_000;
const connectTimeoutMs = 2_000;

/**
 * What lies between, such as the address translation of a cloud, forgets a connection without a word when nothing was
 * sent for some minutes, as while an index is built, or nobody is removed. By default it would be noticed after hours.
 */
export const keptAlive = { keepAlive: true, keepAliveInitialDelayMillis: 10_000 };

/** Whether it is PostgreSQL itself that answers: noted on pools of ours and on their connections. */
interface MaybeDirect {
  isDirect?: boolean;
}

/** A field of pg's clients that its types lack: the process that the other side said it is. */
interface Greeted {
  readonly processID: number;
}

/** A method of pg's pools that its types lack: opens a connection for somebody who waits for one. */
interface Opening {
  newClient(waiting: { readonly callback: (error: unknown) => void }): void;
}

/**
 * pg reads the certificates that a URL names anew for each connection. One that cannot be read would end the process
 * where a connection is opened for who has waited; so it is that one's failure.
 */
const failForWhoWaits = (pool: object): void => {
  const opening = pool as Opening;
  const { newClient } = opening;
  opening.newClient = (waiting) => {
    try {
      newClient.call(pool, waiting);
    } catch (error) {
      waiting.callback(error);
    }
  };
};

/**
 * A pooler says another process than the one that works. Behind one in transaction mode the next transaction may be in
 * another session, where a statement's name means nothing.
 */
const isAnsweredByPostgres = async (client: pg.ClientBase): Promise<boolean> => {
  const question = { text: 'select pg_backend_pid() as pid', query_timeout: connectTimeoutMs };
  const { rows } = await client.query<{ pid: number }>(question);
  return rows[0]?.pid === (client as pg.ClientBase & Greeted).processID;
};

/** The name under which a statement is kept prepared, where that is safe; to be spread into a query. */
export const preparedAs = (name: string, database: object): { readonly name?: string } =>
  'isDirect' in database && database.isDirect === true ? { name } : {};

/**
 * Plans are made once and go by indexes. PostgreSQL would plan most of our statements anew each time, since they look
 * cheaper for one row than for many: that took five times as long as a lone join's query. And a plan that reads the
 * whole of a table while it is small would outlive that.
 */
const planOnce = [
  'plan_cache_mode = force_generic_plan',
  ...['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'jit'].map((name) => `${name} = off`),
]
  .map((setting) => `set ${setting};`)
  .join(' ');

/**
 * What our statements and what is read of their answers rest on, where a server, a database or a role may have other
 * defaults: how times, arrays and definitions are written, and that a statement which waited for another goes on with
 * what that has changed, also where it is a transaction of its own. And the server gives up before we do: it does not
 * see that nobody hears a statement any more which waits for a lock, and those who come again with new connections
 * would use up all that it has. What waits for a standby ends by no limit.
 */
const asStatementsExpect = [
  'datestyle = iso',
  'array_nulls = on',
  'quote_all_identifiers = off',
  `default_transaction_isolation = 'read committed'`,
  `statement_timeout = ${statementTimeoutMs}`,
]
  .map((setting) => `set ${setting};`)
  .join(' ');

export const createPool = (options: DatabaseOptions): Pool => {
  const pool: Pool & MaybeDirect = new pg.Pool({
    connectionString: options.url,
    max: options.maxConnections,
    application_name: options.applicationName,
    connectionTimeoutMillis: connectTimeoutMs,
    query_timeout: statementTimeoutMs + 1_000,
    idleTimeoutMillis: 30_000,
    ...keptAlive,
    verify: refuseUnfit,
    // A statement is sent when it is asked for, whether or not the one before it was answered; the order stays.
    pipeline: true,
    onConnect: async (client: pg.ClientBase & MaybeDirect) => {
      client.isDirect = await isAnsweredByPostgres(client);
      pool.isDirect = client.isDirect;
      // A pooler's session is shared with others.
      if (client.isDirect) await client.query(`${planOnce} ${asStatementsExpect}`);
    },
  });
  failForWhoWaits(pool);
  pool.on('error', options.onError);
  // The pool listens while a connection is idle. One that dies in somebody's hands, or on the way there, would end the
  // process; whoever has it learns of it by the next query.
  pool.on('connect', (client) => client.on('error', () => undefined));
  return pool;
};

/** A replica is behind: what it answers is no fresh decision. */
export const assertPrimary = (isReplica: boolean | undefined): void => {
  if (isReplica) throw new Error('the database is a replica, not the primary');
};

/**
 * Otherwise nulls in our arrays would be stored as texts or make unfit what is fit, and times be read as others.
 * Through a pooler nobody but the database's operator can change that.
 */
const areTextsRead = `current_setting('array_nulls')::boolean and current_setting('datestyle') like 'ISO%'`;

/**
 * Asked once for each connection; a promotion ends them all. Not those to a pooler, which may lead elsewhere since:
 * there whoever decides asks again.
 */
const refuseUnfit = (client: Client, done: (error?: Error) => void): void => {
  client
    .query<{ is_replica: boolean; are_texts_read: boolean }>(
      `select pg_is_in_recovery() as is_replica, ${areTextsRead} as are_texts_read`,
    )
    .then(({ rows }) => {
      assertPrimary(rows[0]?.is_replica);
      if (rows[0]?.are_texts_read === false)
        throw new Error('behind the pooler the database must have DateStyle ISO and array_nulls on, as by default');
    })
    .then(() => done(), done);
};

/**
 * Waits for statements that were sent together. The first of them to fail says why; those after it only that the
 * transaction is aborted, which would pass for a failure that goes by.
 */
export const allInOrder = async <T extends readonly unknown[]>(
  statements: {
    readonly [K in keyof T]: Promise<T[K]>;
  },
): Promise<T> => {
  const results = await Promise.allSettled(statements);
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  }) as unknown as T;
};

/**
 * Runs `work` in one READ COMMITTED transaction whose locks and statements are bounded in time. The level is said each
 * time: by another default what is read under a lock would be as it was before that lock was waited for.
 */
export const inTransaction = async <T>(pool: Pool, work: (client: Client) => Promise<T>): Promise<T> => {
  const client = await pool.connect();
  let isBroken = false;
  try {
    const begun = client.query(
      `begin isolation level read committed; set local statement_timeout = ${statementTimeoutMs}; ` +
        `set local lock_timeout = ${statementTimeoutMs / 2}; ` +
        `set local idle_in_transaction_session_timeout = ${statementTimeoutMs}`,
    );
    // Sent behind it; where it fails, so does all that follows.
    const [, result] = await allInOrder([begun, work(client)]);
    await client.query('commit');
    return result;
  } catch (error) {
    isBroken = isReadOnly(error);
    await client.query('rollback').catch(() => {
      isBroken = true;
    });
    throw error;
  } finally {
    client.release(isBroken);
  }
};

/** For transactions that take as long as they take. PostgreSQL knows this limit from version 17 on. */
export const unlimitedTransactionSql = `select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout'`;

/** PostgreSQL's own code of an error; empty where the error is none of its own. */
const sqlStateOf = (error: unknown): string => (error instanceof pg.DatabaseError ? (error.code ?? '') : '');

/**
 * SQLSTATE 25006: a session keeps the `default_transaction_read_only` that its role or database had when it began, and
 * a pooler's the server that it led to. The next one may be allowed to write.
 */
const isReadOnly = (error: unknown): boolean => sqlStateOf(error) === '25006';

/** pg gave up waiting for an answer, as where the statements before it took long. It has broken the connection off. */
export const isOverdue = (error: unknown): boolean => error instanceof Error && error.message === 'Query read timeout';

/**
 * SQLSTATE 55P03, 57014, 40P01: others were in the way, or it took longer than a statement may. Later, or with less to
 * do, it may go through.
 */
export const isBusy = (error: unknown): boolean => ['55P03', '57014', '40P01'].includes(sqlStateOf(error));

/**
 * SQLSTATE classes 22, 23 and 54, such as a text that no index holds: this data can never be stored, whatever the day.
 */
export const isUnstorable = (error: unknown): boolean => /^(?:2[23]|54)/.test(sqlStateOf(error));

/** SQLSTATE 42P01 and 42703: a table or a column is not there, so this schema is not ours, or older. */
export const isSchemaMissing = (error: unknown): boolean => ['42P01', '42703'].includes(sqlStateOf(error));
