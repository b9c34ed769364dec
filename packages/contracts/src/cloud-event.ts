import { z } from 'zod';
import { boundedText, Timestamp } from './ids.ts';
import { optional } from './optional.ts';

/** A monotonic version per entity, as decimal digits; compared as an integer, so padding does not matter. */
export const Sequence = z
  .string()
  .regex(/^\d{1,39}$/)
  .meta({ id: 'Sequence', description: 'Decimal digits, compared as an integer.' });
export type Sequence = z.infer<typeof Sequence>;

/** W3C trace context, version 00, neither id all zeros. */
export const Traceparent = z
  .string()
  .regex(/^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/)
  .meta({ id: 'Traceparent' });
export type Traceparent = z.infer<typeof Traceparent>;

const jsonMediaType = /^application\/(?:[\w.+-]+\+)?json(?:\s*;.*)?$/i;

/**
 * The CloudEvents 1.0 attributes that we read. (source, id) is the identity of a fact: a repeat changes nothing.
 * Context only; `data` is checked by the schema of `type`.
 */
export const CloudEventContext = z
  .object({
    specversion: z.literal('1.0'),
    id: boundedText(256).min(1),
    source: boundedText(512).min(1),
    type: boundedText(128).min(1),
    subject: boundedText(256).min(1),
    time: optional(Timestamp),
    datacontenttype: optional(boundedText(128).refine((type) => jsonMediaType.test(type), 'must be JSON')),
    sequence: optional(Sequence),
    /** Origin of the trace. Read leniently: tracing never decides whether a fact counts. */
    traceparent: boundedText(512).optional().catch(undefined),
  })
  .meta({ id: 'CloudEventContext' });
export type CloudEventContext = z.infer<typeof CloudEventContext>;

const readContext = z.compile(CloudEventContext);

/** A CloudEvent as it arrives: context checked, data still unknown. */
export interface CloudEvent {
  readonly context: CloudEventContext;
  readonly data: unknown;
}

/** Media types of the CloudEvents HTTP and Kafka bindings. */
export const mediaTypes = {
  structured: 'application/cloudevents+json',
  batch: 'application/cloudevents-batch+json',
} as const;

/** Attribute names that are carried as `ce_*` headers, in the order in which they are written. */
export const contextAttributes = Object.keys(CloudEventContext.shape) as (keyof CloudEventContext)[];

/** What a `content-type` says, without its parameters. */
export const mediaTypeOf = (contentType: unknown): string | undefined =>
  typeof contentType === 'string' ? contentType.split(';', 1)[0]?.trim().toLowerCase() : undefined;

/** Whether a message of this content type is a whole CloudEvent, its data within. */
export const isStructured = (contentType: unknown): boolean => mediaTypeOf(contentType) === mediaTypes.structured;

const pad = (sequence: string): string => sequence.padStart(20, '0');

/**
 * Headers of the Kafka binding's binary mode (`datacontenttype` travels as `content-type`). Data that are an event
 * themselves travel as plain JSON: by their own type the record would be read as that event, and not as this one.
 */
export const toBinaryHeaders = (context: CloudEventContext): Record<string, string> => {
  const { datacontenttype = 'application/json' } = context;
  const contentType = isStructured(datacontenttype) ? 'application/json' : datacontenttype;
  const headers: Record<string, string> = { 'content-type': contentType };
  for (const name of contextAttributes) {
    const value = context[name];
    if (value === undefined || name === 'datacontenttype') continue;
    headers[`ce_${name}`] = name === 'sequence' ? pad(value) : value;
  }
  return headers;
};

const StructuredEvent = z.looseObject({
  data: z.unknown().optional(),
  data_base64: z.null('must be absent: data is JSON').optional(),
});

/** Takes attributes for a context, however they came. @throws {z.ZodError} naming the attribute */
export const fromAttributes = (attributes: Readonly<Record<string, unknown>>, data: unknown): CloudEvent => ({
  context: readContext.parse(attributes),
  data,
});

/** Takes a structured CloudEvent (or a batch's element) apart. @throws {z.ZodError} naming the attribute */
export const fromStructured = (value: unknown): CloudEvent => {
  const { data, data_base64, ...attributes } = StructuredEvent.parse(value);
  return fromAttributes(attributes, data);
};

/** Values of `ce-*` headers: printable ASCII, the rest percent-encoded, quoted or not (CloudEvents' HTTP, 3.1.3.2). */
const HttpHeaderValue = z
  .string()
  .regex(/^[ -~]*$/, 'must be percent-encoded')
  .transform((value, context) => {
    const unquoted = /^".*"$/.test(value) ? value.slice(1, -1).replace(/\\(.)/g, '$1') : value;
    try {
      return decodeURIComponent(unquoted);
    } catch {
      context.addIssue({ code: 'custom', message: 'must be percent-encoded UTF-8' });
      return z.NEVER;
    }
  });

const HttpAttributes = z.record(z.string(), HttpHeaderValue.optional());

/**
 * Reads the binary mode of the HTTP binding; `headers` with lower-case names, as Node has them.
 * @throws {z.ZodError} naming the attribute
 */
export const fromHttpBinary = (headers: Readonly<Record<string, unknown>>, data: unknown): CloudEvent => {
  const attributes: Record<string, unknown> = { datacontenttype: headers['content-type'] };
  for (const name of contextAttributes) attributes[name] ??= headers[`ce-${name}`];
  return fromAttributes(HttpAttributes.parse(attributes), data);
};
