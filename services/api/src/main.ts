import '@realtime-service/telemetry/register';
import { createLogger, readSettings, runService } from '@realtime-service/telemetry';
import { startApi } from './api.ts';
import { ApiSettings } from './config.ts';

const settings = readSettings('api', 'Answers who may enter which room, and takes room events over HTTP.', ApiSettings);
const logger = createLogger({ service: 'api', level: settings.logLevel });
await runService(() => startApi(settings, logger), { logger, shutdownMs: settings.shutdownMs });
