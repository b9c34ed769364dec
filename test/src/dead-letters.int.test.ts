import { deadLetterTopic, topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import type { Message } from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Ended, runRealtime } from '../../services/cli/test/run-realtime.ts';
import { type KafkaProjection, partitionOf, startKafkaProjection } from './kafka-projection.ts';

const room = 'room-42';
const partition = partitionOf(room);
const dlt = deadLetterTopic(topics.roomEvents);

interface Letter {
  readonly partition: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer>>;
}

describeWith(['postgres', 'kafka'], 'dead letters on a real broker', () => {
  let kafka: KafkaProjection;
  const letters: Letter[] = [];

  beforeAll(async () => {
    kafka = await startKafkaProjection();
    const consumer = kafka.client.consumer({ groupId: 'producers' });
    await consumer.connect();
    await consumer.subscribe({ topic: dlt, fromBeginning: true });
    await consumer.run({
      eachMessage: async ({ partition: at, message: { key, value, headers = {} } }) => {
        const bytes = Object.entries(headers).map(([name, header]) => [name, Buffer.from(header as Buffer)]);
        letters.push({ partition: at, key, value, headers: Object.fromEntries(bytes) });
      },
    });
    return () => consumer.disconnect();
  }, 120_000);
  afterAll(() => kafka?.stop(), 60_000);

  const realtime = (...args: readonly string[]): Promise<Ended> =>
    runRealtime(
      { DATABASE_URL: kafka.databaseUrl, KAFKA_BROKERS: kafka.broker.brokers.join() },
      'dead-letters',
      ...args,
    );
  let sent = 0;
  const record = (type: string, value: string | Buffer, headers: Message['headers'] = {}): Message => {
    sent += 1;
    const context = { ce_specversion: '1.0', ce_id: `d-${sent}`, ce_source: '/tests', ce_type: type, ce_subject: room };
    return { key: room, value, headers: { ...context, 'content-type': 'application/json', ...headers } };
  };
  const metrics = async (): Promise<string> => (await fetch(`${kafka.worker.opsUrl}/metrics`)).text();
  const doubts = async (): Promise<number[]> => {
    const { rows } = await kafka.pool.query(
      'select cause_offset from suspects where not is_healed order by cause_offset',
    );
    return rows.map(({ cause_offset }) => Number(cause_offset));
  };

  test('a producer gets its record back as it was; operators give it up or have it read again, by the log', async () => {
    const broken = Buffer.from([0x7b, 0xc3, 0x22]);
    const members = ['ann', 'bob'].map((userId) => ({ userId, role: 'speaker' }));
    await kafka.producer.send({
      topic: topics.roomEvents,
      messages: [
        record('room.created', JSON.stringify({ members })),
        record('member.removed', broken, { 'x-bytes': Buffer.from([0xff, 0x00]) }),
        record('member.removed', JSON.stringify({ userId: ['ann'] })),
      ],
    });
    await kafka.untilCaughtUp();
    expect(await doubts()).toEqual([1, 2]);

    await until('those on call are told', async () => (await metrics()).includes('\nrealtime_dead_letters_open 2\n'));
    await until('both are published', () => letters.length === 2);
    const [first] = letters;
    expect(first).toMatchObject({ partition, key: Buffer.from(room), value: broken });
    const told = Object.entries(first?.headers ?? {}).map(([name, bytes]) => [name, bytes.toString('latin1')]);
    expect(Object.fromEntries(told)).toEqual({
      'content-type': 'application/json',
      ce_specversion: '1.0',
      ce_id: 'd-2',
      ce_source: '/tests',
      ce_type: 'member.removed',
      ce_subject: room,
      'x-bytes': '\u00ff\u0000',
      // The last hop's, as on every record that a traced process sends.
      traceparent: expect.any(String),
      'kafka_dlt-original-topic': topics.roomEvents,
      'kafka_dlt-original-partition': String(partition),
      'kafka_dlt-original-offset': '1',
      'kafka_dlt-original-timestamp': expect.stringMatching(/^\d{13}$/),
      'kafka_dlt-exception-fqcn': 'not_utf8',
      'kafka_dlt-exception-message': 'not_utf8',
    });

    const discarded = await realtime('discard', '--where', 'reason=not_utf8', '--yes');
    expect(discarded).toEqual({ code: 0, stdout: '', stderr: '1 dead letter discarded.\n' });
    expect(await doubts()).toEqual([2]);

    // As a decoder that reads other reasons would have it.
    await kafka.pool.query(`update dead_letters set value = '{' where "offset" = 2`);
    const retried = await realtime('retry', `${topics.roomEvents}/${partition}/2`, '--yes');
    expect(retried.stderr).toBe('0 dead letters retried.\n1 cannot be read still (1 not_json).\n');
    await until('the new reason is published', () => letters.length === 3);
    expect(letters[2]?.headers['kafka_dlt-original-offset']?.toString()).toBe('2');
    expect(letters[2]?.headers['kafka_dlt-exception-fqcn']?.toString()).toBe('not_json');

    await kafka.pool.query(`update dead_letters set value = '{"userId":"ann"}' where "offset" = 2`);
    expect(await realtime('retry', '--where', `room=${room}`, '--yes')).toMatchObject({ code: 0 });
    expect(await doubts()).toEqual([]);
    expect(await kafka.memberOf(room, 'ann')).toMatchObject({ is_removed: true, partition });
    expect(await kafka.memberOf(room, 'bob')).toMatchObject({ is_removed: false });
  }, 90_000);
});
