import {
  type Attributes,
  context,
  INVALID_TRACEID,
  type Link,
  propagation,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import { scrub } from './scrub.ts';

/** Most links that a span carries. A chunk of 500 records has up to 500 origins; backends cut or refuse that. */
const maxLinks = 64;

/** W3C trace context, version 00. Zero ids are invalid by the specification. */
const traceparentPattern = /^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$/;

/** The active span as a `traceparent`, to send along with a message, a mark or a LiveKit attribute. */
export function currentTraceparent(): string | undefined {
  const span = trace.getActiveSpan()?.spanContext();
  if (span === undefined || span.traceId === INVALID_TRACEID) return undefined;
  return `00-${span.traceId}-${span.spanId}-${span.traceFlags.toString(16).padStart(2, '0')}`;
}

/**
 * A link to the span that a `traceparent` names, or undefined for anything but a well-formed one. For values that
 * came through others' hands (LiveKit's `rt.trace`): they may point, but neither adopt nor sample.
 */
export function linkTo(traceparent: unknown): Link | undefined {
  const spanContext = parseTraceparent(traceparent);
  return spanContext && { context: spanContext };
}

function parseTraceparent(value: unknown): SpanContext | undefined {
  if (typeof value !== 'string') return undefined;
  const [, traceId, spanId, flags] = traceparentPattern.exec(value) ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & TraceFlags.SAMPLED, isRemote: true };
}

/**
 * Runs `fn` as a part of the trace that a `traceparent` names, where the configured propagators read that. With none,
 * or a malformed one, `fn` belongs to no trace and its first span begins one.
 */
export function withRemoteParent<T>(traceparent: string | null, fn: () => T): T {
  return context.with(propagation.extract(ROOT_CONTEXT, traceparent === null ? {} : { traceparent }), fn);
}

type SpanSettings = {
  attributes?: Attributes;
  /** `traceparent`s of what led here. Malformed ones and repetitions are dropped, and all beyond the first 64. */
  links?: Iterable<unknown>;
  /** Begin a trace of its own instead of joining the active one. */
  isRoot?: boolean;
};

const tracer = trace.getTracer('realtime-service');

/** Runs `fn` within a new active span that ends when `fn` does. An error marks the span, scrubbed, and passes on. */
export async function withSpan<T>(name: string, settings: SpanSettings, fn: (span: Span) => Promise<T>): Promise<T> {
  const { links = [], isRoot = false, attributes = {} } = settings;
  const distinct = distinctLinks(links);
  return tracer.startActiveSpan(name, { attributes, root: isRoot, links: distinct }, async (span) => {
    nameLinks(span, distinct);
    try {
      return await fn(span);
    } catch (error) {
      markFailed(span, error);
      throw error;
    } finally {
      span.end();
    }
  });
}

/** Links the active span with the trace that came through others' hands; nothing happens for a malformed one. */
export function linkActiveSpan(traceparent: unknown): void {
  const span = trace.getActiveSpan();
  const link = linkTo(traceparent);
  if (span === undefined || link === undefined) return;
  span.addLink(link);
  nameLinks(span, [link]);
}

/** Zipkin's model has no links, so the linked traces' ids are said in a tag as well. */
function nameLinks(span: Span, links: readonly Link[]): void {
  const traceIds = new Set(links.map(({ context: { traceId } }) => traceId));
  if (traceIds.size > 0) span.setAttribute('rt.linked_traces', [...traceIds].join(','));
}

function distinctLinks(traceparents: Iterable<unknown>): Link[] {
  const links = new Map<unknown, Link>();
  for (const traceparent of traceparents) {
    if (links.size === maxLinks) break;
    const link = linkTo(traceparent);
    if (link !== undefined) links.set(traceparent, link);
  }
  return [...links.values()];
}

function markFailed(span: Span, error: unknown): void {
  const { name, message, stack = '' } = error instanceof Error ? error : new Error(String(error));
  span.recordException({ name, message: scrub(message), stack: scrub(stack) });
  span.setStatus({ code: SpanStatusCode.ERROR, message: scrub(message) });
}
