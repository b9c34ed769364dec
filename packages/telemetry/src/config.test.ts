import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { readTelemetryConfig } from './config.ts';

const script = fileURLToPath(import.meta.url);

describe('readTelemetryConfig', () => {
  it.each([
    [{}, 'realtime-service-telemetry'],
    [{ OTEL_SERVICE_NAME: 'api-blue' }, 'api-blue'],
    [{ OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment=prod, service.name=api-green' }, 'api-green'],
    [{ OTEL_SERVICE_NAME: 'api-blue', OTEL_RESOURCE_ATTRIBUTES: 'service.name=api-green' }, 'api-blue'],
    [{ OTEL_RESOURCE_ATTRIBUTES: 'my.service.name=other' }, 'realtime-service-telemetry'],
  ])('given %o, then the service is called %s', (env, name) => {
    expect(readTelemetryConfig(env, script).serviceName).toBe(name);
  });

  it('given a script outside any package, then the service is unknown', () => {
    expect(readTelemetryConfig({}, '/main.ts').serviceName).toBe('unknown_service');
  });

  it.each([
    [{}, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' }, true],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://collector:4318/v1/traces' }, true],
    [{ OTEL_TRACES_EXPORTER: 'zipkin' }, true],
    [{ OTEL_TRACES_EXPORTER: 'none\n' }, false],
    [{ OTEL_TRACES_EXPORTER: 'none', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' }, false],
  ])('given %o, then exporting is %s', (env, isExporting) => {
    expect(readTelemetryConfig(env, script).isExporting).toBe(isExporting);
  });

  it.each([
    [{}, { isParentBased: true, root: 'always_on', ratio: 1 }],
    [{ OTEL_TRACES_SAMPLER: 'always_off' }, { isParentBased: false, root: 'always_off', ratio: 1 }],
    [{ OTEL_TRACES_SAMPLER: 'always_off\n' }, { isParentBased: false, root: 'always_off', ratio: 1 }],
    [
      { OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0.1' },
      { isParentBased: true, root: 'traceidratio', ratio: 0.1 },
    ],
    [
      { OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '0' },
      { isParentBased: false, root: 'traceidratio', ratio: 0 },
    ],
    [
      { OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '7' },
      { isParentBased: false, root: 'traceidratio', ratio: 1 },
    ],
    [{ OTEL_TRACES_SAMPLER: 'jaeger_remote' }, { isParentBased: true, root: 'always_on', ratio: 1 }],
  ])('given %o, then the sampler is %o', (env, sampler) => {
    expect(readTelemetryConfig(env, script).sampler).toEqual(sampler);
  });
});
