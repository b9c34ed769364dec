import { trace } from '@opentelemetry/api';
import { type DestinationStream, type Logger, destination as openDestination, pino } from 'pino';
import { readTelemetryConfig } from './config.ts';
import { messageOf } from './message-of.ts';
import { pathOf } from './probes.ts';
import { scrubLines } from './scrub.ts';

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
  const isoTime = createIsoTime();
  const options = {
    level,
    base: { service },
    // As text, which pino puts into the line as it is: its mixin is an object more for each line.
    timestamp: () => `,"time":"${isoTime()}"${activeTrace()}`,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { err: serializeError, req: serializeRequest },
  };
  return pino(options, destination === undefined ? inPieces(scrubbed(standardOutput())) : scrubbed(destination));
}

/** What a disk that is full does not take waits for it, up to here; what comes then is lost. */
const maxWaitingBytes = 1024 * 1024;

/** Waits where a pipe is full. Lines that cannot be written, to a full disk or to nobody, never end the process. */
function standardOutput(): DestinationStream {
  const output = openDestination({ dest: 1, sync: true, maxLength: maxWaitingBytes });
  output.on('error', () => undefined);
  // What waits is tried again when something is written, and what is dropped counts for nothing.
  output.on('drop', () => output.write(''));
  return output;
}

/** Nothing reaches a destination but through here. */
function scrubbed(destination: DestinationStream): DestinationStream {
  return { write: (lines) => destination.write(scrubLines(lines)) };
}

const pieceLength = 4096;
const pieceMs = 100;

/**
 * To write and to scrub each line by itself would be a tenth of a join, and larger pieces cost more than they save.
 * What waits is written after 100 ms and when the process ends, fatal lines at once.
 */
function inPieces(destination: DestinationStream): DestinationStream & { flushSync: () => void } {
  let waiting = '';
  const flushSync = (): void => {
    if (waiting === '') return;
    const piece = waiting;
    waiting = '';
    destination.write(piece);
  };
  setInterval(flushSync, pieceMs).unref();
  process.on('exit', flushSync);
  return {
    write: (line) => {
      waiting += line;
      if (waiting.length >= pieceLength) flushSync();
    },
    flushSync,
  };
}

/** As `toISOString`; the lines of a second share all but its thousandth. */
function createIsoTime(): () => string {
  let second = 0;
  let prefix = '';
  return () => {
    const nowMs = Date.now();
    if (Math.floor(nowMs / 1000) !== second) {
      second = Math.floor(nowMs / 1000);
      prefix = new Date(nowMs).toISOString().slice(0, -'000Z'.length);
    }
    return `${prefix}${String(nowMs % 1000).padStart(3, '0')}Z`;
  };
}

/** The ids are hexadecimal, whoever sent them: propagators take no others. */
function activeTrace(): string {
  const span = trace.getActiveSpan()?.spanContext();
  return span === undefined ? '' : `,"trace_id":"${span.traceId}","span_id":"${span.spanId}"`;
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
    message: messageOf(error),
    ...('code' in error && { code: error.code }),
    ...(error.stack !== undefined && { stack: error.stack }),
    ...(error.cause !== undefined && depth < 5 && { cause: serializeError(error.cause, depth + 1) }),
  };
}

function serializeRequest(request: { method?: string; url?: string; ip?: string }): object {
  return { method: request.method, path: pathOf(request.url ?? ''), address: request.ip };
}
