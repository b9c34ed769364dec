import { type RoomEvent, type RoomEventData, topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { snapshotOf } from '@realtime-service/room-model/snapshot';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { added, chunkOf, created, projection, removed, roomRecord, startDatabase } from '../../test/given.ts';
import { readProjection } from '../../test/read-projection.ts';
import {
  applyChunk,
  type ChunkRecord,
  createPostgresStore,
  type DeadLetter,
  type DeadRecord,
  type Pool,
} from '../index.ts';

const room = 'room-42';
const dead: DeadRecord = { reason: 'invalid_data', message: 'lost', key: Buffer.from(room), value: null, headers: {} };

/** What stands at an offset: a fact, one that was lost when it came, or an action on what stands so far back. */
type Told =
  | { readonly kind: 'fact'; readonly event: RoomEvent; readonly id: string }
  | { readonly kind: 'lost'; readonly event: RoomEvent; readonly id: string }
  | { readonly kind: 'retry'; readonly back: number }
  | { readonly kind: 'discard'; readonly back: number };

const anyEvent: fc.Arbitrary<RoomEvent> = fc.oneof(
  fc.constantFrom('ann', 'bob').map((userId) => added(room, userId)),
  fc.constantFrom('ann', 'bob').map((userId) => removed(room, userId)),
  fc
    .constantFrom('ann', 'bob')
    .map((userId): RoomEvent => ({ type: 'member.banned', subject: room, data: { userId, privilege: 'data' } })),
  fc
    .constantFrom('ann', 'bob')
    .map((userId): RoomEvent => ({ type: 'member.updated', subject: room, data: { userId, displayName: 'new' } })),
  fc
    .constantFrom('ann', 'bob')
    .map((userId): RoomEvent => ({ type: 'member.updated', subject: room, data: { userId, role: 'host' } })),
  fc.constant<RoomEvent>({ type: 'room.updated', subject: room, data: { name: 'Retro' } }),
  fc.constant<RoomEvent>({ type: 'room.locked', subject: room, data: undefined }),
  fc.constant(created(room)),
  fc.subarray(['ann', 'bob']).map(
    (named): RoomEvent => ({
      type: 'room.created',
      subject: room,
      data: { members: named.map((userId) => ({ userId, role: 'listener' })) },
    }),
  ),
);
/** Few ids, so that some come twice: told again after they were lost, and the other way round. */
const anyId = fc.integer({ min: 0, max: 8 }).map((n) => `id-${n}`);
/** Also what is yet to come, which no action is about. */
const anyDistance = fc.constantFrom(1, 2, 3, 4, 5, -1);
const anyTold: fc.Arbitrary<Told> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('fact' as const), event: anyEvent, id: anyId }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('lost' as const), event: anyEvent, id: anyId }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('retry' as const), back: anyDistance }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('discard' as const), back: anyDistance }) },
);

/** The log as it is decoded; of the letters every third cannot be read by now either. */
const recordsOf = (told: readonly Told[]): ChunkRecord[] => {
  const lost = (offset: number): ChunkRecord => {
    const { event, id } = told[offset] as Extract<Told, { kind: 'lost' }>;
    const unreadable = { key: room, type: event.type, data: event.data };
    return { ...roomRecord(offset, event, { id }), factKey: null, content: { kind: 'dead', dead, unreadable } };
  };
  const decode = ({ offset }: DeadLetter): ChunkRecord => {
    const at = Number(offset);
    const { event, id } = told[at] as Extract<Told, { kind: 'lost' }>;
    return at % 3 > 0 ? roomRecord(at, event, { id }) : lost(at);
  };
  return told.map((each, offset): ChunkRecord => {
    if (each.kind === 'fact') return roomRecord(offset, each.event, { id: each.id });
    if (each.kind === 'lost') return lost(offset);
    const of = Math.max(offset - each.back, 0);
    const data: RoomEventData<'dead_letter.retried'> = {
      topic: topics.roomEvents,
      partition: 0,
      offset: String(of),
    };
    if (each.kind === 'discard') return roomRecord(offset, { type: 'dead_letter.discarded', subject: room, data });
    const letter = { topic: topics.roomEvents, partition: 0, offset: BigInt(of) };
    const retry = roomRecord(offset, { type: 'dead_letter.retried', subject: room, data });
    return { ...retry, content: { kind: 'retry', letter, decode, outcome: null } };
  });
};

describeWith(['postgres'], 'dead letters in chunks', () => {
  let pool: Pool;
  beforeAll(async () => {
    pool = (await startDatabase()).pool;
  });
  afterAll(() => pool.end());

  const apply = async (records: readonly ChunkRecord[], size: number): Promise<void> => {
    for (let at = 0; at < records.length; at += size)
      await applyChunk(createPostgresStore(pool), chunkOf(records.slice(at, at + size)));
  };
  const state = async (): Promise<unknown> => {
    const { rows } = await pool.query(
      'select "offset", status, reason, settled_offset from dead_letters order by "offset"',
    );
    return { rows: snapshotOf(await readProjection(pool)), letters: rows };
  };
  const rewind = () =>
    pool.query(
      `truncate rooms, members, bans, users, ended_logins, suspects, applied_facts, marks;
        update log_positions set next_offset = 0, newest_recorded_at = 'epoch' where projection = '${projection}'`,
    );
  const forget = async (): Promise<void> => {
    await rewind();
    await pool.query('truncate dead_letters');
  };

  test('however the log is cut, and read anew with all letters settled, the same rows', async () => {
    let [retried, discarded] = [0, 0];
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyTold, { minLength: 6, maxLength: 16 }),
        fc.integer({ min: 2, max: 5 }),
        async (told, size) => {
          const records = recordsOf(told);
          await forget();
          await apply(records, 1);
          const oneByOne = await state();
          await forget();
          await apply(records, size);
          expect(await state()).toEqual(oneByOne);
          await forget();
          await apply(records, records.length);
          expect(await state()).toEqual(oneByOne);
          // A rebuild: the letters are settled before the log is read to them.
          await rewind();
          await apply(records, size);
          expect(await state()).toEqual(oneByOne);
          const { letters } = oneByOne as { letters: { status: string }[] };
          retried += letters.filter(({ status }) => status === 'retried').length;
          discarded += letters.filter(({ status }) => status === 'discarded').length;
        },
      ),
      { numRuns: 40 },
    );
    expect(Math.min(retried, discarded)).toBeGreaterThan(0);
  }, 120_000);
});
