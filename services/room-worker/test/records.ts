import { type CloudEventContext, mediaTypes, toBinaryHeaders, topics } from '@realtime-service/contracts';
import { type NewRecord, partitionOf, type StoredRecord } from '@realtime-service/event-log';

export const partitionCount = 12;
export const recordedAtMs = Date.parse('2026-03-01T12:00:00Z');

/** The CloudEvent of a removal, unless said otherwise. */
export const contextOf = (changes: Partial<CloudEventContext> = {}): CloudEventContext => ({
  specversion: '1.0',
  id: 'e-1',
  source: '/domain',
  type: 'member.removed',
  subject: 'room-42',
  ...changes,
});

const bytesOf = (headers: Readonly<Record<string, string | Buffer>>): Record<string, Buffer> =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Buffer.from(value)]));

/** A record of the log as a consumer gets it. */
export const storedRecord = (record: Partial<NewRecord>, changes: Partial<StoredRecord> = {}): StoredRecord => {
  const { topic = topics.roomEvents, key = 'room-42', value = null, headers = {} } = record;
  const keyBytes = key === null ? null : Buffer.from(key);
  return {
    topic,
    partition: partitionOf(keyBytes, partitionCount),
    offset: 7n,
    timestampMs: recordedAtMs,
    key: keyBytes,
    value,
    headers: bytesOf(headers),
    ...changes,
  };
};

/** A room event in binary mode, keyed by its subject. */
export const binaryRecord = (context: Partial<CloudEventContext>, data: unknown): NewRecord => {
  const whole = contextOf(context);
  return {
    topic: topics.roomEvents,
    key: whole.subject,
    value: Buffer.from(JSON.stringify(data)),
    headers: toBinaryHeaders(whole),
  };
};

/** A room event in structured mode; `context` may be wrong in any way. */
export const structuredRecord = (context: Readonly<Record<string, unknown>>, data: unknown): NewRecord => ({
  topic: topics.roomEvents,
  key: 'room-42',
  value: Buffer.from(JSON.stringify({ ...contextOf(), ...context, data })),
  headers: { 'content-type': `${mediaTypes.structured}; charset=utf-8` },
});
