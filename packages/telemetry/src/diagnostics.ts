import { context, type DiagLogger, DiagLogLevel, diag, ROOT_CONTEXT } from '@opentelemetry/api';
import { setGlobalErrorHandler } from '@opentelemetry/core';
import type { Logger } from './logger.ts';

/**
 * The SDK's failures and complaints as log lines, at most one per interval: a collector that is away for a night says
 * so a few hundred times, not once per batch. `suppressed` counts those in between.
 */
export function logTelemetryFaults(logger: Logger, intervalMs = 60_000, now: () => number = Date.now): void {
  let nextAtMs = 0;
  let suppressed = 0;
  const complain = (fault: { err?: unknown; reason?: string }) => {
    if (now() < nextAtMs) {
      suppressed += 1;
      return;
    }
    // Outside of the request whose span happened to fill the batch.
    context.with(ROOT_CONTEXT, () => logger.warn({ ...fault, suppressed }, 'telemetry is impaired'));
    nextAtMs = now() + intervalMs;
    suppressed = 0;
  };
  const complainOf = (reason: string) => complain({ reason });
  const ignore = () => {};
  const diagLogger: DiagLogger = { error: complainOf, warn: complainOf, info: ignore, debug: ignore, verbose: ignore };
  diag.setLogger(diagLogger, DiagLogLevel.WARN);
  setGlobalErrorHandler((err) => complain({ err }));
}
