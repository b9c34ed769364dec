import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type CloudEventContext,
  deadLetterTopic,
  type TopicName,
  toBinaryHeaders,
  topics,
} from '@realtime-service/contracts';
import { type EventLog, MAX_RECORD_BYTES, type NewRecord, recordBytes } from '@realtime-service/event-log';
import {
  type DeadLetter,
  holdDuty,
  type OutboxEvent,
  type Pool,
  relayDeadLetters,
  relayOutbox,
  releaseDuty,
} from '@realtime-service/room-store';
import type { Logger } from '@realtime-service/telemetry';
import type { WorkerMetrics } from './metrics.ts';

const dutyName = 'relay';
const dutySeconds = 15;
const eventBatchSize = 500;
/** Each may have a megabyte. */
const letterBatchSize = 20;
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
    source: 'realtime-service',
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
 * Spring Kafka's header names, so that tools which know them find their way. A letter that with them exceeds the log's
 * limit travels without its value or, where its headers are what is large, without these too: the database keeps both.
 */
const toDeadLetterRecord = (letter: DeadLetter): NewRecord => {
  const about = {
    'kafka_dlt-original-topic': letter.topic,
    'kafka_dlt-original-partition': String(letter.partition),
    'kafka_dlt-original-offset': letter.offset.toString(),
    'kafka_dlt-original-timestamp': String(letter.recordedAtMs),
    'kafka_dlt-exception-fqcn': letter.reason,
    'kafka_dlt-exception-message': letter.message,
  };
  const topic = deadLetterTopic(letter.topic as TopicName);
  const whole: NewRecord = { topic, key: letter.key, value: letter.value, headers: { ...letter.headers, ...about } };
  const isTooLarge = (record: NewRecord): boolean => recordBytes(record) > MAX_RECORD_BYTES;
  if (!isTooLarge(whole)) return whole;
  const withoutValue: NewRecord = { ...whole, value: null };
  return isTooLarge(withoutValue) ? { topic, key: null, value: null, headers: about } : withoutValue;
};

/**
 * Publishes what the projection left to publish, while this process holds the duty. At least once: a crash between the
 * log's acknowledgement and our commit sends again, with the same ids.
 */
export const startRelay = ({
  pool,
  log,
  metrics,
  logger,
}: RelayDependencies): { readonly stop: () => Promise<void> } => {
  const holder = randomUUID();
  const stopping = new AbortController();

  let renewAtMs = Number.NEGATIVE_INFINITY;

  const relay = async (): Promise<number> => {
    if (performance.now() > renewAtMs) {
      if (!(await holdDuty(pool, dutyName, holder, dutySeconds))) return 0;
      renewAtMs = performance.now() + (dutySeconds * 1000) / 3;
    }
    const events = await relayOutbox(pool, eventBatchSize, async (rows) => {
      await log.append(rows.map(toPresenceRecord), appendTimeoutMs);
    });
    metrics.relayed.inc({ queue: 'presence' }, events);
    const letters = await relayDeadLetters(pool, letterBatchSize, async (rows) => {
      await log.append(rows.map(toDeadLetterRecord), appendTimeoutMs);
    });
    metrics.relayed.inc({ queue: 'dead_letters' }, letters);
    return events + letters;
  };

  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const pauseMs = await relay().then(
        (relayed) => (relayed === 0 ? idleMs : 0),
        (error: unknown) => {
          logger.warn({ err: error }, 'relay failed');
          return afterFailureMs;
        },
      );
      await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => {});
    }
    await releaseDuty(pool, dutyName, holder).catch(() => {});
  };

  const running = run();
  return {
    stop: () => {
      stopping.abort();
      return running;
    },
  };
};
