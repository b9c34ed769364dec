import { deadLetterTopic, observedType, topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { type NewRecord, partitionOf, type StoredRecord } from '@realtime-service/event-log';
import { keyOf, type Member } from '@realtime-service/room-model';
import { snapshotOf } from '@realtime-service/room-model/snapshot';
import { readProjection } from '@realtime-service/room-store/read-projection';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { readBatch, roomRecord, startProjection, type TestProjection } from '../test/projection.ts';
import { binaryRecord, partitionCount } from '../test/records.ts';
import { toLivekitRecord } from './livekit-record.ts';
import { startRelay } from './relay.ts';

const room = 'room-42';
const partition = partitionOf(room, partitionCount);
const ann = { userId: 'ann', role: 'speaker' };
const bob = { userId: 'bob', role: 'speaker' };

describeWith(['postgres'], 'dead letters', () => {
  let parts: TestProjection;

  beforeEach(async () => {
    parts = await startProjection();
    parts.consume();
  });
  afterEach(() => parts.stop());

  const tell = (...records: readonly NewRecord[]): Promise<void> => parts.tell(...records);
  const fact = (type: string, data: object) => roomRecord([type, room, data]);
  const action = (type: 'retried' | 'discarded', offset: number, topic: string = topics.roomEvents): NewRecord =>
    fact(`dead_letter.${type}`, { topic, partition, offset: String(offset) });
  const letters = async () => {
    const { rows } = await parts.pool.query(
      `select "offset"::int as at, reason, status, is_relayed, settled_offset::int as settled_at from dead_letters
        order by topic desc, "offset"`,
    );
    return rows;
  };
  /** What a decoder that reads more would make of it: the letter now says this. */
  const mend = (offset: number, data: object) =>
    parts.pool.query('update dead_letters set value = $2 where "offset" = $1', [
      offset,
      Buffer.from(JSON.stringify(data)),
    ]);
  const member = async (userId: string): Promise<Member | undefined> =>
    (await readProjection(parts.pool)).members.get(keyOf(room, userId));
  const enter = (userId: string) => parts.ask('enter', room, userId);
  const created = fact('room.created', { members: [ann, bob] });
  const lostRemoval = () => fact('member.removed', { userId: 'ann', reason: 'x', userIds: 7 });
  const broken = (): NewRecord => ({ ...lostRemoval(), value: Buffer.from('{"userId":"ann"') });

  describe('retried', () => {
    test('what has become readable applies where nothing newer is known; its provenance leads to the retry', async () => {
      await tell(created, broken());
      expect(await enter('ann')).toBe('suspect');
      await mend(1, { userId: 'ann' });
      await tell(fact('member.updated', { userId: 'bob', displayName: 'Bob' }), action('retried', 1));
      expect(await member('ann')).toMatchObject({ isRemoved: true, origin: { offset: 1n } });
      expect(await letters()).toEqual([
        { at: 1, reason: 'not_json', status: 'retried', is_relayed: false, settled_at: 3 },
      ]);
      expect(await enter('ann')).toBe('member_removed');
      expect(await enter('bob')).toBe('allow');
    });

    test('it changes nothing that has been said since, and its doubt ends all the same', async () => {
      await tell(created, broken());
      await mend(1, { userId: 'ann' });
      await tell(fact('member.added', { ...ann, role: 'host' }), action('retried', 1));
      expect(await member('ann')).toMatchObject({ role: 'host', isRemoved: false, origin: { offset: 2n } });
      expect(await enter('ann')).toBe('allow');
      expect(await enter('bob')).toBe('allow');
    });

    test('it brings in nobody whom full state since has left out', async () => {
      await tell(fact('member.added', { userId: 'mallory', role: 'dancer' }), created);
      await mend(0, { userId: 'mallory', role: 'host' });
      await tell(fact('room.updated', { name: 'Retro' }), action('retried', 0));
      expect(await letters()).toMatchObject([{ at: 0, status: 'retried' }]);
      expect(await member('mallory')).toBeUndefined();
      expect(await enter('mallory')).toBe('not_a_member');
      expect(await enter('ann')).toBe('allow');
    });

    test('what still cannot be read stays, with its new reason, and leaves its doubt', async () => {
      await tell(created, broken());
      await mend(1, { userId: 7 });
      await tell(action('retried', 1));
      expect(await letters()).toMatchObject([{ at: 1, reason: 'invalid_data', status: 'open', settled_at: null }]);
      expect(await enter('ann')).toBe('suspect');
      await mend(1, { userId: 'ann' });
      await tell(action('retried', 1));
      expect(await letters()).toMatchObject([{ status: 'retried' }]);
      expect(await enter('ann')).toBe('member_removed');
    });

    test('twice, or where there is no letter, it changes nothing more', async () => {
      await tell(created, broken());
      await mend(1, { userId: 'ann' });
      await tell(action('retried', 1));
      const [rows, before] = [snapshotOf(await readProjection(parts.pool)), await letters()];
      await tell(action('retried', 1), action('retried', 77), action('discarded', 1), action('discarded', 78));
      expect(snapshotOf(await readProjection(parts.pool))).toEqual(rows);
      expect(await letters()).toEqual(before);
    });

    test("the fact's identity counts: its producer cannot tell it again", async () => {
      const lost = broken();
      await tell(created, lost);
      await mend(1, { userId: 'ann' });
      const again = { ...lost, value: Buffer.from('{"userId":"ann"}') };
      await tell(action('retried', 1), fact('member.added', ann), again);
      expect(await member('ann')).toMatchObject({ isRemoved: false });
    });

    test('nor does it count where its producer has told it by now', async () => {
      const lost = broken();
      const again = { ...lost, value: Buffer.from('{"userId":"ann"}') };
      await tell(created, lost, again);
      await mend(1, { userId: 'ann' });
      await tell(action('retried', 1));
      expect(await member('ann')).toMatchObject({ isRemoved: true, origin: { offset: 2n } });
      expect(await letters()).toMatchObject([{ status: 'retried' }]);
    });

    test('what it takes away ends a live session: it is marked', async () => {
      const joined = {
        event: 'participant_joined',
        room: { sid: 'RM_1', name: room, creationTimeMs: 1_000 },
        participant: { sid: 'PA_ann', identity: 'ann', joinedAtMs: 2_000, attributes: { 'rt.user': 'ann' } },
      };
      const about = { id: 'w-1', source: 'livekit', type: 'livekit.participant_joined', roomName: room } as const;
      await tell(created, toLivekitRecord({ ...about, timeMs: undefined, traceparent: undefined }, joined), broken());
      await parts.pool.query('delete from marks');
      await mend(1, { userId: 'ann' });
      await tell(action('retried', 1));
      const { rows } = await parts.pool.query('select identity, cause from marks');
      expect(rows).toEqual([{ identity: 'ann', cause: 'member.removed' }]);
    });

    test('a fact from LiveKit is presence again', async () => {
      const about = { id: 'w-1', source: 'sweep', type: observedType, roomName: room } as const;
      const lost = toLivekitRecord({ ...about, timeMs: undefined, traceparent: undefined }, { roomName: 7 });
      await tell(created, lost);
      expect(await letters()).toMatchObject([{ at: 0, reason: 'invalid_data', status: 'open' }]);
      const seen = {
        sid: 'PA_ann',
        identity: 'ann',
        joinedAtMs: 2_000,
        version: 1,
        kind: 'STANDARD',
        attributes: { 'rt.user': 'ann' },
      };
      await mend(0, {
        roomName: room,
        listedAtMs: Date.now(),
        room: { sid: 'RM_1', name: room, creationTimeMs: 1_000 },
        participants: [seen],
      });
      await tell(action('retried', 0, topics.livekitWebhooks));
      expect(await letters()).toMatchObject([{ status: 'retried' }]);
      const { rows } = await parts.pool.query('select identity, is_live from sessions');
      expect(rows).toEqual([{ identity: 'ann', is_live: true }]);
    });

    test('delivered again, the retry of an old letter changes nothing more, nor whose ids those of later facts are', async () => {
      const lost = toLivekitRecord(
        { id: 'w-1', source: 'sweep', type: observedType, roomName: room, timeMs: undefined, traceparent: undefined },
        { roomName: 7 },
      );
      await tell(created, lost);
      await parts.pool.query(`update dead_letters set recorded_at = recorded_at - interval '20 days'`);
      await mend(0, { roomName: room, listedAtMs: 5, room: { sid: 'RM_1', name: room }, participants: [] });
      await tell(action('retried', 0, topics.livekitWebhooks));
      const batch = await readBatch(parts, topics.roomEvents, partition);
      const retry = batch.records[1] as StoredRecord;
      const later = { ...(batch.records[0] as StoredRecord), offset: 2n, value: Buffer.from('{}') };
      const headers = { ...later.headers, ce_id: Buffer.from('later'), ce_type: Buffer.from('room.locked') };
      const records = [retry, { ...later, headers }];
      expect(await parts.project({ ...batch, fetchedOffset: 1n, nextOffset: 3n, records })).toMatchObject({
        kind: 'advance',
        nextOffset: 3n,
      });
      const { rows } = await parts.pool.query('select topic, count(*)::int from applied_facts group by topic');
      expect(rows).toEqual([{ topic: topics.roomEvents, count: 4 }]);
      expect((await parts.metrics.facts.get()).values).toContainEqual(
        expect.objectContaining({ labels: { topic: topics.roomEvents, outcome: 'repeated' }, value: 2 }),
      );
    });

    test('what the database refuses is that letter still, and the order to read it again is none', async () => {
      await parts.pool.query(`alter table members add constraint no_eve check (user_id not like 'eve%')`);
      await tell(created, fact('member.removed', { userId: 'eve' }));
      await tell(action('retried', 1), fact('member.added', { userId: 'cid', role: 'listener' }));
      expect(await letters()).toMatchObject([{ at: 1, reason: 'unstorable', status: 'open' }]);
      expect(await member('cid')).toBeDefined();
      await parts.pool.query('alter table members drop constraint no_eve');
      await tell(action('retried', 1));
      expect(await letters()).toMatchObject([{ at: 1, status: 'retried' }]);
      expect(await member('eve')).toMatchObject({ isRemoved: true, origin: { offset: 1n } });
    });

    test('an action on a letter that became one itself is taken anew, not retried', async () => {
      await tell(created, broken(), fact('dead_letter.discarded', { topic: topics.roomEvents, partition, offset: 1 }));
      await mend(2, { topic: topics.roomEvents, partition, offset: '1' });
      await tell(action('retried', 2));
      expect(await letters()).toMatchObject([
        { at: 1, status: 'open' },
        { at: 2, status: 'open' },
      ]);
      expect(await enter('ann')).toBe('suspect');
    });

    test('five hundred at once, of thirty megabytes', async () => {
      const many = Array.from({ length: 500 }, () => lostRemovalOf('ann', 60_000));
      await parts.append(created);
      for (let at = 0; at < many.length; at += 10) await parts.append(...many.slice(at, at + 10));
      await parts.caughtUp();
      await parts.pool.query(`update dead_letters set value = '{"userId":"ann"}'`);
      await parts.append(...many.map((_, at) => action('retried', at + 1)));
      await parts.caughtUp();
      expect(new Set((await letters()).map(({ status }) => status))).toEqual(new Set(['retried']));
      expect(await enter('ann')).toBe('member_removed');
    });
  });

  const lostRemovalOf = (userId: string, paddingBytes = 0): NewRecord =>
    fact('member.removed', { userId: [userId], padding: 'x'.repeat(paddingBytes) });

  describe('discarded', () => {
    const lost = (userId: string) => fact('member.banned', { userId, privilege: 'join', until: 'soon' });

    test('heals the doubt of that letter and no other', async () => {
      await tell(created, lost('ann'), lost('ann'), lost('bob'));
      await tell(action('discarded', 1));
      expect([await enter('ann'), await enter('bob')]).toEqual(['suspect', 'suspect']);
      await tell(action('discarded', 2));
      expect([await enter('ann'), await enter('bob')]).toEqual(['allow', 'suspect']);
      expect(await letters()).toMatchObject([
        { at: 1, status: 'discarded', settled_at: 4 },
        { at: 2, status: 'discarded', settled_at: 5 },
        { at: 3, status: 'open', settled_at: null },
      ]);
    });

    test('can be retried all the same', async () => {
      await tell(created, broken(), action('discarded', 1));
      expect(await enter('ann')).toBe('allow');
      await mend(1, { userId: 'ann' });
      await tell(action('retried', 1));
      expect(await letters()).toMatchObject([{ at: 1, status: 'retried', settled_at: 3 }]);
      expect(await enter('ann')).toBe('member_removed');
    });

    test('makes no room of the position that names a letter without a key', async () => {
      await tell({ ...broken(), key: null, headers: {} });
      const position = `${topics.roomEvents}/0/0`;
      await tell(
        binaryRecord(
          { id: 'd-1', type: 'dead_letter.discarded', subject: position },
          { topic: topics.roomEvents, partition: 0, offset: '0' },
        ),
      );
      expect(await letters()).toMatchObject([{ status: 'discarded' }]);
      expect((await parts.pool.query('select from rooms')).rowCount).toBe(0);
    });
  });

  describe('published', () => {
    const published = async (): Promise<string[][]> => {
      const { rows } = await parts.pool.query('select headers from log_records where topic = $1 order by "offset"', [
        deadLetterTopic(topics.roomEvents),
      ]);
      const text = (bytes: string): string => Buffer.from(bytes, 'base64').toString();
      return rows.map(({ headers }) => [
        text(headers['kafka_dlt-original-offset']),
        text(headers['kafka_dlt-exception-fqcn']),
      ]);
    };
    const relayed = () =>
      until('all is published', async () => (await letters()).every(({ is_relayed }) => is_relayed));

    test('again when a retry finds another reason, and not when it finds the same', async () => {
      const relay = startRelay({ pool: parts.pool, log: parts.log, metrics: parts.metrics, logger: parts.logger });
      await tell(created, broken());
      await relayed();
      await tell(action('retried', 1));
      await mend(1, { userId: 7 });
      await tell(action('retried', 1));
      await relayed();
      await tell(action('retried', 1), broken());
      await relayed();
      await relay.stop();
      expect(await published()).toEqual([
        ['1', 'not_json'],
        ['1', 'invalid_data'],
        ['5', 'not_json'],
      ]);
    });
  });

  describe('C12: a value that is not plain UTF-8 JSON', () => {
    const json = '{"userId":"ann"}';
    const removal = (value: Buffer | null, key: string | null = room): NewRecord => ({
      ...fact('member.removed', {}),
      key,
      value,
    });
    test.each<[title: string, record: NewRecord, became: string, ann: string]>([
      [
        '1: behind a schema registry prefix',
        removal(Buffer.concat([Buffer.from([0, 0, 0, 0, 12]), Buffer.from(json)])),
        'schema_registry_prefix',
        'suspect',
      ],
      ['2: behind a byte order mark', removal(Buffer.from(`\uFEFF${json}`)), 'applied', 'member_removed'],
      ['3: UTF-16', removal(Buffer.from(`\uFEFF${json}`, 'utf16le')), 'not_utf8', 'suspect'],
      ['4: null, with a key', { ...removal(null), headers: {} }, 'skipped', 'allow'],
      ['4: null, of an event', removal(null), 'invalid_data', 'suspect'],
      ['5: null, without a key', { ...removal(null, null), headers: {} }, 'skipped', 'allow'],
      ['6: zero bytes', removal(Buffer.alloc(0)), 'invalid_data', 'suspect'],
      ['7: cut in half', removal(Buffer.from(json.slice(0, 8))), 'not_json', 'suspect'],
      [
        '8: a lone byte inside an id',
        removal(Buffer.concat([Buffer.from('{"userId":"an'), Buffer.from([0xc3]), Buffer.from('"}')])),
        'not_utf8',
        'suspect',
      ],
      ['9: null as text', removal(Buffer.from('null')), 'invalid_data', 'suspect'],
      ['10: a list', removal(Buffer.from('[]')), 'invalid_data', 'suspect'],
      [
        '11: a mebibyte of brackets, as far as the log takes it',
        removal(Buffer.alloc(990_000, '[')),
        'not_json',
        'suspect',
      ],
      [
        '12: with a prototype',
        removal(Buffer.from('{"__proto__":{"role":"admin"},"userId":"ann"}')),
        'applied',
        'member_removed',
      ],
    ])('%s', async (_, record, became, then) => {
      await tell(created, record, fact('member.added', { userId: 'cid', role: 'listener' }));
      // What a consumer has applied is counted a moment after the commit.
      await until('all three are counted', async () => {
        const { values } = await parts.metrics.facts.get();
        return values.reduce((sum, { value }) => sum + value, 0) === 3;
      });
      const [letter] = await letters();
      const skipped = (await parts.metrics.skipped.get()).values.length > 0;
      expect(letter?.reason ?? (skipped ? 'skipped' : 'applied')).toBe(became);
      expect(await enter('ann')).toBe(then);
      expect(await parts.ask('stay', room, 'ann')).toBe(then === 'member_removed' ? then : 'allow');
      expect(await member('cid')).toMatchObject({ role: 'listener', isRemoved: false });
      expect(({} as Record<string, unknown>).role).toBeUndefined();
      // None of it is lost, none is taken for something else, and each can be given up.
      if (letter === undefined) return;
      const { rows } = await parts.pool.query('select value from dead_letters');
      expect(rows).toEqual([{ value: record.value }]);
      await tell(
        binaryRecord(
          { id: 'd-1', type: 'dead_letter.discarded', subject: room },
          { topic: topics.roomEvents, partition, offset: '1' },
        ),
      );
      expect(await enter('ann')).toBe('allow');
    });
  });

  describe.each(['UTC', 'Asia/Tokyo'])('C17: times that are almost RFC 3339, read in %s', (zone) => {
    beforeEach(() => vi.stubEnv('TZ', zone));
    afterEach(() => vi.unstubAllEnvs());

    test.each<[time: string | undefined, isDead: boolean]>([
      ['2026-03-01T10:00:00.370582GMT', true],
      ['2026-03-01T10:00:00.545218America/Los_Angeles', true],
      ['2026-03-01 10:00:00Z', true],
      ['2026-03-01T10:00:00', true],
      ['2026-03-01T10:00:00.123456789+02:00', false],
      ['2026-02-31T00:00:00Z', true],
      ['1772359200000', true],
      [undefined, false],
      ['9999-12-31T23:59:59Z', false],
    ])('%s', async (time, isDead) => {
      const about = { type: 'member.removed', subject: room, time: '2026-03-01T12:00:00Z' };
      const grant = { ...about, type: 'member.added', time };
      await tell(created, binaryRecord({ ...about, id: 'c17-1', sequence: '5' }, { userId: 'ann' }));
      await tell(binaryRecord({ ...grant, id: 'c17-2', sequence: '4' }, ann));
      expect(await member('ann')).toMatchObject({
        isRemoved: true,
        origin: { timeMs: Date.parse('2026-03-01T12:00:00Z') },
      });
      expect((await letters()).map(({ reason }) => reason)).toEqual(isDead ? ['invalid_envelope'] : []);
      // An operator's retry makes no time of it either.
      await tell(action('retried', 2));
      expect((await letters()).map(({ status }) => status)).toEqual(isDead ? ['open'] : []);
      await tell(binaryRecord({ ...grant, id: 'c17-3', sequence: '6', time: '2026-03-01T12:00:01Z' }, ann));
      expect(await enter('ann')).toBe('allow');
    });
  });

  test('nothing of a letter is in what a consumer reads twice', async () => {
    await tell(created, broken());
    await mend(1, { userId: 'ann' });
    await tell(action('retried', 1));
    const rows = snapshotOf(await readProjection(parts.pool));
    const batch = await readBatch(parts, topics.roomEvents, partition);
    expect(await parts.project(batch)).toEqual({ kind: 'advance', nextOffset: 3n });
    expect(snapshotOf(await readProjection(parts.pool))).toEqual(rows);
  });
});
