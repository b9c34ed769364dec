import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { countingPages, startDatabase } from '../test/given.ts';
import type { Pool } from './index.ts';
import { readSeats } from './leases.ts';

describeWith(['postgres'], 'seats in a room with a long history', () => {
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
    // Many came and went, one of them without end, who has a token again; and two left a minute ago, one by own will.
    await pool.query(`
      insert into sessions (room_id, room_sid, participant_sid, identity, user_id, kind, is_hidden, is_live, joined_at,
          version, end_reason, ended_at, last_fact_at)
        select 'r', 'RM_' || at % 3, 'PA_' || at, who, who, 'STANDARD', false, false, ended_at - interval '1 second',
            1, 'CONNECTION_ABORTED', ended_at, ended_at
          from generate_series(1, 50000) as at, lateral (
            select 'u-' || greatest(at - 25000, 0) as who, now() - interval '1 hour' - at * interval '1 second' as ended_at) as stay;
      insert into sessions (room_id, room_sid, participant_sid, identity, user_id, kind, is_hidden, is_live, joined_at,
          version, end_reason, ended_at, last_fact_at)
        select 'r', 'RM_0', 'PA_' || name, name, name, 'STANDARD', false, false, now() - interval '1 hour', 1, reason,
            now() - interval '1 minute', now()
          from (values ('ann', 'CONNECTION_ABORTED'), ('bob', 'CLIENT_INITIATED')) as who (name, reason);
      insert into seat_leases (room_id, identity, user_id, expires_at) values ('r', 'u-0', 'u-0', now() + interval '1 minute')`);
  });
  afterAll(() => pool.end());

  test.each(['before', 'after'])('are counted without reading it, %s the table was analysed', async (when) => {
    if (when === 'after') await pool.query('vacuum analyze');
    const seeker = { roomId: 'r', userId: 'cleo', loginId: null, identity: 'cleo', deviceId: null };
    const { result, pages } = await countingPages(pool, (client) => readSeats(client, seeker));
    expect(result.takenByOthers).toBe(2);
    expect(pages).toBeLessThan(60);
  });
});
