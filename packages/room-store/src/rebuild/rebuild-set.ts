import { topics } from '@realtime-service/contracts';
import { LogReplacedError } from '../apply/apply-chunk.ts';
import { type Client, inTransaction, type Pool } from '../database/database.ts';
import { banTable, endedLoginTable, memberTable, roomTable, userTable } from '../database/rows.ts';
import { raisedAgainSql } from '../marks.ts';
import { activeProjection } from '../positions.ts';
import { marksChannel } from '../postgres-store.ts';

/**
 * A second set of the tables that fold from room events. It stands in a schema of its own, so that the very statements
 * that fill the first set fill it, found by `search_path`; its positions are rows of another projection.
 */
export const rebuildProjection = 'rebuild';
const topic = topics.roomEvents;
const rebuildSchema = 'realtime_rebuild';
const retiredSchema = 'realtime_retired';

/**
 * In the order in which a join's query takes its locks (`read-facts.ts`): a swap that waits for one table holds none
 * that such a query would still need.
 */
export const rebuiltTables = ['rooms', 'members', 'users', 'ended_logins', 'bans', 'applied_facts'] as const;

const servingTables = rebuiltTables.map((name) => `public.${name}`);

/** The longest that a swap keeps the tables from being read before its commit, waiting for them and renaming them. */
const heldTimeoutMs = 200;
/** A process that stands still then has its swap undone before those who read give up. */
const standingStillMs = 1_000;

/** The set was made when the tables were others: it cannot take the place of the tables as they are now. */
export class RebuildOutdatedError extends Error {
  override readonly name = 'RebuildOutdatedError';
}

/** Something rests on the tables that are to be replaced, and would go with them. */
export class DependentsError extends Error {
  override readonly name = 'DependentsError';
}

/**
 * Connections that fill the set. They need a connection past any pooler in transaction mode: `search_path` is theirs.
 * A commit need not wait for the disk: rows and positions of a transaction are lost together or not at all, and the
 * swap's commit, which waits, makes all before it durable.
 */
export const rebuildUrlOf = (directUrl: string): string => {
  const url = new URL(directUrl);
  const given = url.searchParams.get('options') ?? '';
  const own = [`search_path=${rebuildSchema},public`, 'synchronous_commit=off'];
  url.searchParams.set('options', [given, ...own.map((each) => `-c ${each}`)].join(' ').trim());
  return url.href;
};

/** Raised whenever a rebuild counts records otherwise than before: a set that is half filled so is to be begun anew. */
const countingRule = 5;

/** What the tables are like: a name for all that a copy of them takes over, and for how it is filled. */
const readShape = async (client: Client | Pool): Promise<string> => {
  const { rows } = await client.query<{ shape: string }>(
    `with replaced as (select oid, relname, relacl from pg_class where oid = any($1::regclass[])),
        parts (name, part) as (
          select relname, relacl::text from replaced
          union all select relname, concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
            from replaced join pg_attribute on attrelid = oid and attnum > 0 and not attisdropped
              left join pg_attrdef on adrelid = attrelid and adnum = attnum
          union all select relname, pg_get_indexdef(indexrelid) from replaced join pg_index on indrelid = oid
          union all select relname, concat_ws(' ', conname, pg_get_constraintdef(held.oid))
            from replaced join pg_constraint as held on conrelid = replaced.oid)
      select md5(string_agg(concat_ws(' ', name, part), ', ' order by name, part)) || ' ${countingRule}' as shape from parts`,
    [servingTables],
  );
  return rows[0]?.shape ?? '';
};

/** The set remembers what the tables were like when it was made. */
const assertUpToDate = async (client: Client | Pool): Promise<void> => {
  const { rows } = await client.query<{ shape: string | null }>(
    `select obj_description(to_regnamespace('${rebuildSchema}'), 'pg_namespace') as shape`,
  );
  if (rows[0]?.shape !== (await readShape(client)))
    throw new RebuildOutdatedError('The tables, or this release, are not those that the rebuild was begun with');
};

/** What a copy of the tables has too is left out: defaults, indexes, statistics, and constraints but foreign keys. */
const dependentsSql = `
  select string_agg(distinct pg_describe_object(classid, objid, 0), ', ') as names from pg_depend
    left join pg_constraint as held on classid = 'pg_constraint'::regclass and held.oid = objid
    left join pg_class as relation on classid = 'pg_class'::regclass and relation.oid = objid
    where (refclassid, refobjid) in (
        select unnest(array['pg_class'::regclass, 'pg_type'::regclass]), unnest(array[replaced.oid, replaced.reltype])
          from pg_class as replaced where replaced.oid = any($1::regclass[]))
      and deptype in ('a', 'n') and classid not in ('pg_attrdef'::regclass, 'pg_statistic_ext'::regclass)
      and coalesce(held.contype = 'f', true) and coalesce(relation.relkind <> 'i', true)`;

const assertNothingRests = async (client: Client | Pool): Promise<void> => {
  const { rows } = await client.query<{ names: string | null }>(dependentsSql, [servingTables]);
  const names = rows[0]?.names ?? null;
  if (names !== null)
    throw new DependentsError(`A rebuild would take along ${names}: drop them, and make them again afterwards`);
};

