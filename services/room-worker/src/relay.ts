import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type CloudEventContext,
  consumedTopics,
  deadLetterTopic,
  presenceSource,
  type TopicName,
  toBinaryHeaders,
  topics,
} from '@realtime-service/contracts';
import { type EventLog, type NewRecord, RecordTooLargeError } from '@realtime-service/event-log';
import {
  type DeadLetter,
  holdDuty,
  type OutboxEvent,
  type Pool,
  relayDeadLetter,
  relayOutbox,
  releaseDuty,
} from '@realtime-service/room-store';
import type { Logger } from '@realtime-service/telemetry';
import type { WorkerMetrics } from './metrics.ts';

const dutyName = 'relay';
const dutySeconds = 15;
const eventBatchSize = 500;
const idleMs = 200;
const afterFailureMs = 1_000;
const appendTimeoutMs = 3_000;

export interface RelayDependencies {
  readonly pool: Pool;
  readonly log: EventLog;
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
}

const toPresenceRecord = (event: OutboxEvent): NewRecord => {
  const context: CloudEventContext = {
    specversion: '1.0',
    id: event.eventId,
    source: presenceSource,
    type: event.type,
    subject: event.roomId,
    time: new Date(event.occurredAtMs).toISOString(),
  };
  const trace = event.trace === null ? {} : { traceparent: event.trace };
  return {
    topic: topics.presence,
    key: event.roomId,
    value: Buffer.from(JSON.stringify(event.data)),
    headers: { ...toBinaryHeaders(context), ...trace },
  };
};

/**
 * Spring Kafka's header names, so that tools which know them find their way. A letter that with them is too large for
 * its topic travels without its value or, where its headers are what is large, without these too: the database keeps
 * both.
 */
const toDeadLetterRecords = (letter: DeadLetter): readonly NewRecord[] => {
  const about = {
    'kafka_dlt-original-topic': letter.topic,
    'kafka_dlt-original-partition': String(letter.partition),
    'kafka_dlt-original-offset': letter.offset.toString(),
    'kafka_dlt-original-timestamp': String(letter.recordedAtMs),
    'kafka_dlt-exception-fqcn': letter.reason,
    'kafka_dlt-exception-message': letter.message,
  };
  const topic = deadLetterTopic(letter.topic);
  const whole: NewRecord = { topic, key: letter.key, value: letter.value, headers: { ...letter.headers, ...about } };
  return [whole, { ...whole, value: null }, { topic, key: null, value: null, headers: about }];
};

const appendFirstThatFits = async (log: EventLog, [record, ...smaller]: readonly NewRecord[]): Promise<void> => {
  if (record === undefined) return;
  try {
    await log.append([record], appendTimeoutMs);
  } catch (error) {
    if (!(error instanceof RecordTooLargeError) || smaller.length === 0) throw error;
    await appendFirstThatFits(log, smaller);
  }
};

/**
 * Publishes what the projection left to publish, while this process holds the duty. At least once: a crash between the
 * log's acknowledgement and our commit sends again, with the same ids. What one topic refuses keeps no other waiting.
 */
export const startRelay = ({
  pool,
  log,
  metrics,
  logger,
}: RelayDependencies): { readonly stop: () => Promise<void> } => {
  const holder = randomUUID();
  const stopping = new AbortController();

  let askAtMs = Number.NEGATIVE_INFINITY;
  let isHeld = false;
  const hold = async (): Promise<boolean> => {
    if (performance.now() > askAtMs) {
      isHeld = await holdDuty(pool, dutyName, holder, dutySeconds);
      askAtMs = performance.now() + (isHeld ? (dutySeconds * 1000) / 3 : idleMs);
    }
    return isHeld;
  };

  const relayPresence = async (): Promise<number> => {
    const events = await relayOutbox(pool, eventBatchSize, async (rows) => {
      await log.append(rows.map(toPresenceRecord), appendTimeoutMs);
    });
    metrics.relayed.inc({ queue: 'presence' }, events);
    return events;
  };

  const relayLetter = async (topic: TopicName): Promise<number> => {
    const isRelayed = await relayDeadLetter(pool, topic, (letter) =>
      appendFirstThatFits(log, toDeadLetterRecords(letter)),
    );
    const letters = isRelayed ? 1 : 0;
    metrics.relayed.inc({ queue: 'dead_letters' }, letters);
    return letters;
  };

  const run = async (topic: string, relay: () => Promise<number>): Promise<void> => {
    while (!stopping.signal.aborted) {
      const pauseMs = await hold()
        .then((isOurs) => (isOurs ? relay() : 0))
        .then(
          (relayed) => (relayed === 0 ? idleMs : 0),
          (error: unknown) => {
            logger.warn({ err: error, topic }, 'relay failed');
            return afterFailureMs;
          },
        );
      await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => {});
    }
  };

  const running = Promise.all([
    run(topics.presence, relayPresence),
    ...consumedTopics.map((topic) => run(deadLetterTopic(topic), () => relayLetter(topic))),
  ]);
  return {
    stop: async () => {
      stopping.abort();
      await running;
      await releaseDuty(pool, dutyName, holder).catch(() => {});
    },
  };
};
