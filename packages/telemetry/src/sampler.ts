import { SpanKind } from '@opentelemetry/api';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type Sampler,
  SamplingDecision,
  type SamplingResult,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace';
import type { TelemetryConfig } from './config.ts';

/** The configured sampler, less the spans that nobody can read. */
export function createSampler(config: TelemetryConfig['sampler']): Sampler {
  const root = createRootSampler(config);
  return withoutRecordSpans(config.isParentBased ? new ParentBasedSampler({ root }) : root);
}

function createRootSampler({ root, ratio }: TelemetryConfig['sampler']): Sampler {
  switch (root) {
    case 'always_on':
      return new AlwaysOnSampler();
    case 'always_off':
      return new AlwaysOffSampler();
    case 'traceidratio':
      return new TraceIdRatioBasedSampler(ratio);
  }
}

/**
 * instrumentation-kafkajs opens one `process` span for each record of a batch, a thousand at a time, all of them as
 * long as the batch. They are dropped: the span of the chunk says it, with links to its producers.
 */
function withoutRecordSpans(sampler: Sampler): Sampler {
  return {
    shouldSample(...span: Parameters<Sampler['shouldSample']>): SamplingResult {
      const [, , , kind, attributes] = span;
      const isRecordSpan =
        kind === SpanKind.CONSUMER &&
        attributes['messaging.system'] === 'kafka' &&
        attributes['messaging.operation.type'] === 'process';
      return isRecordSpan ? { decision: SamplingDecision.NOT_RECORD } : sampler.shouldSample(...span);
    },
    toString: () => `WithoutRecordSpans{${sampler.toString()}}`,
  };
}
