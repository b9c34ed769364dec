import { diag } from '@opentelemetry/api';
import { afterEach, describe, expect, it } from 'vitest';
import { logTelemetryFaults } from './diagnostics.ts';
import { createLogger } from './logger.ts';

afterEach(() => diag.disable());

describe('logTelemetryFaults', () => {
  it('writes one line per interval, with the number of those between', () => {
    let nowMs = 0;
    const lines: Record<string, unknown>[] = [];
    logTelemetryFaults(createLogger({ service: 'api', destination: { write: (line) => lines.push(JSON.parse(line)) } }), 60_000, () => nowMs);
    for (nowMs = 0; nowMs < 120_000; nowMs += 1_000) diag.error('connect ECONNREFUSED');
    diag.info('not a fault');
    expect(lines).toMatchObject([
      { level: 'warn', msg: 'telemetry is impaired', reason: 'connect ECONNREFUSED', suppressed: 0 },
      { level: 'warn', msg: 'telemetry is impaired', suppressed: 59 },
    ]);
  });
});
