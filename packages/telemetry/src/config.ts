import { readFileSync } from 'node:fs';
import { findPackageJSON } from 'node:module';
import { pathToFileURL } from 'node:url';

type Environment = Readonly<Record<string, string | undefined>>;

/** What the standard `OTEL_*` variables leave for us to decide; the SDK reads the others itself. */
export type TelemetryConfig = {
  /** Name in traces and in the SDK's complaints: the variables', else the started package's own. */
  serviceName: string;
  /** Somebody said where spans go. Without it nothing is sent, and nobody waits for a collector on localhost. */
  isExporting: boolean;
  isPropagatorChosen: boolean;
  /** Where it is false, a Kafka client is never loaded. */
  usesKafka: boolean;
  isDiagnosing: boolean;
  sampler: { isParentBased: boolean; root: 'always_on' | 'always_off' | 'traceidratio'; ratio: number };
};

/** Blanks around a value are no part of it, as in our own settings. */
export function readTelemetryConfig(given: Environment = process.env, script = process.argv[1]): TelemetryConfig {
  const env = Object.fromEntries(Object.entries(given).map(([name, value]) => [name, value?.trim()]));
  const [, attribute] = /(?:^|,)\s*service\.name=([^,]+)/.exec(env['OTEL_RESOURCE_ATTRIBUTES'] ?? '') ?? [];
  return {
    serviceName: env['OTEL_SERVICE_NAME'] || attribute?.trim() || packageNameOf(script) || 'unknown_service',
    isExporting: isExporting(env),
    isPropagatorChosen: Boolean(env['OTEL_PROPAGATORS']),
    usesKafka: Boolean(env['KAFKA_BROKERS']),
    isDiagnosing: Boolean(env['OTEL_LOG_LEVEL']),
    sampler: readSampler(env),
  };
}

function isExporting(env: Environment): boolean {
  if (env['OTEL_TRACES_EXPORTER']) return env['OTEL_TRACES_EXPORTER'] !== 'none';
  return Boolean(env['OTEL_EXPORTER_OTLP_ENDPOINT'] || env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT']);
}

/** `OTEL_TRACES_SAMPLER` as the specification defines it; anything unknown is its default, `parentbased_always_on`. */
function readSampler(env: Environment): TelemetryConfig['sampler'] {
  const [, parentBased, root] =
    /^(parentbased_)?(always_on|always_off|traceidratio)$/.exec(env['OTEL_TRACES_SAMPLER'] ?? '') ?? [];
  const ratio = Number(env['OTEL_TRACES_SAMPLER_ARG'] || 1);
  return {
    isParentBased: root === undefined || parentBased !== undefined,
    root: root === 'always_off' || root === 'traceidratio' ? root : 'always_on',
    ratio: ratio >= 0 && ratio <= 1 ? ratio : 1,
  };
}

/** `@realtime-service/api` names the service `realtime-service-api`. */
function packageNameOf(script: string | undefined): string | undefined {
  if (script === undefined) return undefined;
  const path = findPackageJSON('.', pathToFileURL(script));
  if (!path?.endsWith('package.json')) return undefined;
  const manifest: unknown = JSON.parse(readFileSync(path, 'utf8'));
  if (typeof manifest !== 'object' || manifest === null || !('name' in manifest)) return undefined;
  return String(manifest.name).replace('@', '').replace('/', '-');
}
