import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { countingPages, fill, isLockAwaited, startDatabase } from '../test/given.ts';
import { activeProjection, inTransaction, type Pool, purge, purgeFacts } from './index.ts';

describeWith(['postgres'], 'purging', () => {
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());

  test("drops identities a week older than their partition's newest record, and leases that are over", async () => {
    await pool.query(
      `insert into log_positions (projection, topic, "partition", next_offset, partition_count, newest_recorded_at)
        values ($1, 't', 0, 3, 2, '2020-01-10T00:00:00Z'), ($1, 't', 1, 1, 2, '2019-01-01T00:00:00Z'),
          ('of a rebuild', 't', 1, 9, 2, '2020-01-10T00:00:00Z')`,
      [activeProjection],
    );
    await pool.query(`insert into applied_facts (topic, "partition", fact_key, recorded_at) values
      ('t', 0, 'new', '2020-01-10T00:00:00Z'), ('t', 0, 'kept', '2020-01-03T00:00:01Z'), ('t', 0, 'old', '2020-01-02T23:59:59Z'),
      ('t', 1, 'newest here', '2019-01-01T00:00:00Z')`);
    await pool.query(`insert into seat_leases (room_id, identity, user_id, expires_at) values
      ('r', 'ann', 'ann', now() - interval '1 second'), ('r', 'bob', 'bob', now() + interval '1 minute'),
      ('r', 'ann:desk', 'ann', now() + interval '1 minute'), ('r', 'bob', 'another', now() - interval '1 second')`);
    const sessionRow = (sid: string, isLive: boolean, ended: string | null, fact: string) =>
      pool.query(
        `insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live, joined_at, version, ended_at, last_fact_at)
          values ('r', 'RM', $1, 'ann', 'STANDARD', false, $2, now(), 1, $3, now() - $4::interval)`,
        [sid, isLive, ended, fact],
      );
    await sessionRow('PA_old', false, '2020-01-01', '9 days');
    await sessionRow('PA_recent', false, '2020-01-01', '7 days');
    await sessionRow('PA_live', true, null, '9 days');
    expect(await purge(pool)).toEqual({ facts: 1, leases: 2, sessions: 1 });
    const { rows: facts } = await pool.query(
      `select convert_from(fact_key, 'UTF8') as name from applied_facts order by name`,
    );
    expect(facts.map(({ name }) => name)).toEqual(['kept', 'new', 'newest here']);
    const { rows: sessions } = await pool.query('select participant_sid as sid from sessions order by 1');
    expect(sessions.map(({ sid }) => sid)).toEqual(['PA_live', 'PA_recent']);
    const { rows: leases } = await pool.query('select identity, user_id from seat_leases order by identity');
    expect(leases).toEqual([
      { identity: 'ann:desk', user_id: 'ann' },
      { identity: 'bob', user_id: 'bob' },
    ]);
  });

  test('looks at what is old enough, whatever a week holds, and takes any number of it', async () => {
    await pool.query('truncate applied_facts, log_positions');
    await pool.query(
      `insert into log_positions (projection, topic, "partition", next_offset, partition_count, newest_recorded_at)
        select $1, topic, n, 1, 12, '2020-01-08' from unnest(array['t', 'u']) as topic, generate_series(0, 11) as n`,
      [activeProjection],
    );
    const addFacts = (name: string, from: string, count: number) =>
      fill(
        pool,
        `insert into applied_facts select case n % 2 when 0 then 't' else 'u' end, n / 2 % 12, convert_to($1 || n, 'UTF8'),
            $2::timestamptz + make_interval(secs => n * 86400.0 / $3) from generate_series(1, $3::int) as n`,
        [name, from, count],
      );
    const purging = () => countingPages(pool, (client) => purgeFacts(client, { projection: activeProjection }));
    await addFacts('week', '2020-01-02', 30_000);
    for (const statistics of ['', 'analyze applied_facts', 'analyze log_positions']) {
      await pool.query(statistics);
      const { result, pages } = await purging();
      expect({ statistics, result }).toEqual({ statistics, result: 0 });
      expect(pages).toBeLessThan(20);
    }
    await addFacts('old', '2019-12-30', 25_000);
    expect(await purgeFacts(pool, { projection: activeProjection, topic: 't', partition: 3 })).toBe(1_042);
    expect(await purgeFacts(pool, { projection: activeProjection })).toBe(23_958);
    expect((await pool.query('select count(*)::int from applied_facts')).rows).toEqual([{ count: 30_000 }]);
  });

  test('reads what waits to go once, however much that is', async () => {
    await pool.query('truncate applied_facts, log_positions');
    await pool.query(
      `insert into log_positions (projection, topic, "partition", next_offset, partition_count, newest_recorded_at)
        select $1, 't', n, 1, 12, '2020-01-08' from generate_series(0, 11) as n`,
      [activeProjection],
    );
    const backlog = 160_000;
    await fill(
      pool,
      `insert into applied_facts select 't', n % 12, convert_to(n::text, 'UTF8'), '2019-12-01'::timestamptz + make_interval(secs => n)
        from generate_series(1, $1::int) as n`,
      [backlog],
    );
    const { purged, read } = await inTransaction(pool, async (client) => {
      // A connection counts on from transactions before, until it has reported them.
      const countRead = async (): Promise<number> => {
        const { rows } = await client.query(
          `select idx_tup_fetch::int as read from pg_stat_xact_user_tables where relname = 'applied_facts'`,
        );
        return rows[0]?.read;
      };
      const before = await countRead();
      const facts = await purgeFacts(client, { projection: activeProjection });
      return { purged: facts, read: (await countRead()) - before };
    });
    expect(purged).toBe(backlog);
    // Once to find them, and once to drop them.
    expect(read).toBeLessThanOrEqual(2 * backlog + 10);
  });

  test('looks at sessions that are old enough, whatever the days hold, and takes any number of them', async () => {
    await pool.query('truncate applied_facts, log_positions, sessions');
    const addSessions = (name: string, days: number, count: number) =>
      fill(
        pool,
        `insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live, joined_at, version, ended_at, last_fact_at)
          select 'r-' || at % 100, 'RM', $1 || at, 'ann', 'STANDARD', false, false, now(), 1, now(), now() - make_interval(days => $2)
            from generate_series(1, $3::int) as at`,
        [name, days, count],
      );
    await addSessions('recent', 7, 20_000);
    await pool.query('vacuum analyze sessions');
    const { result, pages } = await countingPages(pool, purge);
    expect(result.sessions).toBe(0);
    expect(pages).toBeLessThan(40);
    await addSessions('old', 9, 45_000);
    expect((await purge(pool)).sessions).toBe(45_000);
    expect((await pool.query('select count(*)::int from sessions')).rows).toEqual([{ count: 20_000 }]);
  });

  test.each([
    [
      'a fact',
      'applied_facts',
      `insert into applied_facts (topic, "partition", fact_key, recorded_at) values ('t', 0, 'old', '2020-01-01')`,
      `update applied_facts set recorded_at = '2020-01-10'`,
    ],
    [
      'somebody',
      'sessions',
      `insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live, joined_at, version, ended_at, last_fact_at)
        values ('r', 'RM', 'PA_ann', 'ann', 'STANDARD', false, false, now(), 1, now(), now() - interval '9 days')`,
      'update sessions set is_live = true, ended_at = null',
    ],
  ])('keeps %s told of again in the moment of the purge', async (_, table, old, again) => {
    await pool.query('truncate applied_facts, log_positions, sessions');
    await pool.query(
      `insert into log_positions (projection, topic, "partition", next_offset, partition_count, newest_recorded_at)
        values ($1, 't', 0, 3, 1, '2020-01-10')`,
      [activeProjection],
    );
    await pool.query(old);
    const telling = await pool.connect();
    await telling.query('begin');
    await telling.query(again);
    const purging = purge(pool);
    await until('the purge waits', () => isLockAwaited(pool));
    await telling.query('commit');
    telling.release();
    await purging;
    expect((await pool.query(`select from ${table}`)).rowCount).toBe(1);
  });

  test('waits for no lease that is being renewed: whoever renews several would wait for the purge in turn', async () => {
    await pool.query(
      `insert into seat_leases (room_id, identity, user_id, expires_at)
        select 'full', name, name, '2020-01-01' from unnest(array['one', 'two', 'three']) as name`,
    );
    await inTransaction(pool, async (client) => {
      await client.query(`update seat_leases set expires_at = 'infinity' where identity = 'two'`);
      expect(await purge(pool)).toMatchObject({ leases: 2 });
      await client.query(`update seat_leases set expires_at = 'infinity' where identity = 'one'`);
    });
    expect((await pool.query(`select identity from seat_leases where room_id = 'full'`)).rows).toEqual([
      { identity: 'two' },
    ]);
  });

  test('goes on with leases and sessions where identities cannot be purged', async () => {
    await pool.query(
      `insert into seat_leases (room_id, identity, user_id, expires_at) values ('r', 'cleo', 'cleo', '2020-01-01')`,
    );
    await pool.query('alter table applied_facts rename to away');
    await expect(purge(pool)).rejects.toThrow('applied_facts');
    expect((await pool.query(`select from seat_leases where identity = 'cleo'`)).rowCount).toBe(0);
  });
});
