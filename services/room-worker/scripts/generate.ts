// Writes docs/reference/room-worker.md from the settings' schema and the metrics' registry.
import { writeServiceReference } from '@realtime-service/telemetry/service-reference';
import { WorkerSettings } from '../src/config.ts';
import { createWorkerMetrics } from '../src/metrics.ts';

const reference = { service: 'room-worker', settings: WorkerSettings, metrics: createWorkerMetrics().registry };
await writeServiceReference(reference, new URL('../../../docs/reference/room-worker.md', import.meta.url));
