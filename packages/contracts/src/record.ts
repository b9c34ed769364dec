import { z } from 'zod';
import {
  type CloudEvent,
  type CloudEventContext,
  fromAttributes,
  fromStructured,
  isStructured,
} from './cloud-event.ts';
import { faultsOf } from './faults.ts';
import type { ProblemFault } from './problems.ts';

/** A Kafka record's bytes, as any client hands them over. */
export interface RecordBytes {
  readonly value: Uint8Array | null;
  readonly headers: Readonly<Record<string, Uint8Array>>;
}

export type RecordReading =
  | { readonly kind: 'event'; readonly event: CloudEvent }
  /** A null value without CloudEvents headers. It says nothing here: what ends is told by an event. */
  | { readonly kind: 'tombstone' }
  /** `type` and `data` are as much as could be read, for whoever must know what the record might take away. */
  | {
      readonly kind: 'unreadable';
      readonly why: 'schema_registry_prefix' | 'not_utf8' | 'not_json' | 'no_cloud_event' | 'invalid_context';
      readonly faults: readonly ProblemFault[];
      readonly type: string | undefined;
      readonly data: unknown;
    };

type Unreadable = Extract<RecordReading, { kind: 'unreadable' }>;

/** Strict, so that a broken byte never becomes U+FFFD in an id; a byte order mark is dropped. */
const bodyText = new TextDecoder('utf-8', { fatal: true });
const headerText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The header's text, or its bytes where they are no UTF-8: the schema then says so. */
const readHeader = (bytes: Uint8Array | undefined): unknown => {
  try {
    return bytes && headerText.decode(bytes);
  } catch {
    return bytes;
  }
};

const readJson = (value: Uint8Array): { readonly json: unknown } | { readonly why: Unreadable['why'] } => {
  if (value[0] === 0) return { why: 'schema_registry_prefix' };
  let text: string;
  try {
    text = bodyText.decode(value);
  } catch {
    return { why: 'not_utf8' };
  }
  try {
    return { json: JSON.parse(text) };
  } catch {
    return { why: 'not_json' };
  }
};

/** Kafka tells header names apart by their case, the clients that write them do not. */
const withLowerCaseNames = (headers: RecordBytes['headers']): RecordBytes['headers'] => {
  if (Object.keys(headers).every((name) => name === name.toLowerCase())) return headers;
  const lowered = Object.entries(headers).map(([name, bytes]) => [name.toLowerCase(), bytes] as const);
  return { ...Object.fromEntries(lowered), ...headers };
};

/** What a broken envelope still says. */
const Remains = z.object({ type: z.string().optional().catch(undefined), data: z.unknown().optional() }).catch({});

const unreadable = (why: Unreadable['why'], envelope: unknown, faults: readonly ProblemFault[] = []): Unreadable => {
  const { type, data } = Remains.parse(envelope);
  return { kind: 'unreadable', why, faults, type, data };
};

/**
 * Reads a record by the CloudEvents Kafka binding, binary or structured; an event without data may have a null value.
 * Never throws: a record that cannot be read is an answer, too.
 */
export const readRecord = ({ value, headers: written }: RecordBytes): RecordReading => {
  const headers = withLowerCaseNames(written);
  const contentType = readHeader(headers['content-type']);
  const mode = isStructured(contentType) ? 'structured' : headers.ce_specversion === undefined ? 'none' : 'binary';
  const context = {
    specversion: readHeader(headers.ce_specversion),
    id: readHeader(headers.ce_id),
    source: readHeader(headers.ce_source),
    type: readHeader(headers.ce_type),
    subject: readHeader(headers.ce_subject),
    time: readHeader(headers.ce_time),
    datacontenttype: contentType ?? readHeader(headers.ce_datacontenttype),
    sequence: readHeader(headers.ce_sequence),
    traceparent: readHeader(headers.ce_traceparent),
  } satisfies Record<keyof CloudEventContext, unknown>;

  if (value === null && mode !== 'binary') return { kind: 'tombstone' };
  const isEmpty = value === null || (value.length === 0 && mode === 'binary');
  const body = isEmpty ? { json: undefined } : readJson(value);
  if ('why' in body) return unreadable(body.why, context);
  if (mode === 'none') return unreadable('no_cloud_event', body.json);
  try {
    return { kind: 'event', event: mode === 'binary' ? fromAttributes(context, body.json) : fromStructured(body.json) };
  } catch (error) {
    if (!(error instanceof z.ZodError)) throw error;
    const envelope = mode === 'binary' ? { ...context, data: body.json } : body.json;
    return unreadable('invalid_context', envelope, faultsOf(error));
  }
};
