import { hash } from 'node:crypto';
import {
  type CloudEvent,
  type DeadLetterPosition,
  LivekitObserved,
  observedType,
  type ProblemFault,
  positionName,
  readLivekitWebhook,
  readRecord,
  readRoomEvent,
  Traceparent,
  toLogPosition,
  topics,
} from '@realtime-service/contracts';
import { partitionOf, type StoredRecord } from '@realtime-service/event-log';
import { attributes, type Origin, type UnreadableFact } from '@realtime-service/room-model';
import type { ChunkContent, ChunkRecord, DeadRecord } from '@realtime-service/room-store';
import { z } from 'zod';

/** A record as the projection takes it, and what its decoding has to say to those on call. */
export interface Decoded {
  readonly stored: StoredRecord;
  readonly record: ChunkRecord;
  /** The join that a LiveKit fact leads back to: a link, never a parent. */
  readonly joinTrace: string | null;
  /** A producer with another partitioner than murmur2: applied, and alarmed. */
  readonly isMisplaced: boolean;
  readonly skipped: 'tombstone' | 'unknown_type' | 'no_state' | null;
}

const factKeyOf = (source: string, id: string): string => hash('sha256', `${source}\0${id}`).slice(0, 32);

const describe = (faults: readonly ProblemFault[]): string =>
  faults
    .map(({ path, message }) => `${path || '/'}: ${message}`)
    .join('; ')
    .slice(0, 1_000);

interface Reading {
  readonly content: ChunkContent;
  readonly event: CloudEvent | null;
  readonly skipped: Decoded['skipped'];
  readonly joinTrace: string | null;
}

const read = (content: ChunkContent, event: CloudEvent | null, joinTrace: string | null = null): Reading => ({
  content,
  event,
  skipped: null,
  joinTrace,
});

const skip = (skipped: Decoded['skipped'], event: CloudEvent | null): Reading => ({
  ...read({ kind: 'skipped' }, event),
  skipped,
});

/** Why a record is a dead letter. */
export type WhyDead = Pick<DeadRecord, 'reason' | 'message'>;

/** The record as a dead letter, and as much of it as could be read. */
export const deadContent = (
  { key, value, headers }: StoredRecord,
  { reason, message }: WhyDead,
  unreadable: UnreadableFact,
): ChunkContent => ({ kind: 'dead', dead: { reason, message, key, value, headers }, unreadable });

const dead = (stored: StoredRecord, why: WhyDead, event: CloudEvent | null, unreadable: UnreadableFact): Reading =>
  read(deadContent(stored, why, unreadable), event);

/** Facts from LiveKit leave nobody in doubt: the sweep repairs what they would have said. */
export const nobody = { key: null, type: undefined, data: undefined } as const;

/** A byte order mark that a key begins with belongs to the id. */
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const keyTextOf = ({ key }: StoredRecord): string | null => {
  try {
    return key === null ? null : utf8.decode(key);
  } catch {
    return null;
  }
};

const readRoomEventRecord = (stored: StoredRecord): Reading => {
  const key = keyTextOf(stored);
  const reading = readRecord(stored);
  if (reading.kind === 'tombstone') return skip('tombstone', null);
  if (reading.kind === 'unreadable') {
    const { why, faults, type, data } = reading;
    const isEnvelope = why === 'no_cloud_event' || why === 'invalid_context';
    return dead(stored, { reason: isEnvelope ? 'invalid_envelope' : why, message: describe(faults) || why }, null, {
      key,
      type,
      data,
    });
  }
  const { event } = reading;
  const { type, subject } = event.context;
  const remains = { key, type, data: event.data };
  const room = readRoomEvent(event);
  if (room.kind === 'unknown_type') return skip('unknown_type', event);
  if (key !== subject)
    return dead(stored, { reason: 'key_mismatch', message: 'the record key is not the subject' }, event, {
      ...remains,
      key: subject,
    });
  if (room.kind === 'invalid')
    return dead(stored, { reason: 'invalid_data', message: describe(room.faults) }, event, remains);
  if (room.event.type === 'dead_letter.retried') return read(retryOf(room.event.data), event);
  return read({ kind: 'room_event', event: room.event }, event);
};

