import type { Logger } from './logger.ts';
import { releaseMemory } from './release-memory.ts';
import { shutdownTelemetry } from './shutdown.ts';

export interface RunningService {
  /** Ends it in order. */
  readonly stop: () => Promise<void>;
  /** Rejects when it cannot go on. */
  readonly failed?: Promise<void>;
}

export interface RunOptions {
  readonly logger: Logger;
  /** How long an orderly end may take, in milliseconds. */
  readonly shutdownMs: number;
}

/**
 * Runs a service until SIGTERM or SIGINT, and ends it in order. Signals are heard from the beginning, since the first
 * process of a container that handles none never gets them; `ending` tells one that is still starting. What fails by
 * itself is the supervisor's to restart: a live process that does nothing helps nobody. The exit code is 0 after a
 * signal, and 1 after a failure or without an end in time. What nobody caught, a rejection too, ends it at once: nobody
 * knows in what state that left it.
 */
export async function runService(
  start: (ending: AbortSignal) => Promise<RunningService>,
  { logger, shutdownMs }: RunOptions,
): Promise<void> {
  const ending = new AbortController();

  async function stop(reason: string, exitCode: number): Promise<void> {
    if (ending.signal.aborted) return;
    ending.abort();
    logger.info({ reason }, 'stopping');
    setTimeout(() => {
      logger.error({ after_ms: shutdownMs }, 'did not stop in time');
      process.exit(1);
    }, shutdownMs);
    try {
      // One that has not started holds nothing.
      const service = await starting.catch(() => undefined);
      await service?.stop();
    } catch (error) {
      logger.error({ err: error }, 'did not stop in order');
      process.exit(1);
    }
    await shutdownTelemetry();
    process.exit(exitCode);
  }

  process.on('uncaughtException', (error) => {
    logger.fatal({ err: error }, 'cannot go on');
    process.exit(1);
  });
  process.on('SIGTERM', () => void stop('SIGTERM', 0));
  process.on('SIGINT', () => void stop('SIGINT', 0));
  const starting = start(ending.signal);
  try {
    const service = await starting;
    releaseMemory();
    await service.failed;
  } catch (error) {
    if (ending.signal.aborted) return;
    logger.fatal({ err: error }, 'cannot go on');
    await stop('cannot go on', 1);
  }
}
