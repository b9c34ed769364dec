import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startDatabase } from '../test/given.ts';
import { activeProjection, type Pool, purge } from './index.ts';

describeWith(['postgres'], 'purging', () => {
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());

  test("drops identities a week older than their partition's newest record, and leases that are over", async () => {
    await pool.query(
      `insert into log_positions (projection, topic, "partition", next_offset, partition_count, newest_recorded_at)
        values ($1, 't', 0, 3, 2, '2020-01-10T00:00:00Z'), ($1, 't', 1, 1, 2, '2019-01-01T00:00:00Z')`,
      [activeProjection],
    );
    await pool.query(`insert into applied_facts (topic, "partition", fact_key, recorded_at) values
      ('t', 0, 'new', '2020-01-10T00:00:00Z'), ('t', 0, 'kept', '2020-01-03T00:00:01Z'), ('t', 0, 'old', '2020-01-02T23:59:59Z'),
      ('t', 1, 'newest here', '2019-01-01T00:00:00Z')`);
    await pool.query(`insert into seat_leases (room_id, identity, user_id, expires_at) values
      ('r', 'ann', 'ann', now() - interval '1 second'), ('r', 'bob', 'bob', now() + interval '1 minute')`);
    const sessionRow = (sid: string, isLive: boolean, ended: string | null, fact: string) =>
      pool.query(
        `insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live, joined_at, version, ended_at, last_fact_at)
          values ('r', 'RM', $1, 'ann', 'STANDARD', false, $2, now(), 1, $3, now() - $4::interval)`,
        [sid, isLive, ended, fact],
      );
    await sessionRow('PA_old', false, '2020-01-01', '9 days');
    await sessionRow('PA_recent', false, '2020-01-01', '7 days');
    await sessionRow('PA_live', true, null, '9 days');
    expect(await purge(pool)).toEqual({ facts: 1, leases: 1, sessions: 1 });
    const { rows: facts } = await pool.query(
      `select convert_from(fact_key, 'UTF8') as name from applied_facts order by name`,
    );
    expect(facts.map(({ name }) => name)).toEqual(['kept', 'new', 'newest here']);
    const { rows: sessions } = await pool.query('select participant_sid as sid from sessions order by 1');
    expect(sessions.map(({ sid }) => sid)).toEqual(['PA_live', 'PA_recent']);
    const { rows: leases } = await pool.query('select identity from seat_leases');
    expect(leases).toEqual([{ identity: 'bob' }]);
  });
});
