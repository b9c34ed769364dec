/** Creates a room with members and makes the first of them its host. */
import { createHash, randomUUID } from 'node:crypto';
import {
  type MessageProducer,
  mediaTypes,
  type ProducerMessage,
  RoomEventPublisher,
} from '@realtime-service/contracts';
import kafkajs from 'kafkajs';

const { CompressionTypes, Kafka, logLevel, Partitioners } = kafkajs;
const [brokers, codec, mode, transactional, room, ...users] = process.argv.slice(2);
const [host] = users;
if (brokers === undefined || room === undefined || host === undefined)
  throw new Error('<brokers> <none|gzip> <binary|structured> <transactional> <room> <user>...');

const isTransactional = transactional === 'true';
const producer = new Kafka({ brokers: brokers.split(','), logLevel: logLevel.ERROR }).producer({
  // kafkajs' default since version 2, and murmur2 as Java has it; without it kafkajs warns.
  createPartitioner: Partitioners.DefaultPartitioner,
  // A topic that a record makes keeps it for a week.
  allowAutoTopicCreation: false,
  // Not `idempotent`: as kafkajs has it, that loses what was acknowledged when a connection breaks.
  // The default timeout is a minute: so long the partition would be held up by what a crash left open.
  ...(isTransactional
    ? { transactionalId: `rooms-${randomUUID()}`, transactionTimeout: 10_000, maxInFlightRequests: 1 }
    : {}),
});
await producer.connect();
const sender = isTransactional ? await producer.transaction() : undefined;

const publisher = new RoomEventPublisher({
  source: '/examples/kafkajs',
  producer: {
    send: ({ topic, messages }) =>
      (sender ?? producer).send({
        topic,
        acks: -1,
        compression: codec === 'gzip' ? CompressionTypes.GZIP : CompressionTypes.None,
        messages: mode === 'structured' ? messages.map(toStructured) : messages,
      }),
  } satisfies MessageProducer,
});
const traceparent = process.env['TRACEPARENT'];
await publisher.publish([
  {
    id: idOf('room.created'),
    type: 'room.created',
    subject: room,
    sequence: 1,
    data: { name: 'Made in TypeScript', members: users.map((userId) => ({ userId, role: 'speaker' })) },
    traceparent,
  },
  {
    id: idOf('member.updated'),
    type: 'member.updated',
    subject: room,
    sequence: 2,
    data: { userId: host, role: 'host' },
    traceparent,
  },
]);
// Published once this is through; until then the row stays in the outbox.
await sender?.commit();
await producer.disconnect();

/** Yours is the primary key of the outbox row: it must be the same for each attempt. */
function idOf(type: string): string {
  return createHash('sha256').update(`${type}\n${room}`).digest('hex');
}

/**
 * The publisher writes binary mode, which is what we recommend; structured mode carries the attributes in the value.
 */
function toStructured({ key, value, headers }: ProducerMessage): ProducerMessage {
  const { 'content-type': datacontenttype, ...attributes } = headers;
  const context = Object.fromEntries(
    Object.entries(attributes).map(([name, text]) => [name.slice('ce_'.length), text]),
  );
  const event = { ...context, datacontenttype, data: JSON.parse(value) };
  return { key, value: JSON.stringify(event), headers: { 'content-type': mediaTypes.structured } };
}