const ownerSql = (name: string): string =>
  `(select relowner::regrole from pg_class where oid = 'public.${name}'::regclass)`;

/** Its owner can own tables there, also where somebody else rebuilds. */
const createSchemaSql = (shape: string): string => `
  do $$ begin
    execute format('create schema ${rebuildSchema} authorization %s', ${ownerSql('rooms')});
  end $$;
  comment on schema ${rebuildSchema} is '${shape}'`;

/** A copy of a table without its rows, the same to every statement, to everybody, and to the migrations to come. */
const createTableSql = (name: string): string => `
  create table ${rebuildSchema}.${name} (like public.${name} including all excluding indexes);
  do $$ declare each record; begin
    for each in select pg_get_indexdef(indexrelid) as definition, indexrelid::regclass::text as name, indisprimary
        from pg_index where indrelid = 'public.${name}'::regclass loop
      execute replace(each.definition, ' ON public.', ' ON ${rebuildSchema}.');
      if each.indisprimary then
        execute format('alter table ${rebuildSchema}.${name} add primary key using index %I', each.name);
      end if;
    end loop;
    for each in select grantee, privilege_type from pg_class, aclexplode(relacl)
        where pg_class.oid = 'public.${name}'::regclass loop
      execute format('grant %s on ${rebuildSchema}.${name} to %s', each.privilege_type,
        case each.grantee when 0 then 'public' else each.grantee::regrole::text end);
    end loop;
    execute format('alter table ${rebuildSchema}.${name} owner to %s', ${ownerSql(name)});
  end $$;`;

const dropRetired = (pool: Pool): Promise<unknown> => pool.query(`drop schema if exists ${retiredSchema} cascade`);

/**
 * Makes the set, empty, where there is none. Answers whether there was one to go on with.
 * @throws {RebuildOutdatedError} {@link DependentsError}
 */
export const prepareRebuild = async (pool: Pool): Promise<'new' | 'resumed'> => {
  // Else whatever fills the set would find out, and leave it behind.
  for (const { selectSql } of [roomTable, memberTable, userTable, endedLoginTable, banTable])
    await pool.query(`${selectSql} limit 0`);
  // Left by one that ended between its swap and its cleaning up.
  await dropRetired(pool);
  await assertNothingRests(pool);
  const { rows } = await pool.query<{ count: number | null }>(
    `select (select count(*)::int from pg_class where relnamespace = schema.oid) as count
      from (select to_regnamespace('${rebuildSchema}')::oid as oid) as schema where oid is not null`,
  );
  // Empty where one ended when it had moved its tables into place.
  if (rows[0]?.count === 0) await pool.query(`drop schema ${rebuildSchema}`);
  else if (rows[0] !== undefined) {
    await assertUpToDate(pool);
    return 'resumed';
  }
  await inTransaction(pool, async (client) => {
    await client.query('delete from log_positions where projection = $1', [rebuildProjection]);
    await client.query(createSchemaSql(await readShape(client)));
    for (const name of rebuiltTables) await client.query(createTableSql(name));
  });
  return 'new';
};

/** Gives an unfinished set up, in a transaction of the caller's. */
export const dropSet = async (client: Client): Promise<void> => {
  await client.query(`drop schema if exists ${rebuildSchema} cascade`);
  await client.query('delete from log_positions where projection = $1', [rebuildProjection]);
};

/** Gives an unfinished set up. */
export const dropRebuild = (pool: Pool): Promise<void> => inTransaction(pool, dropSet);

/**
 * To be called once the set is nearly filled: statistics for the queries to come, and nothing that holds its tables.
 */
export const settleRebuild = async (pool: Pool): Promise<void> => {
  for (const name of rebuiltTables) {
    await pool.query(`alter table ${rebuildSchema}.${name} set (autovacuum_enabled = false)`);
    await pool.query(`analyze ${rebuildSchema}.${name}`);
  }
};

export interface Swapped {
  /** How many live sessions and rooms are to be looked at. */
  readonly marks: number;
  /** How long no table of the set could be read. */
  readonly heldMs: number;
}

export interface SwapOptions {
  /**
   * Resolves when the set stands where the locked positions stand, which nobody can move meanwhile; false: not in time.
   */
  readonly caughtUp: () => Promise<boolean>;
  /** Makes what was committed so far durable, so that the swap's commit has little left to wait for. */
  readonly flush: () => Promise<unknown>;
}

/** One statement: timeouts would count anew for each of several, and for each table that one of them waits for. */
const moveTablesSql = `do $$ begin
  lock table ${servingTables.join(', ')};
  ${rebuiltTables
    .map(
      (name) => `alter table public.${name} set schema ${retiredSchema};
        alter table ${rebuildSchema}.${name} set schema public;
        alter table public.${name} reset (autovacuum_enabled);`,
    )
    .join('\n')}
end $$`;

/** No more than a room-worker answers, so that who is removed meanwhile is asked about first. */
const askedPerSecond = 500;

