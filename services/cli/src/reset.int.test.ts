import { topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { appendHistory, type RebuiltDatabase, startRebuiltDatabase } from '../test/rebuilt-database.ts';
import { runRealtime } from '../test/run-realtime.ts';

const { roomEvents, livekitWebhooks } = topics;

describeWith(['postgres'], 'realtime reset', () => {
  let database: RebuiltDatabase;
  const run = (...args: string[]) => runRealtime({ DATABASE_URL: database.url }, ...args);
  const count = async (what: string): Promise<number> =>
    (await database.pool.query(`select count(*)::int from ${what}`)).rows[0].count;

  beforeEach(async () => {
    database = await startRebuiltDatabase();
    await appendHistory(database, { seed: 21, count: 400 });
    await database.caughtUp();
  });
  afterEach(() => database.stop());

  test('has a topic that was made again applied from its beginning, with its own dead letters and doubts', async () => {
    await database.pool.query(
      `insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live, joined_at, version, last_fact_at)
        values ('room 1 ✓', 'RM_1', 'PA_1', 'user/1', 'STANDARD', false, true, now(), 1, now())`,
    );
    await database.stopApplying();
    await database.pool.query(
      `delete from log_records where topic = '${roomEvents}';
        update log_heads set next_offset = 0 where topic = '${roomEvents}'`,
    );
    await appendHistory(database, { seed: 22, count: 300 });
    expect(await run('rebuild')).toMatchObject({ code: 1 });

    const reset = await run('reset', roomEvents, '--yes');
    expect(reset).toMatchObject({ code: 0 });
    expect(reset.stderr).toContain('that had been settled may be open again');
    for (const name of [
      'rooms',
      'members',
      'bans',
      'users',
      'ended_logins',
      'applied_facts',
      'suspects',
      'dead_letters',
    ])
      expect([name, await count(name)]).toEqual([name, 0]);
    database.startApplying();
    await database.caughtUp();
    expect(await run('verify')).toMatchObject({ code: 0 });
    expect(await count('dead_letters')).toBeGreaterThan(3);
    expect(await count('dead_letters join log_records using (topic, "partition", "offset", value)')).toBe(
      await count('dead_letters where value is not null'),
    );
    expect(await count('sessions where is_live')).toBe(1);
    expect(await run('rebuild')).toMatchObject({ code: 0 });
  });

  test('begins at what the log still holds, with as many partitions as it has', async () => {
    await database.stopApplying();
    await database.pool.query(
      `delete from log_positions where topic = '${roomEvents}' and "partition" = 3;
        update log_positions set partition_count = 7, next_offset = 5000 where topic = '${roomEvents}'`,
    );
    expect(await run('reset', roomEvents, '--yes')).toMatchObject({ code: 0 });
    const { rows } = await database.pool.query(
      `select next_offset::int as next, partition_count as count, last_offset as last from log_positions
        where topic = $1 and projection = 'active' order by "partition"`,
      [roomEvents],
    );
    expect(rows).toEqual(Array.from({ length: 4 }, () => ({ next: 0, count: 4, last: null })));
  });

  test("of LiveKit's facts leaves the tables, and who is inside, as they are", async () => {
    await database.pool.query(
      `update log_positions set next_offset = 9 where topic = '${livekitWebhooks}';
        insert into applied_facts values ('${livekitWebhooks}', 0, '\\x01', now())`,
    );
    const [state, kept] = [await database.state(), await database.kept()];
    expect(await run('reset', livekitWebhooks, '--yes')).toMatchObject({ code: 0 });
    const isOther = (line: string): boolean => !line.includes(livekitWebhooks);
    expect((await database.state()).filter(isOther)).toEqual(state.filter(isOther));
    expect(await database.kept()).toEqual(kept);
    expect(await count(`log_positions where topic = '${livekitWebhooks}' and next_offset = 0`)).toBe(4);
    expect(await count(`applied_facts where topic = '${livekitWebhooks}'`)).toBe(0);
  });

  test('waits for whoever applies a fact of the other topic, and meets nobody in a deadlock', async () => {
    const lane = await database.pool.connect();
    await lane.query(
      `begin; select from log_positions where projection = 'active' and topic = '${livekitWebhooks}' for update`,
    );
    await lane.query('select from rooms where ctid = (select max(ctid) from rooms) for update');
    const resetting = run('reset', roomEvents, '--yes');
    const waits = 'pg_locks join pg_stat_activity using (pid) where not granted and datname = current_database()';
    await vi.waitFor(async () => expect(await count(waits)).toBe(1), 10_000);
    await lane.query('select from rooms where ctid = (select min(ctid) from rooms) for update');
    await lane.query('commit');
    lane.release();
    expect(await resetting).toMatchObject({ code: 0 });
  });

  test('gives up an unfinished rebuild', async () => {
    await database.pool.query('create schema realtime_rebuild');
    expect(await run('reset', roomEvents, '--yes')).toMatchObject({ code: 0 });
    expect(await count(`pg_namespace where nspname = 'realtime_rebuild'`)).toBe(0);
  });

  test('gives nothing up where the positions are in use for too long', async () => {
    await database.pool.query('create schema realtime_rebuild');
    const lane = await database.pool.connect();
    await lane.query(`begin; select from log_positions where projection = 'active' for update`);
    const state = await database.state();
    const reset = await run('reset', roomEvents, '--yes');
    await lane.query('rollback');
    lane.release();
    expect(reset).toMatchObject({ code: 1 });
    expect(reset.stderr).toContain('nothing was given up');
    expect(await count(`pg_namespace where nspname = 'realtime_rebuild'`)).toBe(1);
    expect(await database.state()).toEqual(state);
  });

  test.each([
    ['no topic', [], 'Say which topic'],
    ['another topic', ['realtime.room-events.v1-dlt', '--yes'], 'Say which topic'],
    ['two topics', [roomEvents, livekitWebhooks, '--yes'], 'Say which topic'],
    ['nobody to ask', [roomEvents], 'say --yes'],
  ])('refuses %s', async (_, args, message) => {
    const state = await database.state();
    const { code, stderr } = await run('reset', ...args);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
    expect(await database.state()).toEqual(state);
  });
});
