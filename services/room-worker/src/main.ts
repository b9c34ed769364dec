import '@realtime-service/telemetry/register';
import { createLogger, readSettings, releaseMemory, shutdownTelemetry } from '@realtime-service/telemetry';
import { WorkerSettings } from './config.ts';
import { startWorker } from './worker.ts';

const settings = readSettings('room-worker', 'Keeps the projections and enforces them in LiveKit.', WorkerSettings);
const logger = createLogger({ service: 'room-worker', level: settings.logLevel });
const ending = new AbortController();
const starting = startWorker(settings, logger, ending.signal);

const stop = async (reason: string, exitCode: number): Promise<void> => {
  if (ending.signal.aborted) return;
  ending.abort();
  logger.info({ reason }, 'stopping');
  const deadline = setTimeout(() => {
    logger.error({ after_ms: settings.shutdownMs }, 'did not stop in time');
    process.exit(1);
  }, settings.shutdownMs);
  try {
    // One that has not started holds nothing.
    const worker = await starting.catch(() => undefined);
    await worker?.stop();
  } catch (error) {
    logger.error({ err: error }, 'did not stop in order');
    process.exit(1);
  }
  await shutdownTelemetry();
  clearTimeout(deadline);
  process.exit(exitCode);
};

process.on('SIGTERM', () => void stop('SIGTERM', 0));
process.on('SIGINT', () => void stop('SIGINT', 0));
try {
  const worker = await starting;
  releaseMemory();
  await worker.failed;
} catch (error) {
  // What ended by itself is the supervisor's to restart: a live process that consumes nothing helps nobody.
  if (!ending.signal.aborted) {
    logger.fatal({ err: error }, 'cannot go on');
    await stop('cannot go on', 1);
  }
}