/** The letter is read in the transaction that applies it, and decoded as if it came now. */
const retryOf = (position: DeadLetterPosition): ChunkContent => ({
  kind: 'retry',
  letter: toLogPosition(position),
  decode: ({ recordedAtMs, ...letter }) => recordOf({ ...letter, timestampMs: recordedAtMs }).record,
  outcome: null,
});

const readLivekitRecord = (stored: StoredRecord): Reading => {
  const reading = readRecord(stored);
  if (reading.kind === 'tombstone') return skip('tombstone', null);
  if (reading.kind === 'unreadable')
    return dead(stored, { reason: 'invalid_envelope', message: reading.why }, null, nobody);
  const { event } = reading;
  if (event.context.type === observedType) {
    const observed = LivekitObserved.safeParse(event.data);
    if (!observed.success)
      return dead(
        stored,
        { reason: 'invalid_data', message: z.prettifyError(observed.error).slice(0, 1_000) },
        event,
        nobody,
      );
    return read({ kind: 'livekit', fact: { type: 'observed', observed: observed.data } }, event);
  }
  const webhook = readLivekitWebhook(event.data);
  if (webhook.kind === 'ignored') return skip('no_state', event);
  const { fact } = webhook;
  const joinTrace = 'participant' in fact ? (fact.participant.attributes?.[attributes.trace] ?? null) : null;
  return read({ kind: 'livekit', fact }, event, joinTrace);
};

const recordTimesEndMs = Date.parse('2200-01-01T00:00:00Z');
const isRecordTime = (ms: number): boolean => ms >= 0 && ms < recordTimesEndMs;

/**
 * Producers choose record times, too. One that no clock shows, such as microseconds, would be the newest of its
 * partition for ever, and no repeat would be told from then on: the event's own time stands in for it, or the earliest
 * there is.
 */
const recordTimeOf = ({ timestampMs }: StoredRecord, event: CloudEvent | null): number =>
  [timestampMs, Date.parse(event?.context.time ?? '')].find(isRecordTime) ?? 0;

const readTraceparent = z.compile(Traceparent);
const asTrace = (text: string | undefined): string | undefined =>
  text === undefined ? undefined : readTraceparent.safeParse(text).data;

/**
 * The event's own origin before the record's header: clients that batch write into the header whatever context sent the
 * batch. Tracing never decides whether a fact counts: what is no trace context is left out.
 */
const traceOf = ({ headers }: StoredRecord, event: CloudEvent | null): string | null =>
  asTrace(event?.context.traceparent) ?? asTrace(headers.traceparent?.toString('latin1')) ?? null;

const originOf = (stored: StoredRecord, event: CloudEvent | null): Origin => {
  const { topic, partition, offset } = stored;
  const { id, time, sequence } = event?.context ?? {};
  return {
    eventId: id ?? positionName(stored),
    topic,
    partition,
    offset,
    timeMs: time === undefined ? recordTimeOf(stored, event) : Date.parse(time),
    sequence: sequence === undefined ? null : BigInt(sequence),
  };
};

const recordOf = (stored: StoredRecord): Pick<Decoded, 'record' | 'joinTrace' | 'skipped'> => {
  const reading = stored.topic === topics.roomEvents ? readRoomEventRecord(stored) : readLivekitRecord(stored);
  const { content, event, skipped, joinTrace } = reading;
  return {
    record: {
      origin: originOf(stored, event),
      recordedAtMs: recordTimeOf(stored, event),
      isTimeGuessed: !isRecordTime(stored.timestampMs),
      factKey: event === null || content.kind === 'dead' ? null : factKeyOf(event.context.source, event.context.id),
      trace: traceOf(stored, event),
      content,
    },
    joinTrace,
    skipped,
  };
};

/** Reads one record of either topic. Never throws: what cannot be read is a dead letter, with the reason. */
export const decodeRecord = (stored: StoredRecord, partitionCount: number): Decoded => ({
  stored,
  ...recordOf(stored),
  isMisplaced: stored.key !== null && partitionOf(stored.key, partitionCount) !== stored.partition,
});
