import { type LogPosition, partitionName } from '@realtime-service/contracts';
import type { Kafka, Message, RecordMetadata } from 'kafkajs';
import type { Sender } from '../appender.ts';
import { type NewRecord, RecordTooLargeError } from '../event-log.ts';
import { partitionOf } from '../partitioner.ts';
import { kafkajs } from './kafkajs.ts';

const acknowledgeWithinMs = 4_000;
/** kafkajs warns that a bound weakens the guarantee; it does not, as the producer is thrown away after a failure. */
const retries = 5;

/** An idempotent producer that writes to all in-sync replicas. Only one `send` at a time: see `createAppender`. */
export async function openProducer(kafka: Kafka): Promise<Sender> {
  const partitionCounts = new Map<string, number>();
  const producer = kafka.producer({
    idempotent: true,
    allowAutoTopicCreation: false,
    metadataMaxAge: 60_000,
    retry: { retries },
    createPartitioner:
      () =>
      ({ topic, message, partitionMetadata }) => {
        partitionCounts.set(topic, partitionMetadata.length);
        return partitionOf(message.key ?? null, partitionMetadata.length);
      },
  });
  try {
    await producer.connect();
  } catch (error) {
    await producer.disconnect();
    throw error;
  }

  return {
    send: async (records) => {
      const topicMessages = [...Map.groupBy(records, ({ topic }) => topic)].map(([topic, ofTopic]) => ({
        topic,
        messages: ofTopic.map(({ key, value, headers }): Message => ({ key, value, headers: { ...headers } })),
      }));
      const acknowledged = await producer
        .sendBatch({ acks: -1, timeout: acknowledgeWithinMs, topicMessages })
        .catch((error: unknown) => {
          throw isTooLarge(error) ? new RecordTooLargeError('The topic takes no record or batch so large') : error;
        });
      return positionsOf(records, acknowledged, partitionCounts);
    },
    close: () => producer.disconnect(),
  };
}

/** By the topic's `max.message.bytes` or `segment.bytes`. */
const isTooLarge = (error: unknown): boolean =>
  error instanceof kafkajs.KafkaJSProtocolError &&
  (error.type === 'MESSAGE_TOO_LARGE' || error.type === 'RECORD_LIST_TOO_LARGE');

/**
 * The position of each record, in the order given. One base offset is acknowledged per partition, where its records
 * follow each other. A partition whose leader moves while kafkajs retries can drop out of its requests: no
 * acknowledgement is a failure.
 */
export function positionsOf(
  records: readonly NewRecord[],
  acknowledged: readonly RecordMetadata[],
  partitionCounts: ReadonlyMap<string, number>,
): LogPosition[] {
  const nextOffsets = new Map<string, bigint>();
  for (const { topicName: topic, partition, baseOffset } of acknowledged) {
    if (baseOffset !== undefined && baseOffset !== '-1')
      nextOffsets.set(partitionName({ topic, partition }), BigInt(baseOffset));
  }
  return records.map(({ topic, key }) => {
    const partition = partitionOf(key, partitionCounts.get(topic) ?? 0);
    const name = partitionName({ topic, partition });
    const offset = nextOffsets.get(name);
    if (offset === undefined) throw new Error(`No acknowledgement for partition ${partition} of ${topic}`);
    nextOffsets.set(name, offset + 1n);
    return { topic, partition, offset };
  });
}
