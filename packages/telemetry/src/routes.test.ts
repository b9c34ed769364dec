import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { json } from 'node:stream/consumers';
import { context, propagation, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core';
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import Fastify from 'fastify';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { createMetrics } from './metrics.ts';
import { measureRoutes, traceRoutes } from './routes.ts';
import { currentTraceparent } from './trace-context.ts';

describe('measureRoutes', () => {
  it('counts by route template, so that no id becomes a label', async () => {
    const metrics = createMetrics();
    const app = Fastify();
    traceRoutes(app);
    measureRoutes(app, metrics);
    app.get('/rooms/:roomId', () => 'ok');
    await app.inject('/rooms/room-42');
    await app.inject('/rooms/room-43');
    await app.inject('/secret-of/u-7');
    const text = await metrics.getSingleMetricAsString('http_server_requests_seconds');
    expect(text).toContain('http_server_requests_seconds_count{method="GET",uri="/rooms/:roomId",status="200"} 2');
    expect(text).toContain('http_server_requests_seconds_count{method="GET",uri="UNKNOWN",status="404"} 1');
    expect(text).not.toMatch(/room-4|u-7/);
  });

  it('tells the seconds since a request came', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    onTestFinished(() => void vi.useRealTimers());
    const metrics = createMetrics();
    const app = Fastify();
    measureRoutes(app, metrics);
    app.get('/slow', () => {
      vi.advanceTimersByTime(250);
      return 'ok';
    });
    vi.advanceTimersByTime(1_000);
    await app.inject('/slow');
    expect(await metrics.getSingleMetricAsString('http_server_requests_seconds')).toMatch(/_sum\{[^}]*\} 0\.25\n/);
  });
});

describe('traceRoutes', () => {
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
  const spanId = '00f067aa0ba902b7';
  const traceparent = `00-${traceId}-${spanId}-01`;
  const exporter = new InMemorySpanExporter();
  const running: { close(): Promise<unknown> }[] = [];

  beforeAll(() => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    const propagators = [new W3CTraceContextPropagator(), new W3CBaggagePropagator()];
    propagation.setGlobalPropagator(new CompositePropagator({ propagators }));
    trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }));
  });
  beforeEach(() => exporter.reset());
  afterEach(() => Promise.all(running.splice(0).map((app) => app.close())));
  afterAll(() => {
    context.disable();
    propagation.disable();
    trace.disable();
  });

  const start = async () => {
    const metrics = createMetrics();
    const app = Fastify();
    running.push(app);
    traceRoutes(app);
    measureRoutes(app, metrics);
    app.setErrorHandler((error, _request, reply) => {
      const { statusCode = 500 } = error as { statusCode?: number };
      return reply.code(statusCode).send({ traceparent: currentTraceparent() });
    });
    app.post('/rooms/:roomId', () => ({ traceparent: currentTraceparent() }));
    app.post('/broken', () => {
      throw new Error('broken');
    });
    app.get('/livez', () => ({ traceparent: currentTraceparent() ?? null }));
    const url = await app.listen({ host: '127.0.0.1', port: 0 });

    /**
     * The body leaves once the headers have arrived: it then comes outside of the context in which the request began.
     */
    const ask = async (path: string, body?: string): Promise<unknown> => {
      const headers = { 'content-type': 'application/json', traceparent, connection: 'close' };
      const asking = request(`${url}${path}`, { method: body === undefined ? 'GET' : 'POST', headers });
      const [arrived, answered] = [once(app.server, 'request'), once(asking, 'response')];
      asking.flushHeaders();
      await arrived;
      asking.end(body);
      const [response] = (await answered) as [IncomingMessage];
      return ((await json(response)) as { traceparent: unknown }).traceparent;
    };
    /** Closing waits for the connections, so for the ends of all spans. */
    const spansAfter = async () => {
      await app.close();
      return exporter.getFinishedSpans();
    };
    return { ask, spansAfter, metrics };
  };

  it('names the span after the route, within the caller’s trace, without the query', async () => {
    const { ask, spansAfter } = await start();
    const seen = await ask('/rooms/room-42?access_token=secret', '{}');
    const [span] = await spansAfter();
    expect(span?.name).toBe('POST /rooms/:roomId');
    expect(span?.kind).toBe(SpanKind.SERVER);
    expect(span?.parentSpanContext?.spanId).toBe(spanId);
    expect(seen).toBe(`00-${traceId}-${span?.spanContext().spanId}-01`);
    expect(span?.attributes).toMatchObject({ 'http.route': '/rooms/:roomId', 'http.response.status_code': 200 });
    expect(JSON.stringify(span?.attributes)).not.toContain('secret');
  });

  it('lets nothing but the trace of what a caller says go on to others', async () => {
    const app = Fastify();
    running.push(app);
    traceRoutes(app);
    app.get('/', () => {
      const carrier = {};
      propagation.inject(context.active(), carrier);
      return carrier;
    });
    const headers = { traceparent, baggage: 'user.email=ann%40example.test' };
    const goesOn: object = (await app.inject({ url: '/', headers })).json();
    expect(Object.keys(goesOn)).toEqual(['traceparent']);
  });

  it('covers the refusal of a body that cannot be read', async () => {
    const { ask, spansAfter } = await start();
    const seen = await ask('/rooms/room-42', '{');
    const [span] = await spansAfter();
    expect(seen).toBe(`00-${traceId}-${span?.spanContext().spanId}-01`);
    expect(span?.attributes['http.response.status_code']).toBe(400);
    expect(span?.status.code).toBe(SpanStatusCode.UNSET);
  });

  it('marks what failed by our own fault', async () => {
    const { ask, spansAfter } = await start();
    await ask('/broken', '{}');
    const [span] = await spansAfter();
    expect(span?.status.code).toBe(SpanStatusCode.ERROR);
  });

  it('leaves probes out', async () => {
    const { ask, spansAfter } = await start();
    expect(await ask('/livez')).toBeNull();
    expect(await spansAfter()).toEqual([]);
  });

  it('is still there when the request is measured, for the exemplar', async () => {
    const { ask, spansAfter, metrics } = await start();
    await ask('/rooms/room-42', '{}');
    await spansAfter();
    expect(await metrics.getSingleMetricAsString('http_server_requests_seconds')).toContain(`trace_id="${traceId}"`);
  });
});