/** Rooms too: one may be over, or have an end that is to be waited for. */
const markWhatIsLiveSql = `
  insert into marks (room_id, identity, cause, caused_at, due_at)
    select room_id, identity, 'rebuilt', due_at, due_at from (
        select room_id, identity,
            clock_timestamp() + make_interval(secs => (row_number() over () - 1)::float8 / ${askedPerSecond}) as due_at from (
          select room_id, identity from sessions where is_live union select room_id, '' from room_lives where is_live) as live) as asked
      order by room_id, identity
    on conflict (room_id, identity) do update set ${raisedAgainSql()}`;

/** A set that was made from another log would bring its positions along, under which nobody has read that one. */
const assertSameLog = async (client: Client): Promise<void> => {
  const { rows } = await client.query<{ partition: number; last_offset: string }>(
    `select active."partition", active.last_offset from log_positions as active join log_positions as rebuilt
        on rebuilt.topic = active.topic and rebuilt."partition" = active."partition"
          and (coalesce(rebuilt.last_offset, -1) < active.last_offset
            or rebuilt.last_offset = active.last_offset and rebuilt.last_recorded_at <> active.last_recorded_at)
      where active.projection = $1 and rebuilt.projection = $2 and active.topic = $3`,
    [activeProjection, rebuildProjection, topic],
  );
  const [other] = rows;
  if (other !== undefined)
    throw new LogReplacedError(
      `Offset ${other.last_offset} of partition ${other.partition} of ${topic} is not the record that was applied: it is another log`,
    );
};

/**
 * Puts the set in the place of the first, in one transaction, and has every live session looked at. First the positions
 * are locked, of every topic: nobody applies anything then, and nobody holds a lock of a table but readers. Only when
 * all else is done are readers locked out, for as long as it takes to rename the tables. Answers undefined where the
 * set had not caught up in time. Where that takes longer than 200 ms, as where somebody reads a table, it fails
 * ({@link isBusy}); nothing has happened then, and it is to be tried again a little later.
 * @throws {LogReplacedError} {@link RebuildOutdatedError} {@link DependentsError}
 */
export const swapRebuild = async (pool: Pool, { caughtUp, flush }: SwapOptions): Promise<Swapped | undefined> => {
  let lockedAtMs = 0;
  const marks = await inTransaction(pool, async (client) => {
    await client.query(`set local lock_timeout = ${heldTimeoutMs}; set local synchronous_commit = on`);
    await client.query(
      'select from log_positions where projection = $1 order by topic, "partition" for no key update',
      [activeProjection],
    );
    if (!(await caughtUp())) return undefined;
    // A migration that came after the comparison would be undone. Readers are kept from nothing.
    await client.query(`lock table ${servingTables.join(', ')} in share update exclusive mode`);
    await assertUpToDate(client);
    await assertNothingRests(client);
    await assertSameLog(client);
    await client.query(`lock table ${rebuiltTables.map((name) => `${rebuildSchema}.${name}`).join(', ')}`);
    await client.query(
      `with rebuilt as (delete from log_positions where projection = $1 and topic = $2 returning *)
        update log_positions as active set newest_recorded_at = rebuilt.newest_recorded_at,
            last_offset = rebuilt.last_offset, last_recorded_at = rebuilt.last_recorded_at from rebuilt
          where active.projection = $3 and active.topic = rebuilt.topic and active."partition" = rebuilt."partition"`,
      [rebuildProjection, topic, activeProjection],
    );
    await client.query(`create schema ${retiredSchema}`);
    const { rowCount } = await client.query(markWhatIsLiveSql);
    await flush();
    await client.query(
      `set local statement_timeout = ${heldTimeoutMs}; set local idle_in_transaction_session_timeout = ${standingStillMs}`,
    );
    lockedAtMs = performance.now();
    await client.query(moveTablesSql);
    return rowCount ?? 0;
  });
  if (marks === undefined) return undefined;
  const heldMs = performance.now() - lockedAtMs;
  // A lost one is made up by the poll.
  await pool.query(`notify ${marksChannel}`).catch(() => undefined);
  return { marks, heldMs };
};

/** Drops what a swap has left: the tables that it replaced. Where this fails, the next rebuild begins with it. */
export const cleanUpAfterSwap = async (pool: Pool): Promise<void> => {
  await dropRetired(pool);
  await pool.query(`drop schema if exists ${rebuildSchema}`);
};

/** Who reads or writes the tables that a swap waits for, for people to read. */
export const readTableUsers = async (pool: Pool): Promise<string[]> => {
  const { rows } = await pool.query<{ who: string }>(
    `select distinct format('%s (%s) for %s s', coalesce(nullif(application_name, ''), backend_type), pid,
          round(extract(epoch from clock_timestamp() - coalesce(xact_start, backend_start)))) as who
        from pg_locks join pg_stat_activity using (pid)
        where relation = any($1::regclass[]) and granted and clock_timestamp() - xact_start > interval '200 ms'`,
    [servingTables],
  );
  return rows.map(({ who }) => who);
};
