/**
 * Two workers on one database, as fast as they can: what neither of them may miss, and where neither may wait for ever.
 */
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  added,
  chunkOf,
  created,
  joined,
  livekitRecord,
  removed,
  roomRecord,
  startDatabase,
} from '../../test/given.ts';
import { applyChunk, type ChunkRecord, createPool, createPostgresStore, type Pool } from '../index.ts';

/**
 * Pairs of each kind of race, and how long two lanes share rooms: `RACES=2000 DEADLOCK_SECONDS=60` for the long run.
 */
const races = Number(process.env['RACES'] ?? 2_000);
const deadlockSeconds = Number(process.env['DEADLOCK_SECONDS'] ?? 10);
/** Races at once, each with partitions of its own. */
const width = 8;

describeWith(['postgres'], 'two workers at once', () => {
  let workers: readonly [Pool, Pool];

  beforeAll(async () => {
    const { pool, url } = await startDatabase();
    const other = createPool({ url, maxConnections: 20, applicationName: 'other', onError: () => undefined });
    workers = [pool, other];
  });
  afterAll(async () => {
    for (const pool of workers) await pool.end();
  });
  beforeEach(async () => {
    await workers[0].query('truncate rooms, members, users, sessions, room_lives, applied_facts, marks, outbox');
    await workers[0].query('update log_positions set next_offset = 0');
  });

  const apply = async (worker: 0 | 1, records: readonly ChunkRecord[]): Promise<void> => {
    const result = await applyChunk(createPostgresStore(workers[worker]), chunkOf(records));
    expect(result).toMatchObject({ kind: 'applied', counts: { repeated: 0 } });
  };

  describe('a person enters while what allowed it ends', () => {
    const endings = [
      [
        'removed',
        (room: string, user: string) => removed(room, user),
        'members where is_removed and user_id = new.user_id',
      ],
      [
        'disabled',
        (_: string, user: string) => ({ type: 'user.disabled' as const, subject: user, data: { userId: user } }),
        'users where is_disabled and user_id = new.user_id',
      ],
    ] as const;

    test.each(endings)(
      `${races} times %s: nobody is left inside without being asked about`,
      async (_, endOf, ended) => {
        const [pool] = workers;
        // Notes, inside the entry's transaction, whether the end was there to be seen by whoever answers its mark.
        await pool.query(`
        create table witnesses (identity text, saw_end boolean);
        create function witness() returns trigger language plpgsql as $$ begin
          insert into witnesses select new.identity, exists (select from ${ended});
          return new;
        end $$;
        create trigger witness after insert on sessions for each row execute function witness()`);
        // Half of the people are known before: those whose row is new wait for each other anyway.
        await pool.query(
          `insert into users (user_id) select 'u' || p || '.' || r from generate_series(0, $1::int - 1) p, generate_series(0, $2::int, 2) r`,
          [width, races],
        );
        const run = async (partition: number): Promise<void> => {
          const room = `r${partition}`;
          await apply(0, [roomRecord(0, created(room), { id: `${partition}.c`, partition })]);
          for (let round = 0; round * width + partition < races; round += 1) {
            const user = `u${partition}.${round}`;
            const end = () => apply(0, [roomRecord(round + 1, endOf(room, user), { id: user, partition })]);
            const enter = () => apply(1, [livekitRecord(round, joined(room, user), { id: user, partition })]);
            await Promise.all(round % 4 < 2 ? [end(), enter()] : [enter(), end()]);
          }
        };
        await Promise.all(Array.from({ length: width }, (_, partition) => run(partition)));

        const { rows } = await pool.query<{ saw_end: boolean; generation: string }>(
          `select saw_end, generation from witnesses join sessions using (identity) left join marks using (identity) where is_live`,
        );
        await pool.query('drop table witnesses cascade; drop function witness cascade');
        expect(rows).toHaveLength(races);
        // Where the entry did not see the end, the end saw the entry, and asked a second time.
        expect(rows.filter(({ saw_end, generation }) => !saw_end && generation !== '2')).toEqual([]);
        expect(new Set(rows.map(({ saw_end }) => saw_end)).size).toBe(2);
      },
      120_000,
    );
  });

  test(`two lanes over the same 500 rooms never deadlock, for ${deadlockSeconds} s`, async () => {
    const roomCount = 500;
    const [pool] = workers;
    const deadlocks = async (): Promise<number> => {
      const { rows } = await pool.query(
        'select deadlocks::int as n, pg_stat_clear_snapshot() from pg_stat_database where datname = current_database()',
      );
      return rows[0].n;
    };
    const before = await deadlocks();
    const stopAtMs = performance.now() + deadlockSeconds * 1000;
    let round = 0;
    for (; performance.now() < stopAtMs; round += 1) {
      // Every fourth time new ones: both lanes want to make and to lock them at once, each in an order of its own.
      const rooms = Array.from({ length: roomCount }, (_, at) => `room-${Math.floor(round / 4)}-${at}`);
      const offset = (at: number): number => round * roomCount + at;
      await Promise.all([
        apply(
          0,
          rooms.map((room, at) => roomRecord(offset(at), added(room, `u${at % 7}`))),
        ),
        apply(
          1,
          rooms
            .toReversed()
            .map((room, at) => livekitRecord(offset(at), joined(room, `u${at % 5}`, `PA_${offset(at)}`))),
        ),
      ]);
    }
    expect(round).toBeGreaterThan(deadlockSeconds);
    expect((await deadlocks()) - before).toBe(0);
  }, 120_000);
});
