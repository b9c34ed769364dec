import { diag } from '@opentelemetry/api';
import { globalErrorHandler, loggingErrorHandler, setGlobalErrorHandler } from '@opentelemetry/core';
import { afterEach, describe, expect, it } from 'vitest';
import { logTelemetryFaults } from './diagnostics.ts';
import { createLogger } from './logger.ts';

afterEach(() => {
  diag.disable();
  setGlobalErrorHandler(loggingErrorHandler());
});

describe('logTelemetryFaults', () => {
  it('writes one line per interval, with the number of those between', () => {
    let nowMs = 0;
    const lines: Record<string, unknown>[] = [];
    const logger = createLogger({ service: 'api', destination: { write: (line) => lines.push(JSON.parse(line)) } });
    logTelemetryFaults(logger, 60_000, () => nowMs);
    for (; nowMs < 60_000; nowMs += 1_000) globalErrorHandler(new Error('connect ECONNREFUSED'));
    diag.info('not a fault');
    diag.warn('Dropped 7 spans');
    expect(lines).toMatchObject([
      { level: 'warn', msg: 'telemetry is impaired', err: { message: 'connect ECONNREFUSED' }, suppressed: 0 },
      { level: 'warn', msg: 'telemetry is impaired', reason: 'Dropped 7 spans', suppressed: 59 },
    ]);
  });
});
