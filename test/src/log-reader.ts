import { readRecord, readRoomEvent, topics } from '@realtime-service/contracts';
import { evolveRoom, WorkingSet } from '@realtime-service/room-model';
import kafkajs from 'kafkajs';

/** The highest offset that each partition will give next. */
export const highOffsets = async (brokers: readonly string[], topic: string): Promise<Map<number, bigint>> => {
  const admin = new kafkajs.Kafka({ brokers: [...brokers], logLevel: kafkajs.logLevel.NOTHING }).admin();
  await admin.connect();
  try {
    const offsets = await admin.fetchTopicOffsets(topic);
    return new Map(offsets.map(({ partition, high }) => [partition, BigInt(high)]));
  } finally {
    await admin.disconnect();
  }
};

/** Folds the whole topic of room events with the pure model, read by a plain consumer of its own. */
export const foldLog = async (brokers: readonly string[]): Promise<WorkingSet> => {
  const set = new WorkingSet();
  const highs = await highOffsets(brokers, topics.roomEvents);
  const seen = new Set<string>();
  const open = new Set([...highs].filter(([, high]) => high > 0n).map(([partition]) => partition));
  const consumer = new kafkajs.Kafka({ brokers: [...brokers], logLevel: kafkajs.logLevel.NOTHING }).consumer({
    groupId: `fold-${Date.now()}`,
  });
  const finished = Promise.withResolvers<void>();
  if (open.size === 0) finished.resolve();
  await consumer.connect();
  await consumer.subscribe({ topic: topics.roomEvents, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      const headers = Object.fromEntries(
        Object.entries(message.headers ?? {}).map(([name, value]) => [name, Buffer.from(String(value))]),
      );
      const reading = readRecord({ value: message.value, headers });
      if (reading.kind === 'event') {
        const { context } = reading.event;
        const room = readRoomEvent(reading.event);
        const fact = `${context.source}\0${context.id}`;
        if (room.kind === 'event' && !seen.has(fact)) {
          seen.add(fact);
          const origin = {
            eventId: context.id,
            topic: topics.roomEvents,
            partition,
            offset: BigInt(message.offset),
            timeMs: context.time === undefined ? Number(message.timestamp) : Date.parse(context.time),
            sequence: context.sequence === undefined ? null : BigInt(context.sequence),
          };
          for (const change of evolveRoom(set, room.event, origin)) set.put(change);
        }
      }
      if (BigInt(message.offset) + 1n >= (highs.get(partition) ?? 0n)) open.delete(partition);
      if (open.size === 0) finished.resolve();
    },
  });
  await finished.promise;
  await consumer.disconnect();
  return set;
};
