import { ROOT_CONTEXT, SpanKind, TraceFlags, trace } from '@opentelemetry/api';
import { SamplingDecision } from '@opentelemetry/sdk-trace';
import { describe, expect, it } from 'vitest';
import { createSampler } from './sampler.ts';

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
const record = { 'messaging.system': 'kafka', 'messaging.operation.type': 'process' };
const sampledParent = trace.setSpanContext(ROOT_CONTEXT, {
  traceId,
  spanId: '00f067aa0ba902b7',
  traceFlags: TraceFlags.SAMPLED,
  isRemote: true,
});

describe('createSampler', () => {
  const sampler = createSampler({ isParentBased: true, root: 'always_on', ratio: 1 });

  it.each([
    ['a record of a batch', SpanKind.CONSUMER, record, SamplingDecision.NOT_RECORD],
    [
      'a poll',
      SpanKind.CONSUMER,
      { ...record, 'messaging.operation.type': 'receive' },
      SamplingDecision.RECORD_AND_SAMPLED,
    ],
    [
      'a sent record',
      SpanKind.PRODUCER,
      { ...record, 'messaging.operation.type': 'send' },
      SamplingDecision.RECORD_AND_SAMPLED,
    ],
    ['our own span about a record', SpanKind.INTERNAL, record, SamplingDecision.RECORD_AND_SAMPLED],
    [
      'another broker’s record',
      SpanKind.CONSUMER,
      { ...record, 'messaging.system': 'rabbitmq' },
      SamplingDecision.RECORD_AND_SAMPLED,
    ],
  ])('given %s, then the decision is right', (_case, kind, attributes, decision) => {
    expect(sampler.shouldSample(ROOT_CONTEXT, traceId, 'any', kind, attributes, []).decision).toBe(decision);
  });

  it('given a parent based sampler that begins no trace, then it goes on with a sampled one', () => {
    const quiet = createSampler({ isParentBased: true, root: 'always_off', ratio: 1 });
    expect(quiet.shouldSample(ROOT_CONTEXT, traceId, 'any', SpanKind.SERVER, {}, []).decision).toBe(
      SamplingDecision.NOT_RECORD,
    );
    expect(quiet.shouldSample(sampledParent, traceId, 'any', SpanKind.SERVER, {}, []).decision).toBe(
      SamplingDecision.RECORD_AND_SAMPLED,
    );
  });

  it('given a ratio of zero without regard to parents, then nothing is sampled', () => {
    const none = createSampler({ isParentBased: false, root: 'traceidratio', ratio: 0 });
    expect(none.shouldSample(sampledParent, traceId, 'any', SpanKind.SERVER, {}, []).decision).toBe(
      SamplingDecision.NOT_RECORD,
    );
  });
});
