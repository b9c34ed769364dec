import { context, TraceFlags, trace } from '@opentelemetry/api';
import { getRPCMetadata, RPCType } from '@opentelemetry/core';
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyTypeProvider,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify';
import { Histogram } from 'prom-client';
import type { Metrics } from './metrics.ts';

/** A Fastify app with any logger and any type provider. */
type App<L extends FastifyBaseLogger, P extends FastifyTypeProvider> = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  L,
  P
>;

/**
 * Names each request's server span after its route template (`POST /rooms/:roomId/join`) and sets `http.route`.
 * The span itself is the HTTP instrumentation's; it reads the route when the response is done. A request without a
 * route keeps the bare method as its name, since its path is the caller's choice.
 */
export function traceRoutes<L extends FastifyBaseLogger, P extends FastifyTypeProvider>(app: App<L, P>): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const rpc = getRPCMetadata(context.active());
    const route = request.routeOptions.url;
    if (rpc?.type === RPCType.HTTP && route !== undefined) rpc.route = route;
    done();
  });
}

/**
 * Measures each request under the names that Spring's dashboards know: `http_server_requests_seconds{method,uri,status}`,
 * where `uri` is the route template, never a path. A bucket's exemplar is the trace of a request that fell into it.
 */
export function measureRoutes<L extends FastifyBaseLogger, P extends FastifyTypeProvider>(
  app: App<L, P>,
  metrics: Metrics,
): void {
  const requests = new Histogram({
    name: 'http_server_requests_seconds',
    help: 'HTTP requests by method, route template and status.',
    labelNames: ['method', 'uri', 'status'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
    enableExemplars: true,
    registers: [metrics],
  });
  app.addHook('onResponse', (request, reply, done) => {
    requests.observe({
      labels: { method: request.method, uri: request.routeOptions.url ?? 'UNKNOWN', status: String(reply.statusCode) },
      value: reply.elapsedTime / 1000,
      exemplarLabels: sampledTrace(),
    });
    done();
  });
}

function sampledTrace(): Record<string, string> {
  const span = trace.getActiveSpan()?.spanContext();
  return span !== undefined && span.traceFlags & TraceFlags.SAMPLED ? { trace_id: span.traceId } : {};
}
