import { setImmediate } from 'node:timers/promises';
import type { RoomEvent } from '@realtime-service/contracts';
import { evolvePresence, evolveRoom, type Member, WorkingSet } from '@realtime-service/room-model';
import { snapshotOf } from '@realtime-service/room-model/snapshot';
import fc from 'fast-check';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { ChunkWrites } from '../src/apply/chunk-writes.ts';
import { touchedBy } from '../src/apply/touched.ts';
import {
  type Announcement,
  applyChunk,
  type ChunkRecord,
  type ChunkResult,
  LogReplacedError,
  type Mark,
  type RoomStore,
  type StoredPosition,
} from '../src/index.ts';
import { added, chunkOf, created, joined, livekitRecord, removed, roomRecord } from './records.ts';

/** A store and what can be seen of it from outside. */
export interface StoreUnderTest {
  readonly store: RoomStore;
  readonly projection: () => Promise<WorkingSet>;
  /** By room and identity. */
  readonly marks: () => Promise<readonly Pick<Mark, 'roomId' | 'identity' | 'cause'>[]>;
  /** What was announced, by event id. */
  readonly announced: () => Promise<Readonly<Record<string, unknown>>>;
  readonly forgetMarks: () => Promise<unknown>;
  /** In how many seconds each question is due. */
  readonly markWaits: () => Promise<readonly number[]>;
  /** How many seconds each order has left. */
  readonly orderLives: () => Promise<readonly number[]>;
  /** Nothing in it, every partition at 0. */
  readonly empty: () => Promise<void>;
}

const disabled = (userId: string): RoomEvent => ({ type: 'user.disabled', subject: userId, data: { userId } });

const day = 24 * 3_600_000;

