import { setTimeout as delay } from 'node:timers/promises';
import { topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { type LogBatch, type NewRecord, partitionOf } from '@realtime-service/event-log';
import { keyOf, type Member } from '@realtime-service/room-model';
import { LogReplacedError } from '@realtime-service/room-store';
import { readProjection } from '@realtime-service/room-store/read-projection';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readBatch, roomRecord, startProjection, type TestProjection } from '../test/projection.ts';
import { binaryRecord, partitionCount, structuredRecord } from '../test/records.ts';

const room = 'room-42';
const partition = partitionOf(room, partitionCount);
const ann = { userId: 'ann', role: 'speaker' };
const bob = { userId: 'bob', role: 'speaker' };

describeWith(['postgres'], 'projecting', () => {
  let parts: TestProjection;

  beforeEach(async () => {
    parts = await startProjection();
  });
  afterEach(() => parts.stop());

  const member = async (userId: string): Promise<Member | undefined> =>
    (await readProjection(parts.pool)).members.get(keyOf(room, userId));
  const deadLetters = async () =>
    (await parts.pool.query('select "offset"::int as at, reason, message from dead_letters order by "offset"')).rows;
  /** What a consumer has applied is counted, and told, a moment after the commit. */
  const countOf = async (counter: 'deadLetters' | 'skipped', reason: string): Promise<number> =>
    (await parts.metrics[counter].get()).values
      .filter(({ labels }) => labels.reason === reason)
      .reduce((sum, { value }) => sum + value, 0);

  describe('C12: a record that cannot be read, between good ones', () => {
    const removalOf = (value: Buffer | null, key: string | Buffer | null = room): NewRecord => ({
      ...roomRecord(['member.removed', room]),
      key,
      value,
    });
    /** Whom each leaves in doubt, and a newer fact that heals. */
    const cases: readonly (readonly [
      title: string,
      record: NewRecord,
      reason: string,
      doubted: readonly string[],
      heals: readonly [string, object],
    ])[] = [
      [
        'not JSON',
        removalOf(Buffer.from('{"userId":')),
        'not_json',
        ['ann', 'bob'],
        ['room.created', { members: [ann, bob] }],
      ],
      [
        'the wrong schema',
        roomRecord(['member.updated', room, { userId: 'ann', role: 'emperor' }]),
        'invalid_data',
        ['ann'],
        ['member.updated', ann],
      ],
      [
        'the wrong schema of a ban',
        roomRecord(['member.banned', room, { userId: 'ann', privilege: 'data', until: 'soon' }]),
        'invalid_data',
        ['ann'],
        ['member.unbanned', { userId: 'ann', privilege: 'data' }],
      ],
      [
        'a ban from what we do not know',
        roomRecord(['member.banned', room, { userId: 'ann', privilege: 'fly' }]),
        'invalid_data',
        ['ann'],
        ['room.created', { members: [ann, bob] }],
      ],
      [
        'the wrong schema of the room',
        roomRecord(['room.updated', room, { maxParticipants: 'ten' }]),
        'invalid_data',
        ['ann', 'bob'],
        ['room.updated', { maxParticipants: 10 }],
      ],
      [
        'a schema registry prefix',
        removalOf(Buffer.concat([Buffer.from([0, 0, 0, 0, 12]), Buffer.from('{"userId":"ann"}')])),
        'schema_registry_prefix',
        ['ann', 'bob'],
        ['room.created', { members: [ann, bob] }],
      ],
      ['no value', removalOf(null), 'invalid_data', ['ann', 'bob'], ['room.created', { members: [ann, bob] }]],
      [
        '900 kB',
        removalOf(Buffer.alloc(900_000, '[')),
        'not_json',
        ['ann', 'bob'],
        ['room.created', { members: [ann, bob] }],
      ],
      [
        'NUL in an id',
        roomRecord(['member.removed', room, { userId: 'an\0n' }]),
        'invalid_data',
        ['ann', 'bob'],
        ['room.created', { members: [ann, bob] }],
      ],
      [
        'a lone surrogate in an id',
        removalOf(Buffer.from(String.raw`{"userId":"ann\ud83c"}`)),
        'invalid_data',
        ['ann', 'bob'],
        ['room.created', { members: [ann, bob] }],
      ],
      [
        'a broken envelope',
        structuredRecord({ id: '', type: 'member.removed' }, { userId: 'ann' }),
        'invalid_envelope',
        ['ann'],
        ['member.added', ann],
      ],
      [
        'a time that is none',
        binaryRecord({ id: 'bad-time', time: '2026-02-31T00:00:00Z' }, { userId: 'ann' }),
        'invalid_envelope',
        ['ann'],
        ['member.added', ann],
      ],
      [
        'a header name with NUL',
        { ...removalOf(Buffer.from('{')), headers: { ...roomRecord(['member.removed', room]).headers, 'x\0y': 'z' } },
        'not_json',
        ['ann', 'bob'],
        ['room.created', { members: [ann, bob] }],
      ],
    ];

    test.each(cases)('%s', async (_, bad, reason, doubted, [type, data]) => {
      parts.consume();
      await parts.publish(['room.created', room, { members: [ann, bob] }]);
      await parts.append(bad);
      await parts.publish(['member.added', room, { userId: 'cid', role: 'listener' }]);
      await parts.caughtUp();

      expect(await deadLetters()).toMatchObject([{ at: 1, reason }]);
      await expect.poll(() => countOf('deadLetters', reason)).toBe(1);
      expect(await member('cid')).toMatchObject({ isRemoved: false });
      for (const user of ['ann', 'bob']) {
        expect(await parts.ask('enter', room, user)).toBe(doubted.includes(user) ? 'suspect' : 'allow');
        expect(await parts.ask('stay', room, user)).toBe('allow');
      }

      await parts.publish([type, room, data]);
      await parts.caughtUp();
      for (const user of ['ann', 'bob']) expect(await parts.ask('enter', room, user)).toBe('allow');
    });

    test('without a key it stands in partition 0 and leaves its subject in doubt', async () => {
      parts.consume();
      await parts.publish(['room.created', room, { members: [ann, bob] }]);
      // In a partition of its own: without this it could come first, and the room's full state would end the doubt.
      await parts.caughtUp();
      await parts.append({ ...roomRecord(['member.removed', room, { userId: 'ann' }]), key: null });
      await parts.caughtUp();
      expect(await deadLetters()).toMatchObject([{ reason: 'key_mismatch' }]);
      expect(await parts.ask('enter', room, 'ann')).toBe('suspect');
      expect(await parts.ask('enter', room, 'bob')).toBe('allow');
    });

    test('a record without value and headers is a tombstone: counted, and nobody is in doubt', async () => {
      parts.consume();
      await parts.publish(['room.created', room, { members: [ann] }]);
      await parts.append({ topic: topics.roomEvents, key: room, value: null, headers: {} });
      await parts.caughtUp();
      expect(await deadLetters()).toEqual([]);
      await expect.poll(() => countOf('skipped', 'tombstone')).toBe(1);
      expect(await parts.ask('enter', room, 'ann')).toBe('allow');
    });

    test("no line of the service's log holds the payload", async () => {
      parts.consume();
      await parts.append({
        ...roomRecord(['member.removed', room]),
        value: Buffer.from('{"userId":"private-payload"'),
      });
      await until('it is told', () => parts.lines.join('').includes('not_json'));
      expect(parts.lines.join('')).not.toContain('private-payload');
    });
  });

  describe('data that the database refuses', () => {
    beforeEach(() => parts.pool.query(`alter table members add check (user_id not like 'eve%')`));

    test('is found by halves: each such record is a dead letter with its doubt, every other one counts once', async () => {
      const events = Array.from({ length: 40 }, (_, at) =>
        roomRecord(['member.removed', room, { userId: at % 13 === 5 ? `eve-${at}` : `user-${at}` }]),
      );
      await parts.append(roomRecord(['room.created', room, { members: [ann] }]), ...events);
      const outcome = await parts.project(await readBatch(parts, topics.roomEvents, partition));

      expect(outcome).toEqual({ kind: 'advance', nextOffset: 41n });
      expect(await deadLetters()).toMatchObject([6, 19, 32].map((at) => ({ at, reason: 'unstorable' })));
      expect(await countOf('deadLetters', 'unstorable')).toBe(3);
      expect(parts.lines.filter((line) => line.includes('"reason":"unstorable"'))).toHaveLength(3);
      const { members } = await readProjection(parts.pool);
      expect(members.size).toBe(38);
      expect(await parts.ask('enter', room, 'ann')).toBe('allow');
      const { rows } = await parts.pool.query(
        `select user_id from suspects where scope = 'member' order by user_id collate "C"`,
      );
      expect(rows.map(({ user_id }) => user_id)).toEqual(['eve-18', 'eve-31', 'eve-5']);
      const { values } = await parts.metrics.facts.get();
      expect(Object.fromEntries(values.map(({ labels, value }) => [labels.outcome, value]))).toEqual({
        applied: 38,
        repeated: 0,
        dead: 3,
        skipped: 0,
      });
    });

    test('as the first, the last and the only record', async () => {
      await parts.append(
        ...['eve-a', 'user', 'eve-b'].map((userId) => roomRecord(['member.added', room, { userId, role: 'listener' }])),
      );
      const batch = await readBatch(parts, topics.roomEvents, partition);
      const [first] = batch.records;
      expect(
        await parts.project({ ...batch, records: [first as (typeof batch.records)[number]], nextOffset: 1n }),
      ).toEqual({ kind: 'advance', nextOffset: 1n });
      expect(await parts.project(batch)).toEqual({ kind: 'advance', nextOffset: 3n });
      expect((await deadLetters()).map(({ at }) => at)).toEqual([0, 2]);
      expect(await member('user')).toBeDefined();
    });
  });

  describe('a chunk that needs more time than a statement has', () => {
    /** Writing more members than these in one statement takes long. */
    const takeLongAbove = (count: number): Promise<unknown> =>
      parts.pool.query(`create function take_long() returns trigger language plpgsql as
          $$ begin perform pg_sleep(20) from written having count(*) > ${count}; return null; end $$;
        create trigger slow after insert on members referencing new table as written
          for each statement execute function take_long()`);
    const additions = (count: number): NewRecord[] =>
      Array.from({ length: count }, (_, at) =>
        roomRecord(['member.added', room, { userId: `u-${at}`, role: 'listener' }]),
      );

    test('is applied in halves', async () => {
      await takeLongAbove(20);
      await parts.append(...additions(40));
      const outcome = await parts.project(await readBatch(parts, topics.roomEvents, partition));
      expect(outcome).toEqual({ kind: 'advance', nextOffset: 40n });
      expect((await readProjection(parts.pool)).members.size).toBe(40);
    });

    test('is applied in halves where each statement has time and all together have not', async () => {
      await parts.pool.query(`create function take_long() returns trigger language plpgsql as
          $$ begin perform pg_sleep(2.2); return null; end $$;
        create trigger slow after insert on edges for each statement execute function take_long()`);
      const kicks = Array.from({ length: 8 }, (_, at) => {
        const kick = { participantSid: `PA_${at}`, identity: `u-${at}`, by: 'bob' };
        return roomRecord(['participant.kick_requested', room, kick]);
      });
      await parts.append(...kicks);
      const batch = await readBatch(parts, topics.roomEvents, partition);
      let heartbeats = 0;
      const heartbeat = async () => {
        heartbeats += 1;
        return true;
      };
      expect(await parts.project({ ...batch, heartbeat })).toEqual({ kind: 'advance', nextOffset: 8n });
      // Before each of two halves at least, and after the whole.
      expect(heartbeats).toBeGreaterThanOrEqual(3);
      expect((await parts.pool.query('select from edges')).rowCount).toBe(8);
    }, 60_000);

    test('is left to whoever has the partition by now; what was applied of it is told, and told once', async () => {
      await takeLongAbove(20);
      await parts.append({ ...roomRecord(['member.removed', room]), value: Buffer.from('{') }, ...additions(39));
      const batch = await readBatch(parts, topics.roomEvents, partition);
      const answers = [true, false].values();
      const heartbeat = async () => answers.next().value ?? true;
      const outcomes = async () =>
        (await parts.metrics.facts.get()).values.map(({ labels, value }) => [labels.outcome, value]);
      expect(await parts.project({ ...batch, heartbeat })).toEqual({ kind: 'retry', nextOffset: 0n, afterMs: 1_000 });
      expect((await readProjection(parts.pool)).members.size).toBe(19);
      expect(Object.fromEntries(await outcomes())).toEqual({ applied: 19, repeated: 0, dead: 1, skipped: 0 });
      expect(await parts.project({ ...batch, heartbeat })).toEqual({ kind: 'advance', nextOffset: 40n });
      expect(Object.fromEntries(await outcomes())).toEqual({ applied: 39, repeated: 20, dead: 1, skipped: 0 });
      expect(await countOf('deadLetters', 'not_json')).toBe(1);
      expect(parts.lines.filter((line) => line.includes('"reason":"not_json"'))).toHaveLength(1);
    });

    test('is tried again where it is one record: that is no dead letter', async () => {
      await takeLongAbove(0);
      await parts.append(...additions(1));
      const outcome = await parts.project(await readBatch(parts, topics.roomEvents, partition));
      expect(outcome).toEqual({ kind: 'retry', nextOffset: 0n, afterMs: 1_000 });
      expect(await deadLetters()).toEqual([]);
    });
  });

  describe('chunks', () => {
    const project = async (batch: LogBatch): Promise<{ outcome: unknown; chunks: number }> => {
      let chunks = 0;
      const heartbeat = async () => {
        chunks += 1;
        return true;
      };
      return { outcome: await parts.project({ ...batch, heartbeat }), chunks };
    };

    test('end at 500 records, and a heartbeat follows each', async () => {
      const records = Array.from({ length: 1_001 }, (_, at) =>
        roomRecord(['member.added', room, { userId: `u-${at}`, role: 'listener' }]),
      );
      for (let at = 0; at < records.length; at += 500) await parts.append(...records.slice(at, at + 500));
      const { outcome, chunks } = await project(await readBatch(parts, topics.roomEvents, partition));
      expect({ outcome, chunks }).toEqual({ outcome: { kind: 'advance', nextOffset: 1_001n }, chunks: 3 });
      expect((await readProjection(parts.pool)).members.size).toBe(1_001);
    });

    test('one record whose time is in microseconds keeps no later repeat from being told', async () => {
      const addition = roomRecord(['member.added', room, ann]);
      await parts.append(addition, roomRecord(['room.created', room]));
      await parts.append(roomRecord(['member.removed', room, { userId: 'ann' }]), addition);
      const batch = await readBatch(parts, topics.roomEvents, partition);
      const records = batch.records.map((record, at) =>
        at === 1 ? { ...record, timestampMs: record.timestampMs * 1000 } : record,
      );
      await project({ ...batch, records });
      expect(await member('ann')).toMatchObject({ isRemoved: true });
    });

    test('end at a mebibyte; a record above it goes alone', async () => {
      const large = (length: number) => ({
        ...roomRecord(['room.created', room]),
        value: Buffer.from(JSON.stringify({ zzFuture: 'x'.repeat(length) })),
      });
      await parts.append(large(400_000));
      await parts.append(large(400_000));
      await parts.append(large(400_000));
      await parts.append(large(10));
      const batch = await readBatch(parts, topics.roomEvents, partition);
      const { outcome, chunks } = await project(batch);
      expect({ outcome, chunks }).toEqual({ outcome: { kind: 'advance', nextOffset: 4n }, chunks: 2 });
    });

    test('a retried dead letter weighs what its letter may', async () => {
      const place = { topic: topics.roomEvents, partition, offset: '7' };
      await parts.append(...Array.from({ length: 40 }, () => roomRecord(['dead_letter.retried', room, place])));
      const { outcome, chunks } = await project(await readBatch(parts, topics.roomEvents, partition));
      expect({ outcome, chunks }).toEqual({ outcome: { kind: 'advance', nextOffset: 40n }, chunks: 3 });
    });

    test('the last one ends where the batch does, also where that holds nothing visible', async () => {
      await parts.publish(['room.created', room]);
      const batch = await readBatch(parts, topics.roomEvents, partition);
      expect(await parts.project({ ...batch, nextOffset: 9n })).toEqual({ kind: 'advance', nextOffset: 9n });
      expect(await parts.project({ ...batch, records: [], fetchedOffset: 9n, nextOffset: 12n })).toEqual({
        kind: 'advance',
        nextOffset: 12n,
      });
    });

    test("a partition that may be another's by now ends the batch with what is durable", async () => {
      const records = Array.from({ length: 600 }, (_, at) =>
        roomRecord(['member.added', room, { userId: `u-${at}`, role: 'listener' }]),
      );
      await parts.append(...records);
      const batch = await readBatch(parts, topics.roomEvents, partition);
      expect(await parts.project({ ...batch, heartbeat: async () => false })).toEqual({
        kind: 'advance',
        nextOffset: 500n,
      });
    });

    test('a log that is ahead of the database is read again from where that stands', async () => {
      await parts.publish(['room.created', room], ['member.added', room, ann]);
      const batch = await readBatch(parts, topics.roomEvents, partition);
      const [, second] = batch.records;
      const ahead = { ...batch, fetchedOffset: 1n, records: [second as (typeof batch.records)[number]] };
      expect(await parts.project(ahead)).toEqual({ kind: 'advance', nextOffset: 0n });
      expect((await readProjection(parts.pool)).members.size).toBe(0);
    });

    test('of another log than the one that was applied end the consumer, not the partition for a while', async () => {
      await parts.publish(['room.created', room], ['member.added', room, ann]);
      const batch = await readBatch(parts, topics.roomEvents, partition);
      await parts.project({ ...batch, records: batch.records.slice(0, 1), nextOffset: 1n });
      const records = batch.records.map((record) => ({ ...record, timestampMs: record.timestampMs + 1 }));
      expect(await parts.project({ ...batch, records })).toEqual({
        kind: 'stop',
        error: expect.any(LogReplacedError),
      });
      expect((await readProjection(parts.pool)).members.size).toBe(0);
      expect((await parts.metrics.retries.get()).values).toEqual([]);
    });

    test('a dead letter that is told of again is counted and logged once', async () => {
      await parts.append({ ...roomRecord(['room.created', room]), value: Buffer.from('{') });
      const batch = await readBatch(parts, topics.roomEvents, partition);
      for (let time = 0; time < 3; time += 1) await parts.project(batch);
      expect(await countOf('deadLetters', 'not_json')).toBe(1);
      expect(parts.lines.filter((line) => line.includes('became a dead letter'))).toHaveLength(1);
    });

    test('applied again, everything is a repeat', async () => {
      await parts.publish(['room.created', room], ['member.added', room, ann]);
      const batch = await readBatch(parts, topics.roomEvents, partition);
      await parts.project(batch);
      expect(await parts.project(batch)).toEqual({ kind: 'advance', nextOffset: 2n });
      const { values } = await parts.metrics.facts.get();
      expect(Object.fromEntries(values.map(({ labels, value }) => [labels.outcome, value]))).toEqual({
        applied: 2,
        repeated: 2,
        dead: 0,
        skipped: 0,
      });
    });
  });

  describe('while the database fails', () => {
    test('the partition is paused where it stands, and goes on by itself', async () => {
      await parts.publish(['room.created', room, { members: [ann] }]);
      await parts.pool.query('alter table members rename to members_away');
      const batch = await readBatch(parts, topics.roomEvents, partition);
      expect(await parts.project(batch)).toEqual({ kind: 'retry', nextOffset: 0n, afterMs: 1_000 });
      await parts.pool.query('alter table members_away rename to members');
      expect(await parts.project(batch)).toEqual({ kind: 'advance', nextOffset: 1n });
    });

    test('C28: connections that are ended in the middle of transactions end nothing else', async () => {
      parts.consume();
      const rooms = Array.from({ length: 12 }, (_, at) => `room-${at}`);
      const records = rooms.flatMap((each) =>
        Array.from({ length: 20 }, (_, at) =>
          roomRecord(['member.added', each, { userId: `u-${at}`, role: 'listener' }]),
        ),
      );
      const appending = Promise.all(
        records.map((record) =>
          until(
            'it is appended',
            () =>
              parts.append(record).then(
                () => true,
                () => false,
              ),
            30_000,
          ),
        ),
      );
      for (let times = 0; times < 40; times += 1) {
        await parts.pool
          .query(
            `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`,
          )
          .catch(() => undefined);
        await delay(20);
      }
      await appending;
      await parts.caughtUp();
      expect((await readProjection(parts.pool)).members.size).toBe(240);
    }, 60_000);
  });
});
