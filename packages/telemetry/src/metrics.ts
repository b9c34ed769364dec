import { collectDefaultMetrics, type OpenMetricsContentType, Registry } from 'prom-client';

/**
 * Everything that a process tells Prometheus, in the OpenMetrics format (which adds `_total` to counters by itself).
 */
export type Metrics = Registry<OpenMetricsContentType>;

/** A registry with the process's own metrics: CPU, memory, event loop, garbage collection. */
export function createMetrics(): Metrics {
  const metrics = new Registry<OpenMetricsContentType>();
  metrics.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  collectDefaultMetrics({ register: metrics });
  return metrics;
}
