import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startDatabase } from '../test/given.ts';
import { findLiveLogins, type Pool } from './index.ts';

const at = new Date('2026-05-01T12:00:00Z');

describeWith(['postgres'], 'logins that are inside', () => {
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
    await pool.query(`
      insert into sessions (room_id, room_sid, participant_sid, identity, user_id, login_id, kind, is_hidden, is_live, joined_at, version, last_fact_at)
        select room, 'RM', room || sid, sid, user_id, login_id, 'STANDARD', false, is_live, joined_at::timestamptz, 0, now()
        from (values
          ('r1', 'a', 'ann', 'l1', true, '2026-05-01T11:00:00Z'), ('r2', 'a', 'ann', 'l1', true, '2026-05-01T11:00:00Z'),
          ('r1', 'b', 'ann', 'l2', true, '2026-05-01T12:00:00Z'), ('r1', 'c', 'ann', 'l3', true, '2026-05-01T12:00:01Z'),
          ('r1', 'd', 'ann', 'l4', false, '2026-05-01T11:00:00Z'), ('r1', 'e', 'bob', 'l1', true, '2026-05-01T11:00:00Z'),
          ('r1', 'f', 'ann', null, true, '2026-05-01T11:00:00Z'), ('r1', 'g', null, 'l5', true, '2026-05-01T11:00:00Z'))
          as given (room, sid, user_id, login_id, is_live, joined_at)`);
  });
  afterAll(() => pool.end());

  const found = async (about: Parameters<typeof findLiveLogins>[1], joinedBy: Date | null = at): Promise<string[]> =>
    (await findLiveLogins(pool, about, joinedBy)).map(({ userId, loginId }) => `${userId} ${loginId}`).sort();

  test('are found once each, by person: those that were inside by then and still are', async () => {
    expect(await found({ userId: 'ann' })).toEqual(['ann l1', 'ann l2']);
  });

  test("are found by the login's id alone, whoever has it", async () => {
    expect(await found({ loginId: 'l1' })).toEqual(['ann l1', 'bob l1']);
    expect(await found({ loginId: 'l5' })).toEqual([]);
    expect(await found({ loginId: 'l3' })).toEqual([]);
    expect(await found({ loginId: 'l3' }, null)).toEqual(['ann l3']);
  });

  test.each([
    [{ userId: 'ann' }, 'user_id'],
    [{ loginId: 'l1' }, 'login_id'],
  ])('are found by %o through an index, not by looking through everybody who is inside', async (about, column) => {
    let plan = '';
    const query = async (text: string) => {
      const { rows } = await pool.query<{ 'QUERY PLAN': string }>(`explain (generic_plan) ${text}`);
      plan = rows.map((row) => row['QUERY PLAN']).join('\n');
      return { rows: [] };
    };
    await findLiveLogins(Object.create(pool, { query: { value: query } }), about, null);
    expect(plan).toMatch(new RegExp(`Index Cond: .*\\b${column}\\b.* = \\$\\d`));
  });
});
