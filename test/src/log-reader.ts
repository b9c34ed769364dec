import {
  type CloudEvent,
  consumedTopics,
  partitionName,
  readLivekitWebhook,
  readRecord,
  readRoomEvent,
  topics,
} from '@realtime-service/contracts';
import { evolvePresence, evolveRoom, type Origin, WorkingSet } from '@realtime-service/room-model';
import { activeProjection, type Pool, readPositions } from '@realtime-service/room-store';
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

/** Whether the tables have come to the end of both topics. */
export const isCaughtUp = async (pool: Pool, brokers: readonly string[]): Promise<boolean> => {
  const next = new Map(
    (await readPositions(pool, activeProjection)).map((each) => [partitionName(each), each.nextOffset]),
  );
  for (const topic of consumedTopics)
    for (const [partition, high] of await highOffsets(brokers, topic))
      if (next.get(partitionName({ topic, partition })) !== high) return false;
  return true;
};

/** A CloudEvent and where it stands. */
export interface LoggedEvent {
  readonly event: CloudEvent;
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly recordedAtMs: number;
}

let readers = 0;

/** Every CloudEvent of a topic, repeats too, in order per partition, read by a plain consumer of its own. */
export const readTopic = async (brokers: readonly string[], topic: string): Promise<LoggedEvent[]> => {
  const read: LoggedEvent[] = [];
  const highs = await highOffsets(brokers, topic);
  const open = new Set([...highs].filter(([, high]) => high > 0n).map(([partition]) => partition));
  readers += 1;
  const consumer = new kafkajs.Kafka({ brokers: [...brokers], logLevel: kafkajs.logLevel.NOTHING }).consumer({
    groupId: `reader-${process.pid}-${readers}`,
  });
  const finished = Promise.withResolvers<void>();
  if (open.size === 0) finished.resolve();
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      const headers = Object.fromEntries(
        Object.entries(message.headers ?? {}).map(([name, value]) => [name, Buffer.from(String(value))]),
      );
      const reading = readRecord({ value: message.value, headers });
      const offset = BigInt(message.offset);
      if (reading.kind === 'event')
        read.push({ event: reading.event, topic, partition, offset, recordedAtMs: Number(message.timestamp) });
      if (offset + 1n >= (highs.get(partition) ?? 0n)) open.delete(partition);
      if (open.size === 0) finished.resolve();
    },
  });
  await finished.promise;
  await consumer.disconnect();
  return read;
};

/** Each fact once, where it first came. */
const withoutRepeats = (events: readonly LoggedEvent[]): LoggedEvent[] => {
  const seen = new Set<string>();
  return events.filter(({ event: { context } }) => {
    const fact = `${context.source}\0${context.id}`;
    if (seen.has(fact)) return false;
    seen.add(fact);
    return true;
  });
};

const originOf = ({ event: { context }, topic, partition, offset, recordedAtMs }: LoggedEvent): Origin => ({
  eventId: context.id,
  topic,
  partition,
  offset,
  timeMs: context.time === undefined ? recordedAtMs : Date.parse(context.time),
  sequence: context.sequence === undefined ? null : BigInt(context.sequence),
});

/** Folds both topics with the pure model. */
export const foldEvents = (events: readonly LoggedEvent[]): WorkingSet => {
  const set = new WorkingSet();
  for (const each of withoutRepeats(events)) {
    const room = each.topic === topics.roomEvents ? readRoomEvent(each.event) : undefined;
    const livekit = each.topic === topics.livekitWebhooks ? readLivekitWebhook(each.event.data) : undefined;
    if (room?.kind === 'event') for (const change of evolveRoom(set, room.event, originOf(each))) set.put(change);
    if (livekit?.kind === 'fact')
      for (const change of evolvePresence(set, livekit.fact, each.recordedAtMs)) set.put(change);
  }
  return set;
};

/** Folds the whole topic of room events with the pure model. */
export const foldLog = async (brokers: readonly string[]): Promise<WorkingSet> =>
  foldEvents(await readTopic(brokers, topics.roomEvents));