/** What every store promises. */
export const storeContract = (open: () => StoreUnderTest): void => {
  beforeEach(() => open().empty());

  const apply = (records: readonly ChunkRecord[], from?: number): Promise<ChunkResult> =>
    applyChunk(open().store, chunkOf(records, from));
  const members = async (): Promise<Member[]> => [...(await open().projection()).members.values()];
  const position = async (): Promise<StoredPosition | undefined> =>
    (await open().store.readPositions()).find(
      ({ topic, partition }) => topic.includes('room-events') && partition === 0,
    );
  const nextOffset = async (): Promise<bigint | undefined> => (await position())?.nextOffset;

  describe('once', () => {
    test('changes state, advances the offset, and remembers the facts', async () => {
      const result = await apply([roomRecord(0, created('r')), roomRecord(1, added('r', 'ann'))]);
      expect(result).toMatchObject({ kind: 'applied', nextOffset: 2n, counts: { applied: 2, repeated: 0 } });
      expect(await members()).toMatchObject([
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
      expect(await members()).toMatchObject([{ userId: 'ann', isRemoved: true }]);
    });

    test('nor does one whose records are dated more than a week before those of others', async () => {
      const old = (record: ChunkRecord): ChunkRecord => ({ ...record, recordedAtMs: record.recordedAtMs - 8 * day });
      await apply([
        roomRecord(0, created('r')),
        old(roomRecord(1, added('r', 'ann'), { id: 'add' })),
        roomRecord(2, removed('r', 'ann')),
      ]);
      expect(await members()).toMatchObject([{ userId: 'ann', isRemoved: true }]);
      const result = await apply([old(roomRecord(3, added('r', 'ann'), { id: 'add' }))]);
      expect(result).toMatchObject({ counts: { applied: 0, repeated: 1 } });
      expect(await members()).toMatchObject([{ userId: 'ann', isRemoved: true }]);
    });

    test('the same fact twice in one chunk counts once', async () => {
      const result = await apply([
        roomRecord(0, added('r', 'ann'), { id: 'same' }),
        roomRecord(1, removed('r', 'ann')),
        roomRecord(2, added('r', 'ann'), { id: 'same' }),
      ]);
      expect(result).toMatchObject({ counts: { applied: 2, repeated: 1 } });
      expect(await members()).toMatchObject([{ isRemoved: true }]);
    });

    test('a dead letter counts from its retry on, however old it is', async () => {
      const later = (record: ChunkRecord): ChunkRecord => ({
        ...record,
        recordedAtMs: record.recordedAtMs + 10 * day,
      });
      const lost = roomRecord(0, added('r', 'ann'), { id: 'add' });
      const dead = { reason: 'invalid_data', message: '', key: null, value: null, headers: {} } as const;
      const unreadable = { key: 'r', type: undefined, data: undefined };
      await apply([{ ...lost, factKey: null, content: { kind: 'dead', dead, unreadable } }]);
      const retry = { kind: 'retry', letter: lost.origin, decode: () => lost, outcome: null } as const;
      await apply([{ ...later(roomRecord(1, created('r'))), content: retry }]);
      expect(await members()).toMatchObject([{ userId: 'ann', isRemoved: false }]);
      await apply([later(roomRecord(2, removed('r', 'ann')))]);
      const again = await apply([later(roomRecord(3, added('r', 'ann'), { id: 'add' }))]);
      expect(again).toMatchObject({ counts: { applied: 0, repeated: 1 } });
      expect(await members()).toMatchObject([{ userId: 'ann', isRemoved: true }]);
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
      expect(await members()).toEqual([]);
    });
  });

  describe('the last record that was applied', () => {
    const at = (offset: number) => ({
      offset: BigInt(offset),
      recordedAtMs: roomRecord(offset, created('r')).recordedAtMs,
    });
    /** The record that another log has at this offset. */
    const another = (offset: number): ChunkRecord => ({
      ...roomRecord(offset, added('r', 'eve'), { id: `another-${offset}` }),
      recordedAtMs: at(offset).recordedAtMs + 1,
    });

    test('is known with the position, also where nothing visible followed it', async () => {
      expect(await position()).toMatchObject({ nextOffset: 0n, last: null });
      await apply([], 0);
      expect(await position()).toMatchObject({ nextOffset: 1n, last: null });
      await apply([roomRecord(1, created('r')), roomRecord(2, added('r', 'ann'))]);
      expect(await position()).toMatchObject({ nextOffset: 3n, last: at(2) });
      await apply([], 3);
      expect(await position()).toMatchObject({ nextOffset: 4n, last: at(2) });
    });

    test.each([
      ['alone', 2, 3],
      ['before what was not applied yet', 2, 5],
      ['after what comes again', 0, 3],
      ['in the middle', 0, 5],
    ])('tells another log: %s, nothing of it is applied', async (_, from, to) => {
      await apply(
        [0, 1, 2].map((offset) => roomRecord(offset, offset === 0 ? created('r') : added('r', `u${offset}`))),
      );
      const before = snapshotOf(await open().projection());
      const records = Array.from({ length: to - from }, (__, place) => another(from + place));
      await expect(apply(records)).rejects.toThrow(LogReplacedError);
      await expect(apply(records)).rejects.toThrow(
        'Offset 2 of partition 0 of realtime.room-events.v1 was applied as a record of 2023-11-14T22:13:20.002Z, and is one of 2023-11-14T22:13:20.003Z now: it is another log',
      );
      expect(snapshotOf(await open().projection())).toEqual(before);
      expect(await position()).toMatchObject({ nextOffset: 3n, last: at(2) });
      expect(await apply([2, 3].map((offset) => roomRecord(offset, added('r', `u${offset}`))))).toMatchObject({
        counts: { applied: 1, repeated: 1 },
      });
    });

    test.each([
      ['nothing visible', 1, []],
      ['nothing visible, and others after it', 1, [2, 3]],
      ['nothing visible, and others around it', 0, [0, 2]],
    ])('tells another log that has %s at its offset', async (_, from, offsets) => {
      await apply([roomRecord(0, created('r')), roomRecord(1, added('r', 'ann'))]);
      await apply([], 2);
      const before = snapshotOf(await open().projection());
      const records = offsets.map((offset) => roomRecord(offset, added('r', 'eve'), { id: `another-${offset}` }));
      await expect(apply(records, from)).rejects.toThrow(LogReplacedError);
      await expect(apply(records, from)).rejects.toThrow(
        'Offset 1 of partition 0 of realtime.room-events.v1 was applied as a record of 2023-11-14T22:13:20.001Z, and is none now: it is another log, or was compacted, which loses facts',
      );
      expect(snapshotOf(await open().projection())).toEqual(before);
      expect(await position()).toMatchObject({ nextOffset: 3n, last: at(1) });
    });

    test('is not looked for by what ends before its offset or begins after it, and is known anew with the next one', async () => {
      await apply([0, 1, 2].map((offset) => roomRecord(offset, added('r', `u${offset}`))));
      await apply([], 3);
      expect(await apply([another(0), another(1)])).toMatchObject({ counts: { applied: 0, repeated: 2 } });
      expect(await apply([], 3)).toMatchObject({ kind: 'applied', nextOffset: 4n });
      expect(await apply([another(5)], 3)).toMatchObject({ counts: { applied: 1, repeated: 0 } });
      expect((await position())?.last).toEqual({ offset: 5n, recordedAtMs: another(5).recordedAtMs });
    });

    test('is not known where its time was guessed: a later release may read another one out of it', async () => {
      const guessed = (offset: number): ChunkRecord => ({ ...another(offset), isTimeGuessed: true });
      await apply([roomRecord(0, created('r')), guessed(1)]);
      expect(await position()).toMatchObject({ nextOffset: 2n, last: null });
      expect(await apply([another(0), roomRecord(1, added('r', 'ann'))])).toMatchObject({ counts: { repeated: 2 } });
      await apply([guessed(2), roomRecord(3, added('r', 'bob'))]);
      expect(await position()).toMatchObject({ nextOffset: 4n, last: at(3) });
      await apply([guessed(4)]);
      expect(await position()).toMatchObject({ nextOffset: 5n, last: null });
    });

    test('is not taken for a dead letter that stands at the same offset elsewhere', async () => {
      const dead = { reason: 'invalid_data', message: '', key: null, value: null, headers: {} } as const;
      const unreadable = { key: 'r', type: undefined, data: undefined };
      const letter = { ...another(0), factKey: null, content: { kind: 'dead', dead, unreadable } } as const;
      const elsewhere = { ...letter, origin: { ...letter.origin, partition: 1 } };
      await apply([elsewhere]);
      await apply([roomRecord(0, created('r'))]);
      const decode = () => ({ ...elsewhere, content: roomRecord(0, added('r', 'ann')).content });
      const retry = { kind: 'retry', letter: elsewhere.origin, decode, outcome: null } as const;
      expect(await apply([{ ...roomRecord(1, created('r')), content: retry }])).toMatchObject({ nextOffset: 2n });
      expect(await members()).toMatchObject([{ userId: 'ann' }]);
      expect((await position())?.last).toEqual(at(1));
    });
  });

  test('a failure in the middle leaves nothing behind', async () => {
    const { store } = open();
    const records = [roomRecord(0, created('r'))];
    const failing: RoomStore = {
      ...store,
      transaction: (work) =>
        store.transaction((transaction) =>
          work({
            ...transaction,
            advance: async (at, position) => {
              await transaction.advance(at, position);
              throw new Error('the process dies here');
            },
          }),
        ),
    };
    await expect(applyChunk(failing, chunkOf(records))).rejects.toThrow('dies here');
    expect((await open().projection()).rooms.size).toBe(0);
    expect(await nextOffset()).toBe(0n);
    expect(await apply(records)).toMatchObject({ counts: { applied: 1, repeated: 0 } });
  });

  describe('locks', () => {
    /** A transaction over `records` that stays open, with its locks, until it is let go. */
    const holding = async (records: readonly ChunkRecord[]) => {
      const locked = Promise.withResolvers<void>();
      const letGo = Promise.withResolvers<void>();
      const ended = open().store.transaction(async (transaction) => {
        await transaction.lock(touchedBy(records));
        locked.resolve();
        await letGo.promise;
        const set = await transaction.load(touchedBy(records));
        const writes = new ChunkWrites();
        for (const record of records) {
          for (const change of changesOf(set, record)) writes.add(change, set, record);
          writes.addRecord(record);
        }
        await transaction.write(chunkOf(records), writes);
      });
      await locked.promise;
      return {
        end: async () => {
          letGo.resolve();
          await ended;
        },
      };
    };
    const changesOf = (set: WorkingSet, { content, recordedAtMs }: ChunkRecord) =>
      content.kind === 'livekit' ? evolvePresence(set, content.fact, recordedAtMs) : [];

    test.each([
      ['a removal', removed('r', 'ann')],
      ["a person's end", disabled('ann')],
    ])('%s that waited for an entry finds whom that let in', async (_, end) => {
      const entry = await holding([livekitRecord(0, joined('r', 'ann'))]);
      const ending = apply([roomRecord(0, end)]);
      // It comes as far as it can.
      await setImmediate();
      await entry.end();
      await ending;
      expect(await open().marks()).toContainEqual({ roomId: 'r', identity: 'ann', cause: end.type });
    });

    test('who enters two rooms keeps neither waiting', async () => {
      await apply([livekitRecord(0, joined('r1', 'ann'))]);
      const first = await holding([livekitRecord(1, joined('r2', 'ann'))]);
      await apply([livekitRecord(1, joined('r3', 'ann'))]);
      await first.end();
    });
  });

  describe('marks', () => {
    test('a removal asks about each live session of that person, and of nobody else', async () => {
      await apply([livekitRecord(0, joined('r', 'ann')), livekitRecord(1, joined('r', 'bob'))]);
      await open().forgetMarks();
      await apply([roomRecord(0, created('r')), roomRecord(1, removed('r', 'ann'))]);
      expect(await open().marks()).toContainEqual({ roomId: 'r', identity: 'ann', cause: 'member.removed' });
      expect(await open().marks()).not.toContainEqual(expect.objectContaining({ identity: 'bob' }));
    });

    test.each(['participant_joined', 'participant_connection_aborted'] as const)(
      'an entry is always asked about: %s',
      async (type) => {
        await apply([livekitRecord(0, joined('r', 'ann'))]);
        await open().forgetMarks();
        await apply([livekitRecord(1, { ...joined('r', 'ann'), type })]);
        expect(await open().marks()).toEqual([{ roomId: 'r', identity: 'ann', cause: type }]);
      },
    );

    test('a disguised track is asked about, and changes nothing that is known of its publisher', async () => {
      const entry = joined('r', 'ann');
      await apply([livekitRecord(0, entry)]);
      await open().forgetMarks();
      const before = await open().store.readLiveRooms(['r']);
      await apply([livekitRecord(1, { ...entry, type: 'track_published', track: { source: 'CAMERA' } })]);
      expect(await open().marks()).toEqual([{ roomId: 'r', identity: 'ann', cause: 'track_published' }]);
      expect(await open().store.readLiveRooms(['r'])).toEqual(before);
    });

    test('a life of a room is asked about once, whatever told of it first, and so is a change of its schedule', async () => {
      const ofRoom = async () => (await open().marks()).filter(({ identity }) => identity === '');
      await apply([livekitRecord(0, joined('r', 'ann'))]);
      expect(await ofRoom()).toEqual([{ roomId: 'r', identity: '', cause: 'participant_joined' }]);
      await open().forgetMarks();
      await apply([livekitRecord(1, joined('r', 'bob'))]);
      expect(await ofRoom()).toEqual([]);
      await apply([roomRecord(0, created('r'))]);
      await open().forgetMarks();
      const updated = (offset: number, data: object) =>
        apply([roomRecord(offset, { type: 'room.updated', subject: 'r', data } as RoomEvent)]);
      await updated(1, { closesAt: '2030-01-01T00:00:00Z' });
      expect(await ofRoom()).toEqual([{ roomId: 'r', identity: '', cause: 'room.updated' }]);
      await open().forgetMarks();
      await updated(2, { closesAt: '2030-01-01T00:00:00Z', name: 'Standup' });
      expect(await ofRoom()).toEqual([]);
    });

    test.each([{ access: 'authenticated' }, { defaultRole: 'observer' }])(
      'a room that gives guests other rights is asked about: %j',
      async (data) => {
        await apply([roomRecord(0, created('r'))]);
        await open().forgetMarks();
        await apply([roomRecord(1, { type: 'room.updated', subject: 'r', data } as RoomEvent)]);
        expect(await open().marks()).toEqual([{ roomId: 'r', identity: '', cause: 'room.updated' }]);
      },
    );

    test('a disabled user is asked about in every room', async () => {
      await apply([livekitRecord(0, joined('r1', 'ann')), livekitRecord(1, joined('r2', 'ann'))]);
      await open().forgetMarks();
      await apply([roomRecord(0, { type: 'user.disabled', subject: 'ann', data: { userId: 'ann' } })]);
      expect((await open().marks()).map(({ roomId }) => roomId)).toEqual(['r1', 'r2']);
    });
  });

  describe('questions', () => {
    const soonMs = Date.now() + 60_000;
    const raise = (identity = 'ann', causedAtMs = 1_000) =>
      open().store.markIdentities('r', [identity], { cause: 'test', causedAtMs });
    const claimOne = async (seconds = 60): Promise<Mark> => {
      const [mark] = await open().store.claimMarks(1, seconds, 'oldest');
      if (mark === undefined) throw new Error('there was none to claim');
      return mark;
    };

    test('one is claimed once, until its claim expires', async () => {
      await raise();
      await claimOne(-1);
      const again = await claimOne();
      expect(again.attempts).toBe(2);
      expect(await open().store.claimMarks(1, 60, 'oldest')).toEqual([]);
    });

    const rights: Announcement = {
      eventId: 'rights-1',
      data: {
        participantSid: 'PA_ann',
        identity: 'ann',
        permissions: { publishSources: [], subscribe: true, publishData: false, hidden: false, moderate: false },
      },
    };
    const withPermission = (permission: { hidden: boolean }) => {
      const entry = joined('r', 'ann');
      return { ...entry, participant: { ...entry.participant, permission } };
    };
    /** The only question: about somebody in a live room. */
    const askAboutEntry = async () => {
      await apply([livekitRecord(0, joined('r', 'ann'))]);
      await open().forgetMarks();
      await raise();
    };

    test('what LiveKit was asked for is known to whoever claims the question next, until it is answered', async () => {
      await askAboutEntry();
      const first = await claimOne(-1);
      expect(first.announcement).toBe(null);
      expect(await open().store.noteAnnouncement(first, rights)).toBe(true);
      const second = await claimOne();
      expect(second.announcement).toEqual(rights);
      expect(await open().store.noteAnnouncement(first, rights)).toBe(false);
      await open().store.postponeMark(second, 0);
      await raise();
      const third = await claimOne();
      expect(third.announcement).toEqual(rights);
      await open().store.settleMark(third, Date.now() - 1);
      expect((await claimOne()).announcement).toBe(null);
    });

    test.each([
      ['', null],
      [' until later', soonMs],
    ])('who answers%s announces what LiveKit does since, once; who comes late does not', async (_, askAgainAtMs) => {
      await askAboutEntry();
      const late = await claimOne(-1);
      const mark = await claimOne();
      await open().store.noteAnnouncement(mark, rights);
      await open().store.settleMark(late, askAgainAtMs, rights);
      expect(await open().announced()).toEqual({});
      await raise();
      await open().store.settleMark(mark, askAgainAtMs, rights);
      await open().store.settleMark(mark, askAgainAtMs, rights);
      expect(await open().announced()).toEqual({ 'rights-1': { roomSid: 'RM_r', ...rights.data } });
      expect((await claimOne()).announcement).toBe(null);
    });

    test('what is to be announced waits until the session is known, and is dropped once it is over', async () => {
      await raise();
      await open().store.settleMark(await claimOne(), null, rights);
      expect(await open().markWaits()).toEqual([expect.closeTo(2, 0)]);
      await apply([livekitRecord(0, joined('r', 'ann'))]);
      const [mark] = (await open().store.claimMarks(9, 60, 'oldest')).filter(({ identity }) => identity === 'ann');
      if (mark === undefined) throw new Error('nobody asks about who has joined');
      await apply([livekitRecord(1, { ...joined('r', 'ann'), type: 'participant_left' })], 1);
      await open().store.settleMark(mark, null, rights);
      expect(await open().announced()).toEqual({});
    });

    test.each([
      ['another session of the identity', joined('r', 'ann', 'PA_next')],
      ['whom others do not see', withPermission({ hidden: true })],
    ])('what is to be announced is told of nobody where what is known is %s', async (_, entry) => {
      await apply([livekitRecord(0, entry)]);
      await open().forgetMarks();
      await raise();
      await open().store.settleMark(await claimOne(), null, rights);
      expect(await open().announced()).toEqual({});
      expect(await open().markWaits()).toEqual([expect.closeTo(2, 0)]);
    });

    test('many who claim at once share them', async () => {
      const identities = Array.from({ length: 40 }, (_, at) => `u-${at}`);
      await open().store.markIdentities('r', identities, { cause: 'test', causedAtMs: 1_000 });
      const claims = await Promise.all(Array.from({ length: 8 }, () => open().store.claimMarks(10, 60, 'oldest')));
      expect(
        claims
          .flat()
          .map(({ identity }) => identity)
          .sort(),
      ).toEqual(identities.sort());
    });

    test('an identity that is named twice is asked about once', async () => {
      await open().store.markIdentities('r', ['ann', 'bob', 'ann'], { cause: 'test', causedAtMs: 1_000 });
      expect((await open().marks()).map(({ identity }) => identity)).toEqual(['ann', 'bob']);
    });

    test('an answered one is gone', async () => {
      await raise();
      expect(await open().store.settleMark(await claimOne(), null)).toBe(null);
      expect((await open().marks()).length).toBe(0);
    });

    test('one that was raised while being answered is due at once, with its oldest cause', async () => {
      await raise('ann', 1_000);
      const first = await claimOne();
      await raise('ann', 2_000);
      await open().store.settleMark(first, null);
      expect(await claimOne()).toMatchObject({ identity: 'ann', causedAtMs: 1_000, attempts: 1 });
    });

    /** In the order in which they have become due. */
    const waiting = async (...identities: readonly string[]): Promise<void> => {
      for (const identity of identities) await raise(identity);
      const claimed = await open().store.claimMarks(identities.length, 60, 'oldest');
      for (const mark of claimed)
        await open().store.settleMark(mark, Date.now() - 60_000 + identities.indexOf(mark.identity));
    };
    const inTurn = async (): Promise<string[]> => [(await claimOne()).identity, (await claimOne()).identity];

    test.each([
      ['', () => raise('ann')],
      [' by a chunk', () => apply([livekitRecord(0, joined('r', 'ann'))])],
    ])('one that is raised again%s keeps its place among those that are due', async (_, again) => {
      await waiting('ann', 'bob');
      await again();
      expect(await inTurn()).toEqual(['ann', 'bob']);
    });

    test('one that a fact about its person raises again is among those that came last', async () => {
      await apply([livekitRecord(0, joined('r', 'ann'))]);
      await open().forgetMarks();
      await waiting('ann', 'bob');
      await apply([roomRecord(0, removed('r', 'ann'))]);
      expect(await inTurn()).toEqual(['bob', 'ann']);
    });

    // Else nobody in the midst of a large room is asked about while full state of it comes again and again.
    test('one that the same fact raises again and again is moved once', async () => {
      await apply([livekitRecord(0, joined('r', 'ann')), livekitRecord(1, joined('r', 'bob', 'PA_bob'))]);
      await open().forgetMarks();
      await raise('ann');
      await apply([roomRecord(0, added('r', 'ann'))]);
      await apply([roomRecord(1, added('r', 'bob'))]);
      await apply([roomRecord(2, added('r', 'ann'))]);
      expect(await inTurn()).toEqual(['ann', 'bob']);
    });

    /** What whoever claimed a mark may do with it. */
    const endings = [
      ['answered', 'answers', (mark: Mark) => open().store.settleMark(mark, null)],
      ['answered until later', 'answers until later', (mark: Mark) => open().store.settleMark(mark, soonMs)],
      ['put back', 'puts back', (mark: Mark) => open().store.postponeMark(mark, 60_000)],
    ] as const;
    const done = endings.map(([isDone, , settle]) => [isDone, settle] as const);
    const does = endings.map(([, each, settle]) => [each, settle] as const);

    test.each(done)('one that was raised before it was %s goes behind those that are due', async (_, settle) => {
      await waiting('ann', 'bob');
      const mark = await claimOne();
      await raise('ann');
      await settle(mark);
      expect(await inTurn()).toEqual(['bob', 'ann']);
    });

    test.each(done.slice(1))('one that was %s is due at once when it is raised', async (_, settle) => {
      await raise();
      await settle(await claimOne());
      await raise();
      expect(await claimOne()).toMatchObject({ identity: 'ann', attempts: 1 });
    });

    test('one whose answer changes by itself is due then', async () => {
      await raise();
      await open().store.settleMark(await claimOne(), Date.now() + 60_000);
      expect(await open().store.claimMarks(1, 60, 'oldest')).toEqual([]);
      await raise('bob');
      const causedAtMs = Date.now() - 1;
      await open().store.settleMark(await claimOne(), causedAtMs);
      expect(await claimOne()).toMatchObject({ identity: 'bob', causedAtMs, attempts: 1 });
    });

    test('one whose answer changes by itself after more than an hour is asked in an hour', async () => {
      await raise();
      await open().store.settleMark(await claimOne(), Date.now() + 10 * 86_400_000);
      expect(await open().markWaits()).toEqual([expect.closeTo(3600, -1)]);
    });

    test('one that is put back is due after the delay, and counts its tries', async () => {
      await raise();
      await open().store.postponeMark(await claimOne(), 60_000);
      expect(await open().store.claimMarks(1, 60, 'oldest')).toEqual([]);
      await raise('bob');
      await open().store.postponeMark(await claimOne(), 0);
      expect(await claimOne()).toMatchObject({ identity: 'bob', attempts: 2 });
    });

    test('one that is put back untried counts no try, and whoever raises it meanwhile none at all', async () => {
      await raise();
      await open().store.postponeMark(await claimOne(), 0);
      const second = await claimOne();
      await open().store.postponeMark(second, 0, second.attempts - 1);
      const third = await claimOne();
      expect(third.attempts).toBe(2);
      await raise();
      await open().store.postponeMark(third, 0, third.attempts - 1);
      expect(await claimOne()).toMatchObject({ attempts: 1 });
    });

    test.each(does)(
      'one that others have answered meanwhile, and that was raised anew, stays: who %s it late',
      async (_, settle) => {
        await raise();
        const first = await claimOne(-1);
        await open().store.settleMark(await claimOne(), null);
        await raise();
        await settle(first);
        expect(await claimOne()).toMatchObject({ identity: 'ann', attempts: 1 });
      },
    );

    test.each(does)('one that another is answering stays claimed: who %s it late', async (_, settle) => {
      await raise();
      const first = await claimOne(-1);
      const second = await claimOne();
      await raise();
      await settle(first);
      expect(await open().store.claimMarks(1, 60, 'oldest')).toEqual([]);
      await open().store.settleMark(second, null);
      expect(await claimOne()).toMatchObject({ identity: 'ann', attempts: 1 });
    });

    const trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    test.each([
      ['answered', (mark: Mark) => open().store.settleMark(mark, null), trace],
      ['answered until later', (mark: Mark) => open().store.settleMark(mark, soonMs), trace],
      ['put back', (mark: Mark) => open().store.postponeMark(mark, 60_000), undefined],
    ])('one that a chunk raises in the moment in which it is %s is due at once', async (_, settle, newerTrace) => {
      await raise();
      const mark = await claimOne();
      let settling: Promise<unknown> | undefined;
      await open().store.transaction(async (transaction) => {
        const writes = new ChunkWrites();
        const record = { ...livekitRecord(0, joined('r', 'ann')), trace };
        writes.addRecord(record);
        await transaction.write(chunkOf([record]), writes);
        settling = settle(mark);
      });
      expect(await settling).toBe(newerTrace);
      expect(await claimOne()).toMatchObject({ identity: 'ann', generation: mark.generation + 1n });
    });
  });

  describe('orders', () => {
    const order = (atMs: number, offset = 0): Promise<ChunkResult> => {
      const data = { identity: 'ann', participantSid: 'PA_1', by: 'bob', reason: 'spam' };
      const record = roomRecord(offset, { type: 'participant.kick_requested', subject: 'r', data });
      return apply([{ ...record, origin: { ...record.origin, timeMs: atMs } }]);
    };

    test('one is claimed once, put back, and gone when carried out', async () => {
      const causedAtMs = Date.now() - 1_000;
      await order(causedAtMs);
      const { store } = open();
      const [edge] = await store.claimEdges(1, 60);
      if (edge === undefined) throw new Error('there was none to claim');
      expect(edge).toMatchObject({ kind: 'kick', participantSid: 'PA_1', reason: 'spam', causedAtMs });
      expect(await store.claimEdges(1, 60)).toEqual([]);
      await store.postponeEdge(edge, 10);
      await vi.waitFor(async () => expect(await store.claimEdges(1, -1)).toHaveLength(1));
      await store.settleEdge(edge);
      expect(await store.claimEdges(1, 60)).toEqual([]);
    });

    test('one that was not tried yet goes before those that failed', async () => {
      const { store } = open();
      await order(Date.now());
      const [first] = await store.claimEdges(1, 60);
      if (first === undefined) throw new Error('there was none to claim');
      await order(Date.now(), 1);
      await store.postponeEdge(first, -1);
      const claimed = [...(await store.claimEdges(1, 60)), ...(await store.claimEdges(1, 60))];
      expect(claimed.map(({ edgeId }) => edgeId - first.edgeId)).toEqual([1n, 0n]);
    });

    test('one that has expired is not claimed, and is dropped once', async () => {
      await order(Date.now());
      await order(Date.now() - 61_000, 1);
      const { store } = open();
      expect(await store.claimEdges(2, -1)).toHaveLength(1);
      expect(await store.dropExpiredEdges()).toEqual([{ kind: 'kick', roomId: 'r', identity: 'ann' }]);
      expect(await store.dropExpiredEdges()).toEqual([]);
      expect(await store.claimEdges(2, 60)).toHaveLength(1);
    });

    test('one whose producer lives in the future expires as any other', async () => {
      await order(Date.now() + 3_600_000);
      expect(await open().orderLives()).toEqual([expect.closeTo(60, -1)]);
    });
  });

  test("a room's newer life ends who is left of the older one, whatever else the chunk tells of that", async () => {
    const roomOf = (sid: string, creationTimeMs: number) => ({ name: 'r', sid, creationTimeMs });
    await apply([livekitRecord(0, { ...joined('r', 'ann'), room: roomOf('RM_1', 1_000) })]);
    await apply([
      livekitRecord(1, { ...joined('r', 'bob'), room: roomOf('RM_1', 1_000) }),
      livekitRecord(2, { ...joined('r', 'cleo'), room: roomOf('RM_2', 2_000) }),
    ]);
    expect(await open().store.readLiveRooms(['r'])).toMatchObject([
      { roomId: 'r', roomSid: 'RM_2', sessions: [{ participantSid: 'PA_cleo' }] },
    ]);
  });

  test('the rooms that are live, and who is in them', async () => {
    const left = { ...joined('empty', 'bob'), type: 'participant_left' as const };
    const over = joined('over', 'cleo');
    const bob = joined('r', 'bob');
    const hidden = { ...bob, participant: { ...bob.participant, permission: { hidden: true } } };
    await apply([
      livekitRecord(0, joined('r', 'ann')),
      livekitRecord(1, hidden),
      livekitRecord(2, joined('empty', 'bob')),
      livekitRecord(3, left),
      livekitRecord(4, over),
      livekitRecord(5, { type: 'room_finished', room: over.room }),
    ]);
    const { store } = open();
    expect((await store.readLiveRoomIds()).sort()).toEqual(['empty', 'r']);
    const rooms = await store.readLiveRooms(['empty', 'over', 'never', 'r']);
    expect(
      rooms
        .map(({ roomId, sessions }) => [
          roomId,
          sessions.map(({ participantSid, isHidden }) => `${participantSid} ${isHidden}`).sort(),
        ])
        .sort(),
    ).toEqual([
      ['empty', []],
      ['r', ['PA_ann false', 'PA_bob true']],
    ]);
    expect(await store.readLiveRooms(['empty'])).toMatchObject([{ roomId: 'empty' }]);
  });

  test('whose a live session is', async () => {
    const { participant, ...told } = joined('r', 'ann');
    const attributes = { 'rt.user': 'ann', 'rt.device': 'phone', 'rt.login': 'login' };
    await apply([
      livekitRecord(0, { ...told, participant: { ...participant, identity: 'ann:phone', attributes } }),
      livekitRecord(1, joined('other', 'ann')),
      livekitRecord(2, { ...joined('r', 'bob'), type: 'participant_left' }),
      livekitRecord(3, { ...told, participant: { ...participant, sid: 'PA_x', identity: 'x', attributes: {} } }),
    ]);
    const ownerOf = (identity: string, participantSid: string) =>
      open().store.readSessionOwner({ roomId: 'r', identity, participantSid });
    expect(await ownerOf('ann:phone', 'PA_ann')).toEqual({ userId: 'ann', deviceId: 'phone', loginId: 'login' });
    expect(await ownerOf('x', 'PA_x')).toEqual({ userId: null, deviceId: null, loginId: null });
    expect(await ownerOf('ann:phone', 'PA_new')).toBeNull();
    expect(await ownerOf('ann', 'PA_ann')).toBeNull();
    expect(await ownerOf('bob', 'PA_bob')).toBeNull();
  });

  test('by which identities somebody is inside', async () => {
    await apply([
      livekitRecord(0, joined('r', 'ann')),
      livekitRecord(1, joined('r', 'bob')),
      livekitRecord(2, { ...joined('r', 'bob'), type: 'participant_left' }),
    ]);
    const isInside = (roomId: string, identity: string) => open().store.isInside({ roomId, identity });
    expect(await isInside('r', 'ann')).toBe(true);
    expect(await isInside('r', 'bob')).toBe(false);
    expect(await isInside('other', 'ann')).toBe(false);
  });

  test('a duty has one holder, until it is given back or expires', async () => {
    const { store } = open();
    expect(await store.holdDuty('sweep', 'a', 60)).toBe(true);
    expect(await store.holdDuty('sweep', 'b', 60)).toBe(false);
    expect(await store.holdDuty('sweep', 'a', -1)).toBe(true);
    expect(await store.holdDuty('sweep', 'b', 60)).toBe(true);
    await store.releaseDuty('sweep', 'a');
    expect(await store.holdDuty('sweep', 'a', 60)).toBe(false);
    await store.releaseDuty('sweep', 'b');
    expect(await store.holdDuty('sweep', 'a', 60)).toBe(true);
  });

  test('a duty that is held for longer than it can be taken for is free: the clock was set back', async () => {
    const { store } = open();
    expect(await store.holdDuty('sweep', 'a', 3_600)).toBe(true);
    expect(await store.holdDuty('sweep', 'b', 60)).toBe(true);
    // By so little that the holder may be there.
    expect(await store.holdDuty('sweep', 'b', 100)).toBe(true);
    expect(await store.holdDuty('sweep', 'a', 60)).toBe(false);
  });

  test('facts are told as they are committed', async () => {
    const ask = async () => {
      const [answer] = await open().store.readFacts([{ roomId: 'r', userId: 'ann', loginId: 'l' }]);
      return answer?.facts;
    };
    expect(await ask()).toMatchObject({ room: null, member: null, bans: [], user: null, isLoginEnded: false });
    await apply([
      roomRecord(0, created('r')),
      roomRecord(1, added('r', 'ann')),
      roomRecord(2, { type: 'member.banned', subject: 'r', data: { userId: 'ann', privilege: 'data' } }),
      roomRecord(3, disabled('ann')),
      roomRecord(4, { type: 'login.ended', subject: 'ann', data: { userId: 'ann', sid: 'l' } }),
      roomRecord(5, { type: 'member.banned', subject: 'r', data: { userId: 'ann', privilege: 'join' } }),
      roomRecord(6, { type: 'member.unbanned', subject: 'r', data: { userId: 'ann', privilege: 'join' } }),
    ]);
    await apply([livekitRecord(0, joined('r', 'ann'))]);
    expect(await ask()).toMatchObject({
      room: { state: 'open' },
      member: { role: 'speaker', isRemoved: false },
      bans: [{ privilege: 'data', untilMs: null }],
      user: { isDisabled: true },
      isLoginEnded: true,
      doubt: null,
      ownSessions: [{ identity: 'ann', isLive: true, wasRemoved: false }],
    });
    expect(await open().store.readLiveRooms(['r'])).toMatchObject([{ sessions: [{ participantSid: 'PA_ann' }] }]);
    expect(await open().store.readLiveRooms(['other'])).toEqual([]);
    await apply([
      roomRecord(7, { type: 'member.removed', subject: 'r', data: { userId: 'ann', reason: 'spam' } }),
      roomRecord(8, { type: 'room.closed', subject: 'r', data: { reason: 'moved' } }),
    ]);
    expect(await ask()).toMatchObject({
      room: { state: 'closed', closingReason: 'moved' },
      member: { isRemoved: true, removalReason: 'spam' },
    });
  });

  test('doubt about the header is told apart from doubt about a person', async () => {
    const doubts = async () => {
      const queries = ['ann', 'bob'].map((userId) => ({ roomId: 'r', userId, loginId: null }));
      return (await open().store.readFacts(queries)).map(({ facts }) => facts.doubt);
    };
    const dead = { reason: 'invalid_data', message: '', key: null, value: null, headers: {} } as const;
    const lost = (offset: number, type: string, data: unknown): ChunkRecord => ({
      ...roomRecord(offset, created('r')),
      factKey: null,
      content: { kind: 'dead', dead, unreadable: { key: 'r', type, data } },
    });
    expect(await doubts()).toEqual([null, null]);
    await apply([lost(0, 'room.updated', { maxParticipants: 0 })]);
    expect(await doubts()).toEqual(['header', 'header']);
    await apply([lost(1, 'member.removed', { userId: 'ann', reason: 7 })]);
    expect(await doubts()).toEqual(['person', 'header']);
    await apply([lost(2, 'room.created', { members: 7 })]);
    expect(await doubts()).toEqual(['person', 'person']);
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
            expect(snapshotOf(await open().projection())).toEqual(snapshotOf(model));
          },
        )
        .beforeEach(() => open().empty()),
      { numRuns: 60 },
    );
  }, 60_000);
};
