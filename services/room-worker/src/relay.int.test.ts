import { setImmediate } from 'node:timers/promises';
import { consumedTopics, deadLetterTopic, readRecord, topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import {
  type EventLog,
  LogUnavailableError,
  maxRecordBytes,
  type NewRecord,
  RecordTooLargeError,
  recordBytes,
} from '@realtime-service/event-log';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { roomRecord, startProjection, type TestProjection } from '../test/projection.ts';
import { toLivekitRecord } from './livekit-record.ts';
import { startRelay } from './relay.ts';

interface Published {
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer>>;
}

describeWith(['postgres'], 'the relay', () => {
  let parts: TestProjection;

  beforeEach(async () => {
    parts = await startProjection();
    parts.consume();
  });
  afterEach(() => parts.stop());

  const start = (log: EventLog = parts.log) =>
    startRelay({ pool: parts.pool, log, metrics: parts.metrics, logger: parts.logger });

  const published = async (topic: string): Promise<Published[]> => {
    const { rows } = await parts.pool.query(
      'select key, value, headers from log_records where topic = $1 order by "partition", "offset"',
      [topic],
    );
    return rows.map(({ key, value, headers }) => ({
      key,
      value,
      headers: Object.fromEntries(
        Object.entries(headers as Record<string, string>).map(([name, text]) => [name, Buffer.from(text, 'base64')]),
      ),
    }));
  };
  const waiting = async (): Promise<number> => {
    const { rows } = await parts.pool.query(
      'select (select count(*) from outbox)::int + (select count(*) from dead_letters where not is_relayed)::int as n',
    );
    return rows[0].n;
  };
  const relayed = () => until('everything is relayed', async () => (await waiting()) === 0);

  let told = 0;
  const webhook = (room: string, event: string, participant?: object): NewRecord => {
    told += 1;
    const data = {
      event,
      room: { sid: `RM_${room}`, name: room, creationTimeMs: 1_000 },
      ...(participant && { participant }),
    };
    return toLivekitRecord(
      {
        id: `w-${told}`,
        source: 'livekit',
        type: `livekit.${event}`,
        roomName: room,
        timeMs: undefined,
        traceparent: undefined,
      },
      data,
    );
  };
  const person = (name: string, changes: object = {}) => ({
    sid: `PA_${name}`,
    identity: name,
    joinedAtMs: 2_000,
    attributes: { 'rt.user': name },
    ...changes,
  });
  const aCall = (room: string): NewRecord[] => [
    webhook(room, 'room_started'),
    webhook(room, 'participant_joined', person('ann')),
    webhook(room, 'participant_joined', person('bob')),
    webhook(room, 'participant_left', person('bob', { disconnectReason: 'PARTICIPANT_REMOVED' })),
    webhook(room, 'participant_left', person('ann', { disconnectReason: 'CLIENT_INITIATED' })),
    webhook(room, 'room_finished'),
  ];
  const storyOf = (room: string, events: readonly Published[]): string[] =>
    events
      .filter(({ key }) => key?.toString() === room)
      .map((record) => {
        const reading = readRecord(record);
        if (reading.kind !== 'event') throw new Error(reading.kind);
        return reading.event.context.id;
      });
  /** Ids name the change and where it was told, whoever relays it. */
  const story = (room: string): unknown[] =>
    [
      `room.live_started:RM_${room}`,
      'participant.joined:PA_ann',
      'participant.joined:PA_bob',
      'participant.removed:PA_bob',
      'participant.left:PA_ann',
      `room.live_ended:RM_${room}`,
    ].map((id) => expect.stringMatching(new RegExp(`^${id}\\b`)));

  describe('presence', () => {
    test('events come in order per room, as CloudEvents of its key', async () => {
      const rooms = ['one', 'two', 'three'];
      await parts.append(...rooms.flatMap(aCall));
      await parts.caughtUp();
      const relay = start();
      await relayed();
      await relay.stop();
      const events = await published(topics.presence);
      for (const room of rooms) expect(storyOf(room, events)).toEqual(story(room));
      const removed = events
        .map(readRecord)
        .find((reading) => reading.kind === 'event' && reading.event.context.type === 'participant.removed');
      expect(removed).toMatchObject({
        event: { context: { subject: expect.any(String) }, data: { userId: 'bob', reason: 'PARTICIPANT_REMOVED' } },
      });
    });

    test('a crash between acknowledgement and commit repeats the same ids in the same order', async () => {
      await parts.append(...aCall('one'));
      await parts.caughtUp();
      let crashes = 2;
      const relay = start({
        ...parts.log,
        append: async (records, timeoutMs) => {
          const positions = await parts.log.append(records, timeoutMs);
          crashes -= 1;
          if (crashes >= 0) throw new Error('crashed after the acknowledgement');
          return positions;
        },
      });
      await until('it was sent and not committed', () => crashes < 2);
      await relay.stop();
      const next = start();
      await relayed();
      await next.stop();
      const told = storyOf('one', await published(topics.presence));
      expect(told.length).toBeGreaterThan(story('one').length);
      expect([...new Set(told)]).toEqual(story('one'));
      const [once, ...repeats] = Array.from({ length: told.length / story('one').length }, (_, at) =>
        told.slice(at * story('one').length, (at + 1) * story('one').length),
      );
      for (const repeat of repeats) expect(repeat).toEqual(once);
    });

    test('while the log is away nothing is lost, and nothing is dropped from the queue', async () => {
      await parts.append(...aCall('one'));
      await parts.caughtUp();
      let tries = 0;
      const relay = start({
        ...parts.log,
        append: async () => {
          tries += 1;
          throw new Error('away');
        },
      });
      await until('it tried', () => tries > 0);
      await relay.stop();
      expect(await waiting()).toBe(story('one').length);
    });
  });

  describe('the duty', () => {
    const counting = (name: string, sent: string[]): EventLog => ({
      ...parts.log,
      append: (records, timeoutMs) => {
        sent.push(name);
        return parts.log.append(records, timeoutMs);
      },
    });

    test("is one's at a time, and another's at once after its release", async () => {
      const sent: string[] = [];
      const first = start(counting('first', sent));
      await until('the first has the duty', async () => (await parts.pool.query('select from duties')).rowCount === 1);
      const second = start(counting('second', sent));
      await parts.append(...aCall('one'));
      await parts.caughtUp();
      await relayed();
      expect(new Set(sent)).toEqual(new Set(['first']));
      await first.stop();
      await parts.append(...aCall('two'));
      await parts.caughtUp();
      await relayed();
      expect(sent.at(-1)).toBe('second');
      await second.stop();
      expect((await parts.pool.query('select from duties')).rowCount).toBe(0);
    });

    test("is asked for again after a third of its time, and whoever finds it another's publishes no more", async () => {
      const sent: string[] = [];
      const relay = start(counting('first', sent));
      await until('it has the duty', async () => (await parts.pool.query('select from duties')).rowCount === 1);
      await parts.pool.query(
        `update duties set holder = 'another', held_until = clock_timestamp() + interval '15 seconds'`,
      );
      const queries = vi.spyOn(parts.pool, 'query');
      const now = performance.now.bind(performance);
      const clock = vi.spyOn(performance, 'now').mockImplementation(() => now() + 5_001);
      const answers = () =>
        queries.mock.settledResults.filter(
          ({ type }, at) => type === 'fulfilled' && String(queries.mock.calls[at]?.[0]).includes('into duties'),
        ).length;
      try {
        await until('it was told that another has it', () => answers() > 0);
        await parts.append(...aCall('one'));
        await parts.caughtUp();
        const before = answers();
        await until('it has asked again', () => answers() > before + consumedTopics.length + 1);
        expect(sent).toEqual([]);
      } finally {
        clock.mockRestore();
        queries.mockRestore();
        await relay.stop();
      }
    });
  });

  describe('dead letters', () => {
    const broken = (value: Buffer | null, headers: Record<string, string | Buffer> = {}): NewRecord => {
      const record = roomRecord(['member.removed', 'one']);
      return { ...record, value, headers: { ...record.headers, ...headers } };
    };
    const relayAll = async (...records: readonly NewRecord[]): Promise<Published[]> => {
      for (const record of records) await parts.append(record);
      await parts.caughtUp();
      const relay = start();
      await relayed();
      await relay.stop();
      return published(deadLetterTopic(topics.roomEvents));
    };

    test('keep key, bytes and headers, and say where they stood and why', async () => {
      const value = Buffer.from([0xff, 0x00, 0x7b]);
      const bytes = Buffer.from([0xff, 0xfe]);
      const record = broken(value, { 'x-bytes': bytes });
      const [letter, ...more] = await relayAll(record);
      expect(more).toEqual([]);
      expect(letter).toMatchObject({ key: Buffer.from('one'), value });
      const { headers } = letter as Published;
      for (const [name, sent] of Object.entries(record.headers)) expect(headers[name]).toEqual(Buffer.from(sent));
      const told = Object.fromEntries(
        Object.entries(headers)
          .filter(([name]) => name.startsWith('kafka_dlt-'))
          .map(([name, text]) => [name, text.toString()]),
      );
      expect(told).toEqual({
        'kafka_dlt-original-topic': topics.roomEvents,
        'kafka_dlt-original-partition': expect.stringMatching(/^\d+$/),
        'kafka_dlt-original-offset': '0',
        'kafka_dlt-original-timestamp': expect.stringMatching(/^\d{13}$/),
        'kafka_dlt-exception-fqcn': 'not_utf8',
        'kafka_dlt-exception-message': 'not_utf8',
      });
    });

    test.each(consumedTopics)('of %s keep nothing else waiting where their topic is not to be had', async (away) => {
      const other = away === topics.roomEvents ? topics.livekitWebhooks : topics.roomEvents;
      await parts.append(
        broken(Buffer.from('{')),
        { ...webhook('one', 'room_started'), value: Buffer.from('{') },
        ...aCall('two'),
      );
      await parts.caughtUp();
      const isOver = Promise.withResolvers<void>();
      const relay = start({
        ...parts.log,
        append: async (records, timeoutMs) => {
          if (records.every(({ topic }) => topic !== deadLetterTopic(away)))
            return parts.log.append(records, timeoutMs);
          await isOver.promise;
          throw new LogUnavailableError('there is no such topic');
        },
      });
      try {
        await until('all others are relayed', async () => (await waiting()) === 1);
      } finally {
        isOver.resolve();
        await relay.stop();
      }
      expect(await waiting()).toBe(1);
      expect(await published(deadLetterTopic(other))).toHaveLength(1);
      expect(storyOf('two', await published(topics.presence))).toEqual(story('two'));
    });

    test('one that its topic finds too large travels without its value, and holds up no other', async () => {
      const large = broken(Buffer.alloc(5_000, '['));
      const withHeader = broken(Buffer.from('{'), { 'x-large': 'h'.repeat(5_000) });
      for (const record of [large, withHeader, broken(Buffer.from('{'))]) await parts.append(record);
      await parts.caughtUp();
      const relay = start({
        ...parts.log,
        append: (records, timeoutMs) =>
          records.some((record) => recordBytes(record) > 4_000)
            ? Promise.reject(new RecordTooLargeError('the topic takes less'))
            : parts.log.append(records, timeoutMs),
      });
      await relayed();
      await relay.stop();
      const letters = await published(deadLetterTopic(topics.roomEvents));
      const told = letters.map(({ key, value, headers }) => [
        headers['kafka_dlt-original-offset']?.toString(),
        key?.toString(),
        value?.toString(),
      ]);
      expect(told.sort()).toEqual([
        ['0', 'one', undefined],
        ['1', undefined, undefined],
        ['2', 'one', '{'],
      ]);
    });

    test('one that the log does not take now has none published again', async () => {
      for (let at = 0; at < 5; at += 1) await parts.append(broken(Buffer.from('{')));
      await parts.caughtUp();
      let refusals = 2;
      const relay = start({
        ...parts.log,
        append: async (records, timeoutMs) => {
          const isThird = records[0]?.headers['kafka_dlt-original-offset'] === '2';
          if (!isThird || refusals === 0) return parts.log.append(records, timeoutMs);
          refusals -= 1;
          throw new LogUnavailableError('it took too long');
        },
      });
      await relayed();
      await relay.stop();
      const letters = await published(deadLetterTopic(topics.roomEvents));
      expect(letters.map(({ headers }) => headers['kafka_dlt-original-offset']?.toString())).toEqual([
        '0',
        '1',
        '2',
        '3',
        '4',
      ]);
    });

    test('one that is read again while it is published keeps nobody waiting, and is told with its new reason too', async () => {
      await parts.append(broken(Buffer.from('{')));
      await parts.caughtUp();
      let isFirst = true;
      const relay = start({
        ...parts.log,
        append: async (records, timeoutMs) => {
          const isReadAgain = isFirst;
          isFirst = false;
          if (isReadAgain)
            await parts.pool.query(
              `begin; set local lock_timeout = 100; update dead_letters set reason = 'not_utf8'; commit`,
            );
          return parts.log.append(records, timeoutMs);
        },
      });
      await relayed();
      await relay.stop();
      const letters = await published(deadLetterTopic(topics.roomEvents));
      expect(letters.map(({ headers }) => headers['kafka_dlt-exception-fqcn']?.toString())).toEqual([
        'not_json',
        'not_utf8',
      ]);
    });

    test('a null key and a null value stay null', async () => {
      const [letter] = await relayAll({ ...broken(null), key: null });
      expect(letter).toMatchObject({ key: null, value: null });
    });

    test('are sent once', async () => {
      await relayAll(broken(Buffer.from('{')));
      const relay = start();
      await parts.append(...aCall('one'));
      await parts.caughtUp();
      await relayed();
      await relay.stop();
      expect(await published(deadLetterTopic(topics.roomEvents))).toHaveLength(1);
    });

    test('one that our headers make too large travels without its value, and holds up no other', async () => {
      const spareBytes = maxRecordBytes - recordBytes(broken(Buffer.from('{'), { 'x-large': '' })) - 10;
      const largest = broken(Buffer.alloc(spareBytes, '['));
      const headersOnly = broken(Buffer.from('{'), { 'x-large': 'h'.repeat(spareBytes) });
      const small = broken(Buffer.from('{'));
      const letters = await relayAll(largest, headersOnly, small);
      expect(
        letters
          .map(({ key, value, headers }) => [
            key?.toString(),
            value?.toString().slice(0, 9),
            headers['kafka_dlt-original-offset']?.toString(),
          ])
          .sort((a, b) => Number(a[2]) - Number(b[2])),
      ).toEqual([
        ['one', undefined, '0'],
        [undefined, undefined, '1'],
        ['one', '{', '2'],
      ]);
      const withoutValue = letters.find(({ headers }) => headers['kafka_dlt-original-offset']?.toString() === '0');
      expect(withoutValue?.headers['ce_type']?.toString()).toBe('member.removed');
      const { rows } = await parts.pool.query(
        'select octet_length(value) as bytes from dead_letters order by "offset"',
      );
      expect(rows[0].bytes).toBe(spareBytes);
    });

    test('of which many are large go in parts that fit into memory and into the log', async () => {
      await parts.pool.query(
        `insert into dead_letters (topic, "partition", "offset", recorded_at, key, value, headers, reason, message)
          select $1, 0, at, now(), null, convert_to(repeat('[', 900000), 'utf8'), '{}', 'not_json', '' from generate_series(0, 89) as at`,
        [topics.roomEvents],
      );
      let [sent, atOnce, mostAtOnce] = [0, 0, 0];
      const relay = start({
        ...parts.log,
        append: async (records) => {
          const bytes = records.reduce((sum, record) => sum + recordBytes(record), 0);
          sent += bytes;
          atOnce += bytes;
          mostAtOnce = Math.max(mostAtOnce, atOnce);
          await setImmediate();
          atOnce -= bytes;
          return [];
        },
      });
      await relayed();
      await relay.stop();
      expect(sent).toBeGreaterThan(80_000_000);
      expect(mostAtOnce).toBeLessThan(32_000_000);
    });
  });
});
