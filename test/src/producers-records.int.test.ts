/** Records as clients and tools of many kinds write them, byte for byte, and what the real worker makes of them. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Command, runCommand, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import kafkajs, { type Message } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type KafkaProjection, type Member, partitionOf, startKafkaProjection, topic } from './kafka-projection.ts';

type Attributes = Readonly<Record<string, string>>;
interface Written {
  readonly key: string | Buffer;
  readonly headers: Record<string, string | Buffer>;
  readonly value: string | Buffer;
}

const user = 'u-7';
const added = { userId: user, role: 'speaker' };
let written = 0;
const attributesOf = (subject: string, more: Attributes = {}): Attributes => {
  written += 1;
  return { specversion: '1.0', id: `written-${written}`, source: '/tests', type: 'member.added', subject, ...more };
};

/** Binary mode, but for what a test changes. */
const binary = (room: string, more?: Attributes, data: object = added): Written => ({
  key: room,
  headers: {
    'content-type': 'application/json',
    ...Object.fromEntries(Object.entries(attributesOf(room, more)).map(([name, text]) => [`ce_${name}`, text])),
  },
  value: JSON.stringify(data),
});
const structured = (room: string, contentType: string, more?: object): Written => ({
  key: room,
  headers: { 'content-type': contentType },
  value: JSON.stringify({ ...attributesOf(room), ...more, data: added }),
});
const withHeaders = (record: Written, change: (name: string) => string): Written => ({
  ...record,
  headers: Object.fromEntries(Object.entries(record.headers).map(([name, text]) => [change(name), text])),
});
const withHeader = (record: Written, name: string, value: string | Buffer): Written => ({
  ...record,
  headers: { ...record.headers, [name]: value },
});
const withContentType = (record: Written, contentType: string): Written =>
  withHeader(record, 'content-type', contentType);
const withoutContentType = ({ headers: { 'content-type': _, ...headers }, ...rest }: Written): Written => ({
  ...rest,
  headers,
});
/** A placeholder of one character in the value becomes these bytes. */
const withBytes = (record: Written, bytes: Buffer): Written => {
  const [before = '', after = ''] = String(record.value).split('#');
  return { ...record, value: Buffer.concat([Buffer.from(before), bytes, Buffer.from(after)]) };
};

/** What clients and tools do to headers, and what must come of it beside a member who is a speaker. */
interface Quirk {
  readonly name: string;
  readonly write: (room: string) => Written;
  readonly expected?: Partial<Member>;
}

const quirks: readonly Quirk[] = [
  { name: 'names in upper case', write: (room) => withHeaders(binary(room), (name) => name.toUpperCase()) },
  {
    name: 'Content-Type',
    write: (room) => withHeaders(binary(room), (name) => name.replace('content-type', 'Content-Type')),
  },
  { name: 'no content type', write: (room) => withoutContentType(binary(room)) },
  { name: 'a charset', write: (room) => withContentType(binary(room), 'application/json; charset=utf-8') },
  { name: 'another JSON', write: (room) => withContentType(binary(room), 'application/vnd.rooms+json;charset=UTF-8') },
  { name: 'structured', write: (room) => structured(room, 'application/cloudevents+json') },
  {
    name: 'structured with a charset',
    write: (room) => structured(room, 'application/cloudevents+json; charset=UTF-8'),
  },
  { name: 'structured in capitals', write: (room) => structured(room, 'Application/CloudEvents+JSON') },
  {
    name: 'structured in upper case',
    write: (room) => withHeaders(structured(room, 'application/cloudevents+json'), (name) => name.toUpperCase()),
  },
  {
    name: 'extensions that nobody knows',
    write: (room) => binary(room, { partitionkey: 'x', dataschema: 'https://example.test/1', 'b3-x': '' }),
  },
  { name: 'a trace that is none', write: (room) => binary(room, { traceparent: 'garbage' }) },
  {
    name: 'a byte order mark before the data',
    write: (room) => ({ ...binary(room), value: `\ufeff${JSON.stringify(added)}` }),
  },
  {
    name: 'a time with nanoseconds and offset',
    write: (room) => binary(room, { time: '2026-03-01T10:00:00.123456789+02:00' }),
    expected: { fact_at: new Date('2026-03-01T08:00:00.123Z') },
  },
  {
    name: 'a time west of Greenwich',
    write: (room) => binary(room, { time: '2026-03-01T10:00:00.5-05:45' }),
    expected: { fact_at: new Date('2026-03-01T15:45:00.500Z') },
  },
  {
    name: 'a time in UTC',
    write: (room) => binary(room, { time: '2026-03-01T10:00:00Z' }),
    expected: { fact_at: new Date('2026-03-01T10:00:00Z') },
  },
  { name: 'a sequence', write: (room) => binary(room, { sequence: '7' }), expected: { sequence: '7' } },
  {
    name: 'a padded sequence',
    write: (room) => binary(room, { sequence: '00000000000000000007' }),
    expected: { sequence: '7' },
  },
  {
    name: 'the longest sequence',
    write: (room) => binary(room, { sequence: '9'.repeat(39) }),
    expected: { sequence: '9'.repeat(39) },
  },
];

