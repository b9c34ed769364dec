import type { RoomEvent } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { evolveRoom, snapshotOf, WorkingSet } from '@realtime-service/room-model';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  added,
  chunkOf,
  created,
  joined,
  livekitRecord,
  projection,
  removed,
  roomRecord,
  startDatabase,
} from '../test/given.ts';
import {
  applyChunk,
  type ChunkRecord,
  type ChunkResult,
  createPostgresStore,
  type Pool,
  readPositions,
  readProjection,
} from './index.ts';
import { memberTable, roomTable, type Table } from './rows.ts';

describeWith(['postgres'], 'applying a chunk', () => {
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());
  beforeEach(async () => {
    const { rows } = await pool.query<{ name: string }>(
      `select tablename as name from pg_tables where schemaname = 'public' and tablename not in ('schema_migrations', 'log_positions')`,
    );
    await pool.query(`truncate ${rows.map(({ name }) => name).join(', ')}`);
    await pool.query('update log_positions set next_offset = 0');
  });

  const apply = (records: readonly ChunkRecord[], from?: number): Promise<ChunkResult> =>
    applyChunk(createPostgresStore(pool), chunkOf(records, from));
  const rowsOf = async <T>(table: Table<T>): Promise<T[]> =>
    (await pool.query(`select * from ${table.name}`)).rows.map(table.read);
  const nextOffset = async (): Promise<bigint | undefined> =>
    (await readPositions(pool, projection)).find(
      ({ topic, partition }) => topic.includes('room-events') && partition === 0,
    )?.nextOffset;

  describe('once', () => {
    test('changes state, advances the offset, and remembers the facts', async () => {
      const result = await apply([roomRecord(0, created('r')), roomRecord(1, added('r', 'ann'))]);
      expect(result).toMatchObject({ kind: 'applied', nextOffset: 2n, counts: { applied: 2, repeated: 0 } });
      expect(await rowsOf(memberTable)).toMatchObject([
        { roomId: 'r', userId: 'ann', role: 'speaker', origin: { eventId: 'e1', offset: 1n } },
      ]);
      expect(await nextOffset()).toBe(2n);
    });

    test('a delivery that repeats changes nothing', async () => {
      const records = [roomRecord(0, created('r')), roomRecord(1, added('r', 'ann'))];
      await apply(records);
      expect(await apply(records)).toMatchObject({
        kind: 'applied',
        nextOffset: 2n,
        counts: { applied: 0, repeated: 2 },
      });
    });

    test('a producer that sends a fact again does not bring a removed person back', async () => {
      await apply([
        roomRecord(0, created('r')),
        roomRecord(1, added('r', 'ann'), { id: 'add' }),
        roomRecord(2, removed('r', 'ann')),
      ]);
      await apply([roomRecord(3, added('r', 'ann'), { id: 'add' })]);
      expect(await rowsOf(memberTable)).toMatchObject([{ userId: 'ann', isRemoved: true }]);
    });

    test('the same fact twice in one chunk counts once', async () => {
      const result = await apply([
        roomRecord(0, added('r', 'ann'), { id: 'same' }),
        roomRecord(1, removed('r', 'ann')),
        roomRecord(2, added('r', 'ann'), { id: 'same' }),
      ]);
      expect(result).toMatchObject({ counts: { applied: 2, repeated: 1 } });
      expect(await rowsOf(memberTable)).toMatchObject([{ isRemoved: true }]);
    });

    test('a batch without visible records advances the offset', async () => {
      expect(await apply([], 0)).toMatchObject({ kind: 'applied', nextOffset: 1n });
      expect(await nextOffset()).toBe(1n);
    });
  });

  describe('a consumer that does not know better', () => {
    test('a zombie applies nothing that another has applied', async () => {
      const records = [roomRecord(0, created('r')), roomRecord(1, added('r', 'ann'))];
      const results = await Promise.all([apply(records), apply(records)]);
      const counts = results.map((result) => (result.kind === 'applied' ? result.counts.applied : -1));
      expect(counts.sort()).toEqual([0, 2]);
    });

    test('one that is ahead of the database is sent back, and nothing is applied', async () => {
      expect(await apply([roomRecord(5, added('r', 'ann'))])).toEqual({ kind: 'behind', nextOffset: 0n });
      expect(await rowsOf(memberTable)).toEqual([]);
    });
  });

  test('a failure in the middle leaves nothing behind', async () => {
    const unstorable = added('r', 'ann');
    const broken = {
      ...roomRecord(1, unstorable),
      factKey: null,
      origin: { ...roomRecord(1, unstorable).origin, eventId: 'nul\0' },
    };
    await expect(apply([roomRecord(0, created('r')), broken])).rejects.toThrow(/invalid byte sequence/);
    expect(await rowsOf(roomTable)).toEqual([]);
    expect(await nextOffset()).toBe(0n);
  });

  describe('marks', () => {
    const marks = async () =>
      (await pool.query('select room_id, identity, cause from marks order by room_id, identity')).rows;

    test('a removal asks about each live session of that person, and of nobody else', async () => {
      await apply([livekitRecord(0, joined('r', 'ann')), livekitRecord(1, joined('r', 'bob'))]);
      await pool.query('truncate marks');
      await apply([roomRecord(0, created('r')), roomRecord(1, removed('r', 'ann'))]);
      expect(await marks()).toContainEqual({ room_id: 'r', identity: 'ann', cause: 'member.removed' });
      expect(await marks()).not.toContainEqual(expect.objectContaining({ identity: 'bob' }));
    });

    test('an entry is always asked about', async () => {
      await apply([livekitRecord(0, joined('r', 'ann'))]);
      expect(await marks()).toEqual([{ room_id: 'r', identity: 'ann', cause: 'participant_joined' }]);
    });

    test('a disabled user is asked about in every room', async () => {
      await apply([livekitRecord(0, joined('r1', 'ann')), livekitRecord(1, joined('r2', 'ann'))]);
      await pool.query('truncate marks');
      await apply([roomRecord(0, { type: 'user.disabled', subject: 'ann', data: { userId: 'ann' } })]);
      expect((await marks()).map(({ room_id }) => room_id)).toEqual(['r1', 'r2']);
    });
  });

  test('the tables equal the pure fold, however the log is cut into chunks', async () => {
    const room = fc.constantFrom('r1', 'r2', 'é\u0301');
    const userId = fc.constantFrom('ann', 'bob', 'cleo');
    const role = fc.constantFrom('host', 'speaker', 'listener');
    const event = fc.oneof(
      fc.record({
        type: fc.constant('room.created'),
        subject: room,
        data: fc.record(
          {
            name: fc.string({ maxLength: 5, unit: 'grapheme' }).filter((name) => !name.includes('\0')),
            members: fc.uniqueArray(fc.record({ userId, role }), { selector: (member) => member.userId, maxLength: 2 }),
          },
          { requiredKeys: [] },
        ),
      }),
      fc.record({
        type: fc.constantFrom('room.locked', 'room.unlocked', 'room.closed'),
        subject: room,
        data: fc.constant(undefined),
      }),
      fc.record({
        type: fc.constant('room.updated'),
        subject: room,
        data: fc.record({ maxParticipants: fc.option(fc.integer({ min: 1, max: 9 })) }, { requiredKeys: [] }),
      }),
      fc.record({ type: fc.constant('member.added'), subject: room, data: fc.record({ userId, role }) }),
      fc.record({ type: fc.constant('member.removed'), subject: room, data: fc.record({ userId }) }),
      fc.record({
        type: fc.constant('member.banned'),
        subject: room,
        data: fc.record({
          userId,
          privilege: fc.constantFrom('join', 'data'),
          until: fc.constantFrom('2030-01-01T00:00:00Z', undefined),
        }),
      }),
      fc.record({
        type: fc.constantFrom('user.disabled', 'user.enabled'),
        subject: fc.constant('ann'),
        data: fc.constant({ userId: 'ann' }),
      }),
      fc.record({
        type: fc.constant('login.ended'),
        subject: fc.constant('ann'),
        data: fc.constant({ userId: 'ann', sid: 's' }),
      }),
    );
    await fc.assert(
      fc
        .asyncProperty(
          fc.array(fc.tuple(event, fc.option(fc.bigInt({ min: 0n, max: 5n })), fc.nat(3)), {
            minLength: 1,
            maxLength: 30,
          }),
          async (given) => {
            const records = given.map(([each, sequence], offset) => {
              const plain = roomRecord(offset, each as RoomEvent);
              return { ...plain, origin: { ...plain.origin, sequence } };
            });
            const model = new WorkingSet();
            for (const { content, origin } of records)
              if (content.kind === 'room_event')
                for (const change of evolveRoom(model, content.event, origin)) model.put(change);

            let start = 0;
            for (const [at, [, , cut]] of given.entries())
              if (cut === 0 || at === given.length - 1) {
                await apply(records.slice(start, at + 1));
                start = at + 1;
              }
            expect(snapshotOf(await readProjection(pool))).toEqual(snapshotOf(model));
          },
        )
        .beforeEach(async () => {
          await pool.query('truncate rooms, members, bans, users, ended_logins, suspects, applied_facts, marks');
          await pool.query('update log_positions set next_offset = 0');
        }),
      { numRuns: 60 },
    );
  }, 60_000);
});
