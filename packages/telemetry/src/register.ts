/**
 * Starts tracing. A service's `main.ts` imports this module before any other: it patches the libraries below when
 * they load, and modules are evaluated in the order of their imports.
 *
 *     import '@realtime-service/telemetry/register';
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { context, propagation, type TextMapPropagator, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { CompositePropagator, W3CTraceContextPropagator } from '@opentelemetry/core';
import { type Instrumentation, registerInstrumentations } from '@opentelemetry/instrumentation';
import { B3Propagator } from '@opentelemetry/propagator-b3';
import { envDetector, hostDetector, serviceInstanceIdDetector } from '@opentelemetry/resources';
import { NoopSpanProcessor } from '@opentelemetry/sdk-trace';
import { readTelemetryConfig } from './config.ts';
import { logTelemetryFaults } from './diagnostics.ts';
import { createIdsOnlyProvider } from './ids-only.ts';
import { createLogger } from './logger.ts';
import { pathOf } from './probes.ts';
import { createSampler } from './sampler.ts';

const config = readTelemetryConfig();
if (!config.isDiagnosing) logTelemetryFaults(createLogger());

const sampler = createSampler(config.sampler);
const require = createRequire(import.meta.url);
if (config.isExporting || config.isPropagatorChosen) startSdk();
else startIdsOnly();

/** The whole SDK, as the standard variables say. It loads every exporter there is, so only where one is wanted. */
function startSdk(): void {
  const { NodeSDK } = require('@opentelemetry/sdk-node') as typeof import('@opentelemetry/sdk-node');
  const { HttpInstrumentation } =
    require('@opentelemetry/instrumentation-http') as typeof import('@opentelemetry/instrumentation-http');
  const { PgInstrumentation } =
    require('@opentelemetry/instrumentation-pg') as typeof import('@opentelemetry/instrumentation-pg');
  const { UndiciInstrumentation } =
    require('@opentelemetry/instrumentation-undici') as typeof import('@opentelemetry/instrumentation-undici');
  new NodeSDK({
    serviceName: config.serviceName,
    // Not the process's command line, owner and paths: Zipkin repeats all of it on each span.
    resourceDetectors: [envDetector, hostDetector, serviceInstanceIdDetector],
    sampler,
    ...(!config.isPropagatorChosen && { textMapPropagator: createPropagator() }),
    ...(!config.isExporting && { spanProcessors: [new NoopSpanProcessor()] }),
    // Metrics are scraped and logs are lines on standard output; only traces are sent.
    metricReaders: [],
    logRecordProcessors: [],
    instrumentations: [
      // Requests that come in are traced by `traceRoutes`.
      new HttpInstrumentation({ disableIncomingRequestInstrumentation: true }),
      new UndiciInstrumentation({
        startSpanHook: ({ origin, path }) => ({ 'url.full': origin + pathOf(path), 'url.query': undefined }),
      }),
      // With `ignoreConnectSpans` a query that waited for a connection would run in the context of whoever released it.
      new PgInstrumentation({ requireParentSpan: true }),
      ...instrumentKafka(),
    ],
  }).start();
}

/** Others are sent the context, in Kafka's records; spans of our own calls would be read by nobody. */
function startIdsOnly(): void {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(createPropagator());
  trace.setGlobalTracerProvider(createIdsOnlyProvider(sampler));
  registerInstrumentations({ instrumentations: instrumentKafka() });
}

function instrumentKafka(): Instrumentation[] {
  if (!config.usesKafka) return [];
  const { KafkaJsInstrumentation } =
    require('@opentelemetry/instrumentation-kafkajs') as typeof import('@opentelemetry/instrumentation-kafkajs');
  return [new KafkaJsInstrumentation()];
}

// The instrumentations patch in place whatever passes through `require`. These are what an `import` reaches without it;
// loaded here first, everybody finds them patched, and no loader hook nor start flag is needed.
require('node:http');
require('node:https');
syncBuiltinESMExports();
if (config.usesKafka) require('kafkajs');

/** W3C both ways; B3 is understood as well, so that a Spring gateway's trace goes on here. W3C wins over B3. */
function createPropagator(): TextMapPropagator {
  const b3 = new B3Propagator();
  const b3Reader: TextMapPropagator = {
    // Whether there is any is asked first: most requests have none, and B3 then looks for five headers twice.
    extract: (context, carrier, getter) =>
      (getter.get(carrier, 'b3') ?? getter.get(carrier, 'x-b3-traceid')) === undefined
        ? context
        : b3.extract(context, carrier, getter),
    inject: () => {},
    fields: () => b3.fields(),
  };
  return new CompositePropagator({
    propagators: [b3Reader, new W3CTraceContextPropagator()],
  });
}
