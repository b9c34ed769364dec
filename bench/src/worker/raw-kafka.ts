import { randomUUID } from 'node:crypto';
import { consumedTopics } from '@realtime-service/contracts';
import type { LogBatch } from '@realtime-service/event-log';
import kafkajs from 'kafkajs';
import { chunkRecords } from './records.ts';
import { type Stopwatch, startStopwatch } from './stopwatch.ts';

const connect = (brokers: readonly string[]) =>
  new kafkajs.Kafka({ clientId: 'bench', brokers: [...brokers], logLevel: kafkajs.logLevel.ERROR });

/** Puts the records into their topics, each into its own partition. */
export const produceAll = async (brokers: readonly string[], batches: readonly LogBatch[]): Promise<void> => {
  const producer = connect(brokers).producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
  for (const { topic, partition, records } of batches)
    for (let from = 0; from < records.length; from += chunkRecords)
      await producer.send({
        topic,
        messages: records
          .slice(from, from + chunkRecords)
          .map(({ key, value, headers }) => ({ partition, key, value, headers: { ...headers } })),
      });
  await producer.disconnect();
};

/**
 * What a consumer costs that does nothing: the records are fetched, and body and headers are read as text and JSON.
 * Resolves with the time from the first batch's arrival, when the group has been joined.
 */
export const consumeRaw = async (brokers: readonly string[], count: number): Promise<Stopwatch> => {
  const consumer = connect(brokers).consumer({ groupId: randomUUID() });
  await consumer.connect();
  await consumer.subscribe({ topics: [...consumedTopics], fromBeginning: true });
  const everything = Promise.withResolvers<void>();
  let stopwatch: Stopwatch | undefined;
  let seen = 0;
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
      stopwatch ??= startStopwatch();
      for (const { value, headers, offset } of batch.messages) {
        for (const header of Object.values(headers ?? {})) String(header);
        JSON.parse(String(value));
        resolveOffset(offset);
      }
      seen += batch.messages.length;
      if (seen >= count) everything.resolve();
      await heartbeat();
    },
  });
  await everything.promise;
  return stopwatch ?? startStopwatch();
};
