import { context, INVALID_SPAN_CONTEXT, propagation, ROOT_CONTEXT, SpanStatusCode, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { currentTraceparent, linkActiveSpan, linkTo, withRemoteParent, withSpan } from './trace-context.ts';

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
const spanId = '00f067aa0ba902b7';
const traceparent = `00-${traceId}-${spanId}-01`;
const exporter = new InMemorySpanExporter();

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }));
});
beforeEach(() => exporter.reset());
afterAll(() => {
  context.disable();
  propagation.disable();
  trace.disable();
});

describe('linkTo', () => {
  it('given a traceparent, then a link to its span', () => {
    expect(linkTo(traceparent)).toEqual({ context: { traceId, spanId, traceFlags: 1, isRemote: true } });
  });

  it('given flags of a newer version, then only whether it is sampled', () => {
    expect(linkTo(`00-${traceId}-${spanId}-ff`)?.context.traceFlags).toBe(1);
  });

  it.each([
    undefined,
    null,
    42,
    '',
    'garbage',
    traceparent.toUpperCase(),
    ` ${traceparent}`,
    `${traceparent}\n`,
    `${traceparent}-extra`,
    `00-${'0'.repeat(32)}-${spanId}-01`,
    `00-${traceId}-${'0'.repeat(16)}-01`,
    `ff-${traceId}-${spanId}-01`,
    `00-${traceId.slice(1)}-${spanId}-01`,
    `00-${traceId}-${spanId}-0g`,
    { toString: () => traceparent },
  ])('given %j, then none', (value) => {
    expect(linkTo(value)).toBeUndefined();
  });
});

describe('withRemoteParent', () => {
  const inTrace = (parent: string | null) =>
    withRemoteParent(parent, () => withSpan('step', {}, async () => currentTraceparent()));

  it('given a traceparent, then spans within belong to that trace', async () => {
    expect(await inTrace(traceparent)).toMatch(new RegExp(`^00-${traceId}-(?!${spanId})`));
  });

  it.each([
    ['nothing', null],
    ['zeros', `00-${'0'.repeat(32)}-${'0'.repeat(16)}-00`],
    ['garbage', 'garbage'],
  ])('given %s, then a trace of its own begins', async (_case, parent) => {
    const inside = await withSpan('outer', {}, () => inTrace(parent));
    expect(inside).toMatch(/^00-/);
    expect(exporter.getFinishedSpans().map((span) => span.parentSpanContext)).toEqual([undefined, undefined]);
    expect(inside).not.toContain(traceId);
  });
});

describe('currentTraceparent', () => {
  it('given no active span, then none', () => {
    expect(currentTraceparent()).toBeUndefined();
  });

  it('given a span that is none, as where nothing is traced, then none', () => {
    const untraced = trace.setSpan(ROOT_CONTEXT, trace.wrapSpanContext(INVALID_SPAN_CONTEXT));
    expect(context.with(untraced, currentTraceparent)).toBeUndefined();
  });

  it('given an active span, then what linkTo understands', async () => {
    const current = await withSpan('step', {}, async (span) => ({
      context: span.spanContext(),
      traceparent: currentTraceparent(),
    }));
    expect(linkTo(current.traceparent)?.context).toMatchObject({
      traceId: current.context.traceId,
      spanId: current.context.spanId,
      traceFlags: 1,
    });
  });
});

describe('withSpan', () => {
  it('given links, then each origin once, bad ones not, and 64 at most', async () => {
    const origins = Array.from({ length: 100 }, (_, n) => `00-${traceId}-${(n + 1).toString(16).padStart(16, '0')}-01`);
    await withSpan('few', { links: [traceparent, traceparent, 'garbage', undefined] }, async () => {});
    await withSpan('many', { links: origins }, async () => {});
    const [few, many] = exporter.getFinishedSpans();
    expect(few?.links.map((link) => link.context.spanId)).toEqual([spanId]);
    expect(many?.links).toHaveLength(64);
  });

  it('given an active span, then it is the parent, unless a root is asked for', async () => {
    await withSpan('outer', {}, async () => {
      await withSpan('inner', {}, async () => {});
      await withSpan('apart', { isRoot: true }, async () => {});
    });
    const [inner, apart, outer] = exporter.getFinishedSpans();
    expect(inner?.parentSpanContext?.spanId).toBe(outer?.spanContext().spanId);
    expect(apart?.parentSpanContext).toBeUndefined();
  });

  it('given a failure, then the error passes on and the span tells it without the token', async () => {
    const error = new Error('refused eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTcifQ.c2ln');
    await expect(withSpan('step', {}, () => Promise.reject(error))).rejects.toBe(error);
    const [span] = exporter.getFinishedSpans();
    expect(span?.status).toEqual({ code: SpanStatusCode.ERROR, message: 'refused [jwt]' });
    expect(JSON.stringify(span?.events)).not.toContain('eyJ');
  });

  it('given a failure that is no error, then it passes on as it is', async () => {
    await expect(withSpan('step', {}, () => Promise.reject('gone'))).rejects.toBe('gone');
    expect(exporter.getFinishedSpans()[0]?.status).toEqual({ code: SpanStatusCode.ERROR, message: 'gone' });
  });
});

describe('linkActiveSpan', () => {
  it('given a traceparent, then the active span links there, and a tag says so for Zipkin', async () => {
    await withSpan('webhook', {}, async () => linkActiveSpan(traceparent));
    const [span] = exporter.getFinishedSpans();
    expect(span?.links.map((link) => link.context.spanId)).toEqual([spanId]);
    expect(span?.attributes).toEqual({ 'rt.linked_traces': traceId });
    expect(span?.spanContext().traceId).not.toBe(traceId);
  });

  it('given a malformed one, or no active span, then nothing happens', async () => {
    linkActiveSpan(traceparent);
    await withSpan('webhook', {}, async () => linkActiveSpan('garbage'));
    const [span] = exporter.getFinishedSpans();
    expect([span?.links, span?.attributes]).toEqual([[], {}]);
  });
});
