// Writes docs/reference/room-worker.md from the settings' schema and the metrics' registry.
import { serviceReference, writePage } from '@realtime-service/telemetry/reference-page';
import { WorkerSettings } from '../src/config.ts';
import { createWorkerMetrics } from '../src/metrics.ts';

const { registry } = createWorkerMetrics();
const page = await serviceReference({ service: 'room-worker', settings: WorkerSettings, metrics: registry });
await writePage(page, new URL('../../../docs/reference/room-worker.md', import.meta.url));
