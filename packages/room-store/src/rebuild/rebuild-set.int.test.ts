import { randomUUID } from 'node:crypto';
import { topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import pg from 'pg';
import { expect, test } from 'vitest';
import { fill, setForDatabase, startDatabase } from '../../test/given.ts';
import { createPool, isBusy, type Pool } from '../database/database.ts';
import { claimMarks, markIdentities, settleMark } from '../marks.ts';
import {
  dropRebuild,
  prepareRebuild,
  RebuildOutdatedError,
  rebuiltTables,
  type SwapOptions,
  swapRebuild,
} from './rebuild-set.ts';
import { beginSnapshot } from './rebuild-verify.ts';
import { resetTopic } from './reset-topic.ts';

const atOnce: SwapOptions = { caughtUp: async () => true, flush: async () => {} };
/** A busy machine may take some tries. */
const swap = (pool: Pool, options = atOnce) => until('it is swapped', () => swapRebuild(pool, options));

describeWith(['postgres'], 'the second set of tables', () => {
  test.each([
    ['a column', 'alter table rooms add column topic_of_the_day text'],
    ['an index', 'create index members_of_user on members (user_id)'],
    ['a constraint', `alter table members add constraint no_king check (role <> 'king') not valid`],
    ['a default', `alter table members alter column role set default 'listener'`],
    ['a privilege', 'grant select on members to pg_monitor'],
  ])('is outdated once the tables have %s that they had not when it was made', async (_, alteration) => {
    const { pool } = await startDatabase();
    expect([await prepareRebuild(pool), await prepareRebuild(pool)]).toEqual(['new', 'resumed']);
    await pool.query(alteration);
    await expect(prepareRebuild(pool)).rejects.toThrow(RebuildOutdatedError);
    await dropRebuild(pool);
    expect([await prepareRebuild(pool), await prepareRebuild(pool)]).toEqual(['new', 'resumed']);
    await pool.end();
  });

  test('is put in place within 200 ms from the first lock, or not at all', async () => {
    const { pool } = await startDatabase();
    await pool.query(`insert into rooms (room_id) values ('stays')`);
    await prepareRebuild(pool);
    await pool.query(
      `create function take_long() returns event_trigger language plpgsql as $$ begin perform pg_sleep(0.05); end $$;
        create event trigger slow on ddl_command_end when tag in ('ALTER TABLE') execute function take_long()`,
    );
    expect(isBusy(await swapRebuild(pool, atOnce).catch((error: unknown) => error))).toBe(true);
    expect((await pool.query('select room_id from rooms')).rows).toEqual([{ room_id: 'stays' }]);
    await pool.query('drop event trigger slow');
    expect(await swap(pool)).toMatchObject({ marks: 0 });
    expect((await pool.query('select room_id from rooms')).rows).toEqual([]);
    await pool.end();
  });

  test('is not put in place by a process that stands still before the last word: others wait for it for a second', async () => {
    const { pool, url } = await startDatabase();
    await prepareRebuild(pool);
    const single = createPool({ url, maxConnections: 1, applicationName: 'x', onError: () => undefined });
    const client = await single.connect();
    const query = client.query.bind(client) as (text: string, values?: unknown[]) => Promise<unknown>;
    const hasMoved = Promise.withResolvers<void>();
    const standsStill = Promise.withResolvers<void>();
    const queryOrStand = async (text: string, values?: unknown[]): Promise<unknown> => {
      if (text === 'commit') {
        hasMoved.resolve();
        await standsStill.promise;
      }
      return query(text, values);
    };
    Object.assign(client, { query: queryOrStand });
    client.release();
    const options = { caughtUp: async () => true, flush: async () => {} };
    const refused = swapRebuild(single, options).catch((refusal: unknown) => refusal);
    await hasMoved.promise;
    const askedAtMs = performance.now();
    await pool.query('select from rooms');
    expect(performance.now() - askedAtMs).toBeLessThan(2_000);
    standsStill.resolve();
    expect(await refused).toBeInstanceOf(Error);
    await Promise.all([pool.end(), single.end()]);
  });

  test('belongs to whom the tables belong to, whoever rebuilds: the services keep what they may', async () => {
    const { pool } = await startDatabase();
    const owner = `services_${randomUUID().replaceAll('-', '')}`;
    await pool.query(`create role ${owner}`);
    for (const name of rebuiltTables) await pool.query(`alter table ${name} owner to ${owner}`);
    await prepareRebuild(pool);
    await swap(pool);
    const { rows } = await pool.query(
      'select distinct tableowner as owner from pg_tables where tablename = any($1::text[])',
      [rebuiltTables],
    );
    expect(rows).toEqual([{ owner }]);
    await pool.query(`drop owned by ${owner}; drop role ${owner}`);
    await pool.end();
  });

  test('is put in place of no tables but those that it was compared with: a migration meanwhile gives way', async () => {
    const { pool, url } = await startDatabase();
    await prepareRebuild(pool);
    const migrating = new pg.Client({ connectionString: url });
    await migrating.connect();
    const addColumn = () =>
      migrating.query(`set lock_timeout = 100; alter table rooms add column topic_of_the_day text`);
    let refusal: unknown;
    const flush = async (): Promise<void> => {
      refusal = await addColumn().catch((error: unknown) => error);
    };
    await swap(pool, { ...atOnce, flush });
    expect(isBusy(refusal)).toBe(true);
    await addColumn();
    expect((await pool.query('select topic_of_the_day from rooms')).rows).toEqual([]);
    await migrating.end();
    await pool.end();
  });

  test('is put in place while an answer with an announcement is settled: that gives way, and is tried again', async () => {
    const { pool } = await startDatabase();
    await pool.query(`insert into rooms (room_id) values ('r')`);
    await pool.query(
      `insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live, joined_at, version, last_fact_at)
        values ('r', 'RM_1', 'PA_1', 'ann', 'STANDARD', false, true, now(), 1, now())`,
    );
    await prepareRebuild(pool);
    const permissions = { publishSources: [], subscribe: true, publishData: false, hidden: false, moderate: false };
    const rights = { eventId: 'rights', data: { participantSid: 'PA_1', identity: 'ann', permissions } };
    const waits = `select from pg_locks join pg_stat_activity using (pid) where not granted and datname = current_database()`;
    let settling: Promise<unknown> = Promise.resolve();
    const trySwap = async () => {
      await pool.query('truncate marks');
      await markIdentities(pool, 'r', ['ann'], { cause: 'test', causedAtMs: Date.now() });
      const [mark] = await claimMarks(pool, 1, 60, 'oldest');
      if (mark === undefined) throw new Error('there was none to claim');
      let hasGivenWay = false;
      return swapRebuild(pool, {
        ...atOnce,
        // The swap has asked about all who are inside, and holds these questions.
        flush: async () => {
          settling = settleMark(pool, mark, null, rights).catch((error: unknown) => {
            hasGivenWay = true;
            return error;
          });
          await until('it waits for its question', async () => hasGivenWay || (await pool.query(waits)).rowCount === 1);
        },
      }).finally(() => settling);
    };
    expect(await until('it is swapped', trySwap)).toMatchObject({ marks: 1 });
    expect(isBusy(await settling)).toBe(true);
    await pool.end();
  });

  test('has thousands who are inside looked at one after the other, and first whoever is removed meanwhile', async () => {
    const { pool } = await startDatabase();
    await fill(
      pool,
      `insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live, joined_at, version, last_fact_at)
        select 'r', 'RM_1', 'PA_' || at, 'p-' || at, 'STANDARD', false, true, now(), 1, now() from generate_series(1, 10000) as at`,
    );
    await prepareRebuild(pool);
    expect(await swap(pool)).toMatchObject({ marks: 10_000 });
    const { rows } = await pool.query('select identity from marks order by due_at desc limit 1');
    const last: string = rows[0].identity;
    await markIdentities(pool, 'r', [last], { cause: 'member.removed', causedAtMs: Date.now() });
    const claimed = await claimMarks(pool, 64, 60, 'newest');
    expect(claimed.map(({ identity }) => identity)).toContain(last);
    expect((await claimMarks(pool, 10_000, 60, 'oldest')).length).toBeLessThan(9_000);
    await pool.end();
  });
});

describeWith(['postgres'], 'where the database ends transactions that take long', () => {
  test.each<[string, (pool: Pool) => Promise<unknown>]>([
    ['a reset', (pool) => resetTopic(pool, { topic: topics.roomEvents, lows: new Map() })],
    [
      'what is compared',
      async (pool) => {
        const client = await pool.connect();
        await beginSnapshot(client);
        await client.query('select pg_sleep(1)');
        await client.query('commit');
        client.release();
      },
    ],
  ])('%s takes as long as it takes', async (_, work) => {
    const { pool, url } = await startDatabase();
    await pool.query(
      `create function take_long() returns event_trigger language plpgsql as $$ begin perform pg_sleep(1); end $$;
        create event trigger slow on ddl_command_end when tag in ('DROP SCHEMA') execute function take_long();
        ${setForDatabase('transaction_timeout', `'500ms'`)}`,
    );
    const limited = createPool({ url, maxConnections: 1, applicationName: 'x', onError: () => undefined });
    await work(limited);
    await Promise.all([pool.end(), limited.end()]);
  });
});
