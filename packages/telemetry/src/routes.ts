import {
  type Attributes,
  context,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Histogram } from 'prom-client';
import type { Metrics } from './metrics.ts';
import { isProbe, pathOf } from './probes.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Asked for by `routeOf`. */
    knownRoute: FastifyRequest['routeOptions'] | null;
    /** When it began, by the process's own clock; set where routes are measured. */
    startedAtMs: number;
  }
}

/** The request's route. Fastify puts `routeOptions` together anew each time that they are asked for. */
export function routeOf(request: FastifyRequest): FastifyRequest['routeOptions'] {
  request.knownRoute ??= request.routeOptions;
  return request.knownRoute;
}

const tracer = trace.getTracer('realtime-service');

/**
 * Opens a server span for each request, named after its route template (`POST /rooms/:roomId/join`), within the
 * caller's trace. A request without a route has the bare method as its name, since its path is the caller's choice.
 * Probes are left out. The HTTP instrumentation does the same, but wraps every listener of every request and response,
 * which took a quarter of the processor time of a join.
 */
export function traceRoutes(app: FastifyInstance): void {
  app.decorateRequest('knownRoute', null);
  app.addHook('onRequest', (request, reply, done) => {
    if (isProbe(request.url)) done();
    else traceRequest(request, reply, done);
  });
}

/** Opens the span of one request and continues within it. */
function traceRequest(request: FastifyRequest, reply: FastifyReply, next: () => void): void {
  // Baggage is left behind: a caller's would go into the log, for good, and into others' records of the same batch.
  const parent = propagation.deleteBaggage(propagation.extract(ROOT_CONTEXT, request.headers));
  const { method } = request;
  const { url } = routeOf(request);
  const name = url === undefined ? method : `${method} ${url}`;
  const span = tracer.startSpan(name, { kind: SpanKind.SERVER }, parent);
  // No sampler of ours looks at attributes, so those that nobody receives are never put together.
  if (span.isRecording()) {
    span.setAttributes(attributesOf(request));
    reply.raw.once('close', () => {
      span.setAttribute('http.response.status_code', reply.statusCode);
      if (reply.statusCode >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
      span.end();
    });
  }
  context.with(trace.setSpan(parent, span), next);
}

/** As the semantic conventions for HTTP have them; the query, which may carry a token, is not among them. */
const attributesOf = (request: FastifyRequest): Attributes => ({
  'http.request.method': request.method,
  'http.route': routeOf(request).url,
  'url.path': pathOf(request.url),
  'url.scheme': request.protocol,
  'server.address': request.headers.host,
  'client.address': request.ip,
  'user_agent.original': request.headers['user-agent'],
});

/**
 * Measures each request under the names that Spring's dashboards know:
 * `http_server_requests_seconds{method,uri,status}`, where `uri` is the route template, never a path. A bucket's
 * exemplar is the trace of a request that fell into it. The time is that until the answer is given to the connection,
 * of a stream that until its first bytes: to wait for the end of an answer takes listeners on every response. What a
 * route answers by itself (`hijack`: pages of documentation) is not measured.
 */
export function measureRoutes(app: FastifyInstance, metrics: Metrics): void {
  const requests = new Histogram({
    name: 'http_server_requests_seconds',
    help: 'HTTP requests by method, route template and status.',
    labelNames: ['method', 'uri', 'status'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
    enableExemplars: true,
    registers: [metrics],
  });
  app.decorateRequest('startedAtMs', 0);
  app.addHook('onRequest', (request, _reply, done) => {
    request.startedAtMs = performance.now();
    done();
  });
  app.addHook('onSend', (request, reply, _payload, done) => {
    const labels = {
      method: request.method,
      uri: routeOf(request).url ?? 'UNKNOWN',
      status: String(reply.statusCode),
    };
    const exemplarLabels = sampledTrace();
    requests.observe({
      labels,
      value: (performance.now() - request.startedAtMs) / 1000,
      ...(exemplarLabels !== undefined && { exemplarLabels }),
    });
    done();
  });
}

/** None where nobody receives the trace. */
function sampledTrace(): Record<string, string> | undefined {
  const span = trace.getActiveSpan();
  if (!span?.isRecording()) return undefined;
  const { traceFlags, traceId } = span.spanContext();
  return traceFlags & TraceFlags.SAMPLED ? { trace_id: traceId } : undefined;
}
