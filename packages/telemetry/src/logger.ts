import { trace } from '@opentelemetry/api';
import { type DestinationStream, type Logger, destination as openDestination, pino } from 'pino';
import { readTelemetryConfig } from './config.ts';
import { pathOf } from './probes.ts';
import { scrubLine } from './scrub.ts';

export type { Logger } from 'pino';

type LoggerOptions = {
  /** The name in the service's traces unless said. */
  service?: string;
  /** One of pino's levels; `info` unless said. */
  level?: string;
  /** Standard output unless said. */
  destination?: DestinationStream;
};

/**
 * JSON lines: ISO time, the level by name, `trace_id` and `span_id` of the active span, no secrets.
 * Messages are static text, whatever varies is a field: `logger.warn({ room, err }, 'removal failed')`.
 */
export function createLogger(settings: LoggerOptions = {}): Logger {
  const { service = readTelemetryConfig().serviceName, level = 'info', destination } = settings;
  const options = {
    level,
    base: { service },
    timestamp: createIsoTime(),
    formatters: { level: (label: string) => ({ level: label }) },
    mixin: activeTrace,
    serializers: { err: serializeError, req: serializeRequest },
    hooks: { streamWrite: scrubLine },
  };
  return pino(options, destination ?? inPieces());
}

/**
 * A write for each line would be a tenth of a join, and larger pieces cost more than they save. What waits is written
 * after 100 ms and when the process ends, fatal lines at once.
 */
function inPieces(): DestinationStream {
  const pieces = openDestination({ dest: 1, sync: true, minLength: 4096, periodicFlush: 100 });
  process.on('exit', () => pieces.flushSync());
  return pieces;
}

/** As pino's `isoTime`; the lines of a second share all but its thousandth. */
function createIsoTime(): () => string {
  let second = 0;
  let prefix = '';
  return () => {
    const nowMs = Date.now();
    if (Math.floor(nowMs / 1000) !== second) {
      second = Math.floor(nowMs / 1000);
      prefix = new Date(nowMs).toISOString().slice(0, -'000Z'.length);
    }
    return `,"time":"${prefix}${String(nowMs % 1000).padStart(3, '0')}Z"`;
  };
}

function activeTrace(): { trace_id?: string; span_id?: string } {
  const span = trace.getActiveSpan()?.spanContext();
  return span === undefined ? {} : { trace_id: span.traceId, span_id: span.spanId };
}

type SerializedError = { type: string; message: string; code?: unknown; stack?: string; cause?: SerializedError };

/**
 * The parts of an error that are safe to write down. The rest is left out: clients hang requests, responses and
 * parameters on their errors.
 */
function serializeError(error: unknown, depth = 0): SerializedError {
  if (!(error instanceof Error)) return { type: typeof error, message: String(error) };
  return {
    type: error.name,
    message: error.message,
    ...('code' in error && { code: error.code }),
    ...(error.stack !== undefined && { stack: error.stack }),
    ...(error.cause !== undefined && depth < 5 && { cause: serializeError(error.cause, depth + 1) }),
  };
}

function serializeRequest(request: { method?: string; url?: string; ip?: string }): object {
  return { method: request.method, path: pathOf(request.url ?? ''), address: request.ip };
}
