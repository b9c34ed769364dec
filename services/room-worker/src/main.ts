import '@realtime-service/telemetry/register';
import { createLogger, readSettings, shutdownTelemetry } from '@realtime-service/telemetry';
import { WorkerSettings } from './config.ts';
import { startWorker } from './worker.ts';

const settings = readSettings('room-worker', 'Keeps the projections and enforces them in LiveKit.', WorkerSettings);
const logger = createLogger({ service: 'room-worker', level: settings.logLevel });
const worker = await startWorker(settings, logger);

let isStopping = false;
const stop = async (reason: string, exitCode: number): Promise<void> => {
  if (isStopping) return;
  isStopping = true;
  logger.info({ reason }, 'stopping');
  const deadline = setTimeout(() => {
    logger.error({ after_ms: settings.shutdownMs }, 'did not stop in time');
    process.exit(1);
  }, settings.shutdownMs);
  await worker.stop();
  await shutdownTelemetry();
  clearTimeout(deadline);
  process.exit(exitCode);
};

process.on('SIGTERM', () => void stop('SIGTERM', 0));
process.on('SIGINT', () => void stop('SIGINT', 0));
// A consumer that ended by itself is the supervisor's to restart: a live process that consumes nothing helps nobody.
worker.failed.catch((error: unknown) => {
  logger.fatal({ err: error }, 'consumer ended');
  void stop('consumer ended', 1);
});
