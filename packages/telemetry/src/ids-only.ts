import {
  type Context,
  context,
  type Span,
  SpanKind,
  type SpanOptions,
  TraceFlags,
  type Tracer,
  type TracerProvider,
  trace,
} from '@opentelemetry/api';
import { RandomIdGenerator, type Sampler, SamplingDecision } from '@opentelemetry/sdk-trace';

/**
 * Spans that nobody receives: they carry the ids that logs, problem documents and other services' spans name, pass the
 * sampler's verdict on, and record nothing.
 */
export function createIdsOnlyProvider(sampler: Sampler): TracerProvider {
  const ids = new RandomIdGenerator();

  function startSpan(name: string, options: SpanOptions = {}, active: Context = context.active()): Span {
    const { root = false, kind = SpanKind.INTERNAL, attributes = {}, links = [] } = options;
    const parent = root ? undefined : trace.getSpanContext(active);
    const traceId = parent?.traceId ?? ids.generateTraceId();
    const { decision } = sampler.shouldSample(active, traceId, name, kind, attributes, links);
    return trace.wrapSpanContext({
      traceId,
      spanId: ids.generateSpanId(),
      traceFlags: decision === SamplingDecision.RECORD_AND_SAMPLED ? TraceFlags.SAMPLED : TraceFlags.NONE,
      ...(parent?.traceState !== undefined && { traceState: parent.traceState }),
    });
  }

  const tracer: Tracer = {
    startSpan,
    startActiveSpan<F extends (span: Span) => ReturnType<F>>(
      name: string,
      ...rest: [F] | [SpanOptions, F] | [SpanOptions, Context, F]
    ): ReturnType<F> {
      const fn = rest.at(-1) as F;
      const [options, active = context.active()] = rest.slice(0, -1) as [SpanOptions?, Context?];
      const span = startSpan(name, options, active);
      return context.with(trace.setSpan(active, span), fn, undefined, span);
    },
  };
  return { getTracer: () => tracer };
}
