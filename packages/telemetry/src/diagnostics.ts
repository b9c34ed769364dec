import { type DiagLogger, DiagLogLevel, diag } from '@opentelemetry/api';
import type { Logger } from './logger.ts';

/**
 * The SDK's own complaints as log lines, at most one per interval: a collector that is away for a night says so a few
 * hundred times, not once per batch. `suppressed` counts the complaints in between.
 */
export function logTelemetryFaults(logger: Logger, intervalMs = 60_000, now: () => number = Date.now): void {
  let nextAtMs = 0;
  let suppressed = 0;
  const complain = (message: string) => {
    if (now() < nextAtMs) {
      suppressed += 1;
      return;
    }
    logger.warn({ reason: message.slice(0, 300), suppressed }, 'telemetry is impaired');
    nextAtMs = now() + intervalMs;
    suppressed = 0;
  };
  const ignore = () => {};
  const diagLogger: DiagLogger = { error: complain, warn: complain, info: ignore, debug: ignore, verbose: ignore };
  diag.setLogger(diagLogger, DiagLogLevel.WARN);
}
