import { type RoomEvent, type RoomEventData, topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { keyOf } from '@realtime-service/room-model';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  added,
  chunkOf,
  created,
  isLockAwaited,
  joined,
  livekitRecord,
  removed,
  roomRecord,
  startDatabase,
} from '../../test/given.ts';
import { readProjection } from '../../test/read-projection.ts';
import { storeContract } from '../../test/store-contract.ts';
import { statementTimeoutMs } from '../database/database.ts';
import { applyChunk, type ChunkRecord, type ChunkStore, createPostgresStore, type Pool } from '../index.ts';

describeWith(['postgres'], 'the store in PostgreSQL', () => {
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());

  /** Until then, of each row. */
  const seconds = async (column: string, table: string): Promise<number[]> =>
    (await pool.query(`select extract(epoch from ${column} - now())::float8 as seconds from ${table}`)).rows.map(
      (row) => row.seconds,
    );

  storeContract(() => ({
    store: createPostgresStore(pool),
    projection: () => readProjection(pool),
    marks: async () =>
      (await pool.query('select room_id as "roomId", identity, cause from marks order by room_id, identity')).rows,
    announced: async () =>
      Object.fromEntries(
        (await pool.query(`select event_id, data from outbox where type = 'participant.permissions_applied'`)).rows.map(
          ({ event_id, data }) => [event_id, data],
        ),
      ),
    forgetMarks: () => pool.query('truncate marks'),
    markWaits: () => seconds('due_at', 'marks'),
    orderLives: () => seconds('expires_at', 'edges'),
    empty: async () => {
      const { rows } = await pool.query<{ name: string }>(
        `select tablename as name from pg_tables where schemaname = 'public' and tablename not in ('schema_migrations', 'log_positions')`,
      );
      await pool.query(`truncate ${rows.map(({ name }) => name).join(', ')}`);
      await pool.query(
        'update log_positions set next_offset = 0, newest_recorded_at = default, last_offset = null, last_recorded_at = null',
      );
    },
  }));

  test('a position that was set back by hand goes on there, whatever was applied beyond it', async () => {
    const store = createPostgresStore(pool);
    await applyChunk(store, chunkOf([roomRecord(0, created('r')), roomRecord(1, added('r', 'ann'))]));
    await pool.query('update log_positions set next_offset = 1');
    expect((await store.readPositions()).find(({ partition }) => partition === 0)).toMatchObject({
      nextOffset: 1n,
      last: null,
    });
    const another = { ...roomRecord(1, added('r', 'bob'), { id: 'another' }), recordedAtMs: 1 };
    expect(await applyChunk(store, chunkOf([another]))).toMatchObject({ counts: { applied: 1 } });
  });

  test('a zombie between its writes and its commit, and the worker that has its partition now, apply a batch once', async () => {
    const store = createPostgresStore(pool);
    await applyChunk(store, chunkOf([roomRecord(0, created('r'))]));
    const kick: RoomEvent = {
      type: 'participant.kick_requested',
      subject: 'r',
      data: { participantSid: 'PA_1', identity: 'ann', by: 'host' },
    };
    const batch = chunkOf([roomRecord(1, kick)]);
    const wrote = Promise.withResolvers<void>();
    const commits = Promise.withResolvers<void>();
    const zombie: ChunkStore = {
      ...store,
      transaction: (work) =>
        store.transaction(async (transaction) => {
          const result = await work(transaction);
          wrote.resolve();
          await commits.promise;
          return result;
        }),
    };
    const first = applyChunk(zombie, batch);
    await wrote.promise;
    const second = applyChunk(store, batch);
    await until('the second waits for the first', () => isLockAwaited(pool));
    commits.resolve();
    expect(await first).toMatchObject({ counts: { applied: 1 } });
    expect(await second).toMatchObject({ counts: { applied: 0, repeated: 1 } });
    expect((await pool.query('select kind from edges')).rows).toEqual([{ kind: 'kick' }]);
  });

  test('a column that a newer release adds stops nobody who is at work', async () => {
    const store = createPostgresStore(pool);
    const entry = joined('r', 'ann');
    await applyChunk(store, chunkOf([livekitRecord(0, entry)]));
    const tables = ['sessions', 'room_lives'];
    for (const table of tables) await pool.query(`alter table ${table} add column newer text`);
    try {
      const departure = livekitRecord(1, { ...entry, type: 'participant_left' });
      expect(await applyChunk(store, chunkOf([departure]))).toMatchObject({ counts: { applied: 1 } });
    } finally {
      for (const table of tables) await pool.query(`alter table ${table} drop column newer`);
    }
  });

  test('what a worker of the release before applies, which keeps no `decided`, is overruled by no retried letter', async () => {
    const store = createPostgresStore(pool);
    const update = (data: RoomEventData<'member.updated'>): RoomEvent => ({
      type: 'member.updated',
      subject: 'r',
      data,
    });
    const dead = { reason: 'invalid_data', message: '', key: null, value: null, headers: {} } as const;
    const unreadable = { key: 'r', type: 'member.added', data: undefined };
    const readable = roomRecord(2, added('r', 'ann'));
    const lost: ChunkRecord = { ...readable, factKey: null, content: { kind: 'dead', dead, unreadable } };
    const renamed = roomRecord(3, update({ userId: 'ann', displayName: 'Ann' }));
    await applyChunk(store, chunkOf([roomRecord(0, created('r')), roomRecord(1, added('r', 'ann')), lost, renamed]));
    await pool.query(`update members set is_removed = true, event_id = 'e4', "offset" = 4`);
    await pool.query(`update log_positions set next_offset = 5 where topic = $1 and "partition" = 0`, [
      topics.roomEvents,
    ]);
    const letter = { topic: topics.roomEvents, partition: 0, offset: 2n };
    const retry = roomRecord(5, { type: 'dead_letter.retried', subject: 'r', data: { ...letter, offset: '2' } });
    const decode = () => readable;
    await applyChunk(store, chunkOf([{ ...retry, content: { kind: 'retry', letter, decode, outcome: null } }]));
    expect((await pool.query(`select status from dead_letters`)).rows).toEqual([{ status: 'retried' }]);
    expect((await readProjection(pool)).members.get(keyOf('r', 'ann'))).toMatchObject({ isRemoved: true });
  });

  test('slow statements end no chunk that has a dead letter, an action on one and an order', async () => {
    const store = createPostgresStore(pool);
    const dead = { reason: 'invalid_data', message: '', key: null, value: null, headers: {} } as const;
    const unreadable = { key: 'r', type: 'member.removed', data: { userId: 'eve' } };
    const lost = (offset: number): ChunkRecord => ({
      ...roomRecord(offset, removed('r', 'eve')),
      factKey: null,
      content: { kind: 'dead', dead, unreadable },
    });
    await applyChunk(store, chunkOf([lost(0)]));
    const position = { topic: topics.roomEvents, partition: 0, offset: '0' };
    const ban: RoomEvent = { type: 'member.banned', subject: 'r', data: { userId: 'bob', privilege: 'join' } };
    const kick: RoomEvent = {
      type: 'participant.kick_requested',
      subject: 'r',
      data: { participantSid: 'PA_1', identity: 'ann', by: 'host' },
    };
    const tables = ['members', 'bans', 'applied_facts'];
    // Each within a statement's time, all of them together not.
    await pool.query(`create function slowly() returns trigger language plpgsql as
      $$ begin perform pg_sleep(${(statementTimeoutMs / 1000) * 0.45}); return null; end $$`);
    for (const table of tables)
      await pool.query(`create trigger slowly before insert on ${table} for each statement execute function slowly()`);
    try {
      const events = [
        added('r', 'ann'),
        ban,
        kick,
        { type: 'dead_letter.discarded', subject: 'r', data: position },
      ] as const;
      const records = [...events.map((event, at) => roomRecord(at + 1, event)), lost(5)];
      expect(await applyChunk(store, chunkOf(records))).toMatchObject({ counts: { applied: 4, dead: 1 } });
    } finally {
      await pool.query('drop function slowly() cascade');
    }
    const letters = await pool.query('select status from dead_letters order by "offset"');
    expect(letters.rows).toEqual([{ status: 'discarded' }, { status: 'open' }]);
    expect((await pool.query('select kind from edges')).rows).toEqual([{ kind: 'kick' }]);
  }, 30_000);

  test('what cannot be stored leaves nothing behind', async () => {
    const unstorable = roomRecord(1, added('r', 'ann'));
    const broken = { ...unstorable, factKey: null, origin: { ...unstorable.origin, eventId: 'nul\0' } };
    await expect(applyChunk(createPostgresStore(pool), chunkOf([roomRecord(0, created('r')), broken]))).rejects.toThrow(
      /invalid byte sequence/,
    );
    expect((await readProjection(pool)).rooms.size).toBe(0);
  });
});
