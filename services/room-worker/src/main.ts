import '@realtime-service/telemetry/register';
import { createLogger, readSettings, runService } from '@realtime-service/telemetry';
import { WorkerSettings } from './config.ts';
import { startWorker } from './worker.ts';

const settings = readSettings('room-worker', 'Keeps the projections and enforces them in LiveKit.', WorkerSettings);
const logger = createLogger({ service: 'room-worker', level: settings.logLevel });
await runService((ending) => startWorker(settings, logger, ending), { logger, shutdownMs: settings.shutdownMs });
