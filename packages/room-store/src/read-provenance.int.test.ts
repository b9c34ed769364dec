import { type RoomEvent, topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import type { Origin } from '@realtime-service/room-model';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { added, chunkOf, created, joined, livekitRecord, removed, roomRecord, startDatabase } from '../test/given.ts';
import {
  applyChunk,
  type ChunkRecord,
  createPostgresStore,
  createSeatTaker,
  type FactsQuery,
  type Pool,
  readFacts,
  readProvenance,
} from './index.ts';

const ann: FactsQuery = { roomId: 'r', userId: 'ann', loginId: null };
const stranger: FactsQuery = { roomId: 'nowhere', userId: 'zoe', loginId: 'l' };
const tomorrow = new Date(Date.now() + 86_400_000).toISOString();

/** What a record says that has become a dead letter. */
const unreadable = (offset: number, { subject, type, data }: RoomEvent, at = {}): ChunkRecord => ({
  ...roomRecord(offset, { type, subject, data } as RoomEvent, at),
  factKey: null,
  content: {
    kind: 'dead',
    dead: { reason: 'invalid_data', message: 'broken', key: null, value: null, headers: {} },
    unreadable: { key: subject, type, data },
  },
});

const banned = (userId: string, privilege: 'join' | 'data' | 'publish_audio', until?: string): RoomEvent => ({
  type: 'member.banned',
  subject: 'r',
  data: { userId, privilege, until, reason: 'Shouting', by: undefined },
});
const updated = (userId: string): RoomEvent => ({
  type: 'member.updated',
  subject: 'r',
  data: { userId, role: 'host' },
});
const endedLogin = (sid: string): RoomEvent => ({
  type: 'login.ended',
  subject: 'ann',
  data: { userId: 'ann', sid },
});

/** Of the room, in partition 2: the offset is the place in the list. */
const ofRoom: readonly ((offset: number) => ChunkRecord)[] = [
  (at) => roomRecord(at, created('r'), { partition: 2 }),
  (at) => roomRecord(at, added('r', 'ann'), { partition: 2 }),
  (at) => roomRecord(at, banned('ann', 'publish_audio', tomorrow), { partition: 2 }),
  (at) => roomRecord(at, banned('ann', 'data'), { partition: 2 }),
  (at) =>
    roomRecord(
      at,
      { type: 'member.unbanned', subject: 'r', data: { userId: 'ann', privilege: 'data', by: undefined } },
      { partition: 2 },
    ),
  (at) => unreadable(at, updated('ann'), { partition: 2 }),
  (at) => roomRecord(at, added('r', 'bob'), { partition: 2 }),
  (at) => roomRecord(at, banned('bob', 'join'), { partition: 2 }),
  (at) => unreadable(at, updated('bob'), { partition: 2 }),
  (at) => unreadable(at, { type: 'room.locked', subject: 'r', data: undefined }, { partition: 2 }),
  (at) =>
    roomRecord(
      at,
      { type: 'room.updated', subject: 'r', data: { maxParticipants: 3, name: 'Stand-up' } },
      { partition: 2 },
    ),
];
/** Of ann, in partition 5. */
const ofAnn: readonly ((offset: number) => ChunkRecord)[] = [
  (at) =>
    roomRecord(at, { type: 'user.disabled', subject: 'ann', data: { userId: 'ann' } }, { id: `u${at}`, partition: 5 }),
  (at) => roomRecord(at, endedLogin('l1'), { id: `u${at}`, partition: 5 }),
  (at) =>
    roomRecord(at, { type: 'user.enabled', subject: 'ann', data: { userId: 'ann' } }, { id: `u${at}`, partition: 5 }),
  (at) => roomRecord(at, endedLogin('l2'), { id: `u${at}`, partition: 5 }),
  (at) => unreadable(at, endedLogin('l3'), { id: `u${at}`, partition: 5 }),
];

describeWith(['postgres'], 'provenance', () => {
  let pool: Pool;
  const apply = async (records: readonly ChunkRecord[]): Promise<void> =>
    void (await applyChunk(createPostgresStore(pool), chunkOf(records)));

  beforeAll(async () => {
    ({ pool } = await startDatabase());
    await apply(ofRoom.map((record, at) => record(at)));
    await apply(ofAnn.map((record, at) => record(at)));
    await apply([livekitRecord(0, joined('r', 'ann'), { partition: 2 })]);
  });
  afterAll(() => pool.end());

  const read = (query = ann) => readProvenance(pool, query);
  const place = ({ eventId, topic, partition, offset, timeMs }: Origin): readonly unknown[] => [
    topic,
    partition,
    Number(offset),
    eventId,
    timeMs,
  ];
  const at = (partition: number, offset: number, id = `e${offset}`) => [
    topics.roomEvents,
    partition,
    offset,
    id,
    1_700_000_000_000 + offset,
  ];

  describe('names for each fact the record that it was last changed by:', () => {
    test('room and member', async () => {
      const { room, member } = (await read()).provenance;
      expect(room).toMatchObject({ state: 'open', maxParticipants: 3, isLocked: false });
      expect(room && place(room.origin)).toEqual(at(2, 10));
      expect(member).toMatchObject({ role: 'speaker', isRemoved: false });
      expect(member && place(member.origin)).toEqual(at(2, 1));
    });

    test('bans, those that were lifted, too, and nobody else’s', async () => {
      const { bans } = (await read()).provenance;
      expect(bans.map(({ privilege, isLifted, origin }) => [privilege, isLifted, place(origin)])).toEqual([
        ['data', true, at(2, 4)],
        ['publish_audio', false, at(2, 2)],
      ]);
      expect(bans[1]).toMatchObject({ untilMs: Date.parse(tomorrow), reason: 'Shouting' });
    });

    test('the user', async () => {
      const { user } = (await read()).provenance;
      expect(user?.isDisabled).toBe(false);
      expect(user && place(user.origin)).toEqual(at(5, 2, 'u2'));
    });

    test('the end of the login that was asked about, and of no other', async () => {
      const ended = async (loginId: string | null) => (await read({ ...ann, loginId })).provenance.endedLogin;
      const [first, second] = [await ended('l1'), await ended('l2')];
      expect(first && place(first.origin)).toEqual(at(5, 1, 'u1'));
      expect(second && place(second.origin)).toEqual(at(5, 3, 'u3'));
      expect(await ended('l3')).toBeNull();
      expect(await ended(null)).toBeNull();
    });

    test('doubts that concern the person, and that are open: the one about the header has ended', async () => {
      const doubts = async (query: FactsQuery) =>
        (await read(query)).provenance.suspects.map(({ scope, detail, origin }) => [scope, detail, place(origin)]);
      expect(await doubts(ann)).toEqual([['member', '', at(2, 5)]]);
      expect(await doubts({ ...ann, loginId: 'l3' })).toEqual([
        ['login', 'l3', at(5, 4, 'u4')],
        ['member', '', at(2, 5)],
      ]);
      expect(await doubts({ ...ann, userId: 'bob' })).toEqual([['member', '', at(2, 8)]]);
    });

    test('own sessions, which have none but LiveKit’s sid', async () => {
      const { sessions } = (await read()).provenance;
      expect(sessions).toMatchObject([{ participantSid: 'PA_ann', identity: 'ann', isLive: true, userId: 'ann' }]);
    });

    test('and none where nothing is known, though rows are there to be locked', async () => {
      await pool.query(`insert into rooms (room_id) values ('nowhere'); insert into users (user_id) values ('zoe')`);
      const { answer, provenance } = await read(stranger);
      expect(provenance).toEqual({
        room: null,
        member: null,
        bans: [],
        user: null,
        endedLogin: null,
        suspects: [],
        sessions: [],
      });
      expect(answer.facts).toMatchObject({ room: null, member: null, user: null, seats: null });
    });
  });

  test.each([ann, { ...ann, loginId: 'l1' }, { ...ann, userId: 'bob' }, stranger])(
    'facts are those of a decision, but for the seats: %j',
    async (query) => {
      const [decided] = await readFacts(pool, [query]);
      const { answer, provenance } = await read(query);
      expect({ ...answer.facts, seats: null }).toEqual(decided?.facts);
      expect(answer.isRoomLive).toBe(decided?.isRoomLive);
      expect(provenance.suspects.length > 0).toBe(decided?.facts.doubt !== null);
      expect(provenance.endedLogin !== null).toBe(decided?.facts.isLoginEnded);
    },
  );

  test('seats are those that a join would find, and none is taken', async () => {
    const leases = async () => (await pool.query('select identity from seat_leases')).rowCount;
    for (const userId of ['ann', 'bob']) {
      const { answer } = await read({ ...ann, userId });
      expect(await leases()).toBe(0);
      const request = { ...ann, userId, identity: userId, deviceId: null };
      const refuse = () => ({
        kind: 'deny' as const,
        code: 'room_full' as const,
        reason: 'full' as const,
        evidence: 'fact' as const,
        opensAtMs: null,
        message: null,
      });
      const seated = await createSeatTaker(pool, { deadlineMs: 2_500, leaseSeconds: 140 })(request, refuse);
      expect(answer.facts.seats).toEqual(seated.answer.facts.seats);
      expect(answer.facts.seats).toMatchObject({ takenByOthers: userId === 'ann' ? 0 : 1, isHeld: userId === 'ann' });
    }
  });

  test('all is of one moment: what is committed meanwhile does not show in a part of it', async () => {
    const other = await pool.connect();
    await other.query('begin; lock table seat_leases in access exclusive mode');
    const reading = read({ ...ann, userId: 'bob' });
    const isWaiting = `select from pg_locks where relation = 'seat_leases'::regclass and not granted`;
    await vi.waitFor(async () => expect((await pool.query(isWaiting)).rowCount).toBe(1), { timeout: 2_000 });
    await apply([livekitRecord(1, joined('r', 'cleo'), { partition: 2 })]);
    await apply([roomRecord(ofRoom.length, removed('r', 'bob'), { partition: 2 })]);
    await other.query('commit');
    other.release();
    const { answer, provenance } = await reading;
    expect(answer.facts.seats).toMatchObject({ takenByOthers: 1 });
    expect(provenance.member?.isRemoved).toBe(false);
    const later = await read({ ...ann, userId: 'bob' });
    expect(later.answer.facts.seats).toMatchObject({ takenByOthers: 2 });
    expect(later.provenance.member?.isRemoved).toBe(true);
  });
});
