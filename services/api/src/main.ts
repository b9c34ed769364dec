import '@realtime-service/telemetry/register';
import { createLogger, readSettings, releaseMemory, shutdownTelemetry } from '@realtime-service/telemetry';
import { startApi } from './api.ts';
import { ApiSettings } from './config.ts';

const settings = readSettings('api', 'Answers who may enter which room, and takes room events over HTTP.', ApiSettings);
const logger = createLogger({ service: 'api', level: settings.logLevel });
const api = await startApi(settings, logger);
releaseMemory();

let isStopping = false;
const stop = async (signal: string): Promise<void> => {
  if (isStopping) return;
  isStopping = true;
  logger.info({ signal }, 'stopping');
  setTimeout(() => {
    logger.error({ after_ms: settings.shutdownMs }, 'did not stop in time');
    process.exit(1);
  }, settings.shutdownMs).unref();
  await api.stop();
  await shutdownTelemetry();
  process.exit(0);
};

process.on('SIGTERM', () => void stop('SIGTERM'));
process.on('SIGINT', () => void stop('SIGINT'));