describeWith(['postgres', 'kafka'], 'what producers write', () => {
  let kafka: KafkaProjection;
  beforeAll(async () => {
    kafka = await startKafkaProjection();
  }, 120_000);
  afterAll(() => kafka?.stop(), 60_000);

  const send = (...messages: readonly Message[]) => kafka.producer.send({ topic, messages: [...messages] });
  const isMember = (room: string, withinMs?: number) =>
    until(`somebody is in ${room}`, () => kafka.memberOf(room, user), withinMs);

  /** Writes records with a client of another language. */
  const writeWith =
    ({ command, args, env }: Command) =>
    async (records: readonly Written[]): Promise<void> => {
      const file = join(kafka.directory, 'records');
      const base64 = (text: string | Buffer): string =>
        (typeof text === 'string' ? Buffer.from(text) : text).toString('base64');
      const lines = records.map(({ key, value, headers }) =>
        [key, value, ...Object.entries(headers).flat()].map(base64).join(' '),
      );
      writeFileSync(file, lines.map((line) => `${line}\n`).join(''));
      await runCommand({ command, args: [...args, kafka.broker.brokers.join(), topic, file], env: { ...env } });
    };
  const writer = (name: string): string => join(import.meta.dirname, 'producers-writers', name);

  const headersAreRead = (language: string, write: (records: readonly Written[]) => Promise<unknown>): void => {
    const roomOf = (name: string): string => `${language}: ${name}`;
    beforeAll(() => write(quirks.map((quirk) => quirk.write(roomOf(quirk.name)))));

    test.each(quirks)('$name', async ({ name, expected }) => {
      const member = await isMember(roomOf(name));
      expect(member).toMatchObject({ role: 'speaker', is_removed: false, ...expected });
    });
  };
  describe('headers as kafkajs writes them', () => headersAreRead('kafkajs', (records) => send(...records)));
  describeWith(['java'], 'headers as Java writes them', ({ java }) =>
    headersAreRead('java', writeWith({ ...java, args: [...java.args, writer('write.java')] })),
  );
  describeWith(['python'], 'headers as Python writes them', ({ python }) =>
    headersAreRead('python', writeWith({ ...python, args: [...python.args, writer('write.py')] })),
  );
  describeWith(['go'], 'headers as Go writes them', () => {
    const module = join(import.meta.dirname, '../../docs/producers/go');
    headersAreRead('go', writeWith({ command: 'go', args: ['run', '-C', module, writer('write.go')] }));
  });

  describe('attributes', () => {
    test('a structured event that does not say so is a dead letter', async () => {
      const room = 'headers: structured, silent';
      await send(withoutContentType(structured(room, '')));
      await kafka.untilCaughtUp();
      expect(await kafka.deadLettersOf(room)).toMatchObject([{ reason: 'invalid_envelope' }]);
    });

    test('a time without seconds, as Java writes 10:00:00, is a dead letter', async () => {
      const room = 'time without seconds';
      await send(binary(room, { time: '2026-03-01T10:00Z' }));
      await kafka.untilCaughtUp();
      expect(await kafka.deadLettersOf(room)).toMatchObject([{ reason: 'invalid_envelope' }]);
    });

    test('sequences are compared as numbers, padded or not', async () => {
      const room = 'sequences';
      for (const [sequence, role] of [
        ['9', 'listener'],
        ['0010', 'host'],
        ['00000009', 'speaker'],
      ] as const)
        await send(binary(room, { sequence }, { ...added, role }));
      await kafka.untilCaughtUp();
      expect(await kafka.memberOf(room, user)).toMatchObject({ role: 'host', sequence: '10' });
    });
  });

  describe('C17: an older fact with a time that is almost RFC 3339', () => {
    test.each([
      ['a zone name', '2026-03-01T10:00:00.370582GMT', true],
      ['a region', '2026-03-01T10:00:00.545218America/Los_Angeles', true],
      ['a space', '2026-03-01 10:00:00Z', true],
      ['no offset', '2026-03-01T10:00:00', true],
      ['nanoseconds', '2026-03-01T10:00:00.123456789+02:00', false],
      ['a day that is none', '2026-02-31T00:00:00Z', true],
      ['milliseconds', '1772359200000', true],
      ['none', undefined, false],
      ['the end of days', '9999-12-31T23:59:59Z', false],
    ])('%s', async (name, time, isRefused) => {
      const room = `almost: ${name}`;
      const removal = { type: 'member.removed', time: '2026-03-01T12:00:00Z', sequence: '5' };
      await send(
        binary(room, { time: '2026-03-01T09:00:00Z', sequence: '3' }),
        binary(room, removal, { userId: user }),
        binary(room, { sequence: '4', ...(time === undefined ? {} : { time }) }),
        binary(room, { sequence: '1' }, { ...added, userId: 'behind' }),
      );
      await until('the good one behind it counts', () => kafka.memberOf(room, 'behind'), 5_000);
      expect(await kafka.memberOf(room, user)).toMatchObject({ is_removed: true, sequence: '5' });
      const reasons = (await kafka.deadLettersOf(room)).map(({ reason }) => reason);
      expect(reasons).toEqual(isRefused ? ['invalid_envelope'] : []);

      await send(binary(room, { time: '2026-03-01T12:00:01Z', sequence: '6' }));
      await kafka.untilCaughtUp();
      expect(await kafka.memberOf(room, user)).toMatchObject({ is_removed: false, sequence: '6' });
    });
  });

  describe('is a dead letter, alone', () => {
    const surrogate = Buffer.from([0xed, 0xa0, 0x80]);
    const edge = '🎥'.repeat(65);
    test.each<[string, string, (room: string) => Written]>([
      ['C19: NUL in an id', 'invalid_data', (room) => binary(room, {}, { ...added, userId: 'a\0b' })],
      ['C19: a bare NUL', 'not_json', (room) => withBytes(binary(room, {}, { ...added, userId: 'a#b' }), Buffer.of(0))],
      ['an escaped lone surrogate', 'invalid_data', (room) => binary(room, {}, { ...added, userId: 'a\ud800' })],
      [
        'the bytes of a lone surrogate',
        'not_utf8',
        (room) => withBytes(binary(room, {}, { ...added, userId: 'a#' }), surrogate),
      ],
      ['NUL in the event id', 'invalid_envelope', (room) => binary(room, { id: 'a\0b' })],
      ['a lone surrogate in a header', 'invalid_envelope', (room) => withHeader(binary(room), 'ce_id', surrogate)],
      ['NUL in the name of a header', 'not_json', (room) => ({ ...withHeader(binary(room), 'x\0y', 'z'), value: '{' })],
      [
        'a lone surrogate in a structured subject',
        'invalid_envelope',
        (room) => structured(room, 'application/cloudevents+json', { subject: 'a\udfff' }),
      ],
      ['the key of another room', 'key_mismatch', (room) => binary(room, { subject: `not ${room}` })],
      ['another spelling of the key', 'key_mismatch', (room) => binary(room, { subject: room.normalize('NFD') })],
      ['a user id of 192 bytes', 'invalid_data', (room) => binary(room, {}, { ...added, userId: `${'é'.repeat(96)}` })],
    ])('%s', async (name, reason, write) => {
      const room = `café: ${name}`;
      await send(
        binary(room, {}, { ...added, userId: 'before' }),
        write(room),
        binary(room, {}, { ...added, userId: 'behind' }),
      );
      await until('the good one behind it counts', () => kafka.memberOf(room, 'behind'), 5_000);
      expect((await kafka.deadLettersOf(room)).map((each) => each.reason)).toEqual([reason]);
      const members = (await kafka.membersOf(room)).map(({ user_id }) => user_id);
      expect(members.sort()).toEqual(['before', 'behind']);
      expect((await fetch(`${kafka.worker.opsUrl}/readyz`)).status).toBe(200);
    });

    test.each([
      ['C19: a room id of 260 bytes', edge],
      ['C19: NUL in the room id', 'a\0b'],
    ])('%s', async (_, room) => {
      const good = `behind ${_}`;
      const partition = partitionOf(good);
      await send({ ...binary(room), partition }, binary(good));
      await isMember(good, 5_000);
      expect((await kafka.deadLettersOf(room)).map((each) => each.reason)).toEqual(['invalid_envelope']);
    });

    test('a key that is no UTF-8', async () => {
      const good = 'behind a broken key';
      const key = Buffer.from([0x61, 0xff]);
      await send({ ...binary(good), key, partition: partitionOf(good) }, binary(good));
      await isMember(good, 5_000);
      expect((await kafka.deadLettersOf(key)).map((each) => each.reason)).toEqual(['key_mismatch']);
    });
  });

  test('C14: aborted facts have no effect, markers and holes leave no lag', async () => {
    const room = 'transactions';
    const producer = kafka.client.producer({
      createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
      transactionalId: 'rooms',
      idempotent: true,
      maxInFlightRequests: 1,
    });
    await producer.connect();
    const transact = async (end: 'commit' | 'abort', messages: readonly Message[]): Promise<void> => {
      const transaction = await producer.transaction();
      await transaction.send({ topic, messages: [...messages] });
      await transaction[end]();
    };
    const removal = () => binary(room, { type: 'member.removed' }, { userId: user });
    await transact('commit', [binary(room)]);
    await transact('abort', [removal()]);
    for (let i = 0; i < 3; i += 1) await transact('abort', [removal()]);
    await transact('abort', Array.from({ length: 5_000 }, removal));
    await send(binary(room, {}, { ...added, userId: 'behind' }));
    await until('the good one behind them counts', () => kafka.memberOf(room, 'behind'), 5_000);
    expect(await kafka.memberOf(room, user)).toMatchObject({ is_removed: false });

    await transact('abort', [removal()]);
    await kafka.untilCaughtUp(5_000);
    await until('no lag is left', async () => {
      const lags = await kafka.metric('kafka_consumergroup_lag');
      return lags.length > 0 && lags.every((lag) => lag === 0);
    });
    await producer.disconnect();
  });
});
