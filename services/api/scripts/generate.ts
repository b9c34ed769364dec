// Writes docs/reference/api.md from the settings' schema and the metrics' registry.
import { measureRoutes } from '@realtime-service/telemetry';
import { serviceReference, writePage } from '@realtime-service/telemetry/reference-page';
import Fastify from 'fastify';
import { ApiSettings } from '../src/config.ts';
import { createApiMetrics, watchState } from '../src/metrics.ts';

const { registry } = createApiMetrics();
measureRoutes(Fastify(), registry);
watchState(registry, {
  freshness: { partitions: () => [], isLogKnown: () => true },
  keys: { ageMs: () => 0 },
  consumerGroup: '',
});
const page = await serviceReference({ service: 'api', settings: ApiSettings, metrics: registry });
await writePage(page, new URL('../../../docs/reference/api.md', import.meta.url));
