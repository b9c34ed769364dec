import { randomBytes } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { trace } from '@opentelemetry/api';
import {
  type ProblemCode,
  type ProblemFault,
  problemAdvice,
  problemStatus,
  problemTitle,
  problemType,
} from '@realtime-service/contracts';
import type { Logger } from '@realtime-service/telemetry';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

interface ProblemDetails extends ErrorOptions {
  /** Why, for operators: log field, span attribute and metric label. Never served. */
  readonly reason?: string;
  /** What of a token is not as it must be, by name; likewise for operators, in the log. */
  readonly unfit?: readonly string[] | undefined;
  readonly faults?: readonly ProblemFault[];
  readonly retryAfterSeconds?: number;
  readonly opensAtMs?: number;
  /** The methods that a route takes. */
  readonly allow?: string;
}

/** An answer that is not the one that was asked for. Everything that a route refuses is thrown as one of these. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError';
  readonly code: ProblemCode;
  readonly reason: string;
  readonly details: ProblemDetails;

  constructor(code: ProblemCode, details: ProblemDetails = {}) {
    super(problemTitle[code], details);
    this.code = code;
    this.reason = details.reason ?? code;
    this.details = details;
  }
}

/** Every 503 says when to come again: in a second, where nothing better is known. */
const retryAfterOf = (code: ProblemCode, { retryAfterSeconds }: ProblemDetails): number | undefined =>
  retryAfterSeconds ?? (problemStatus[code] === 503 ? 1 : undefined);

const headersOf = (code: ProblemCode, details: ProblemDetails): Record<string, string> => {
  const retryAfterSeconds = retryAfterOf(code, details);
  const { allow } = details;
  return {
    'content-type': 'application/problem+json; charset=utf-8',
    'cache-control': 'no-store',
    ...(code === 'unauthenticated' && { 'www-authenticate': 'Bearer realm="realtime-service"' }),
    ...(allow !== undefined && { allow }),
    ...(retryAfterSeconds !== undefined && { 'retry-after': String(Math.max(1, Math.ceil(retryAfterSeconds))) }),
    // What is left of a request that is too large is not read.
    ...((code === 'headers_too_large' || code === 'body_too_large') && { connection: 'close' }),
  };
};

/** RFC 9457. The same for the same code, but for the trace id, the faults and the opening time. */
const documentOf = (code: ProblemCode, traceId: string, { faults, opensAtMs }: ProblemDetails): string =>
  JSON.stringify({
    type: problemType(code),
    title: problemTitle[code],
    status: problemStatus[code],
    code,
    detail: problemAdvice[code],
    trace_id: traceId,
    errors: faults,
    opens_at: opensAtMs === undefined ? undefined : new Date(opensAtMs).toISOString(),
  });

/** The trace that a caller may quote; without tracing, an id of the request. */
export const traceIdOf = (request: FastifyRequest): string =>
  trace.getActiveSpan()?.spanContext().traceId ?? request.id;

/** What Fastify and its plugins refuse by themselves. */
const frameworkCodes: Readonly<Record<string, ProblemCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'body_too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported_media_type',
  FST_ERR_ROUTE_MISSING_CONTENT_TYPE: 'unsupported_media_type',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'malformed_request',
};

const problemOf = (error: FastifyError): ProblemError => {
  if (error instanceof ProblemError) return error;
  const code = frameworkCodes[error.code];
  if (code !== undefined) return new ProblemError(code, { reason: error.code, cause: error });
  // A request that ended before its body was there.
  if (error.code === 'ECONNRESET' || error.code === 'ERR_STREAM_PREMATURE_CLOSE')
    return new ProblemError('malformed_request', { reason: error.code, cause: error });
  return new ProblemError('internal', { cause: error });
};

/** Told of every refusal, before it is sent. */
export type OnProblem = (problem: ProblemError, request: FastifyRequest) => void;

/** Answers errors of whatever origin as problem documents; the only place that does. */
export const createProblemHandler =
  (onProblem: OnProblem) =>
  (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
    const problem = problemOf(error);
    onProblem(problem, request);
    reply
      .code(problemStatus[problem.code])
      .headers(headersOf(problem.code, problem.details))
      .send(documentOf(problem.code, traceIdOf(request), problem.details));
  };

/** 405 for the methods that a route does not take; Fastify alone answers 404. */
export const refuseOtherMethods = (app: FastifyInstance, url: string, allowed: readonly string[]): void => {
  const others = app.supportedMethods.filter((method) => !allowed.includes(method) && method !== 'OPTIONS');
  const refuse = (): never => {
    throw new ProblemError('method_not_allowed', { allow: allowed.join(', ') });
  };
  // Before the body is read, whatever its type.
  app.route({ method: others, url, onRequest: refuse, handler: refuse });
};

/** Bytes that never became a request: headers too large, broken syntax, too slow. No hook has seen them. */
export const createClientErrorHandler =
  (logger: Logger) =>
  (error: ConnectionError, socket: Socket): void => {
    if (error.code === 'ECONNRESET' || socket.destroyed) return;
    const code: ProblemCode = error.code === 'HPE_HEADER_OVERFLOW' ? 'headers_too_large' : 'malformed_request';
    const traceId = randomBytes(16).toString('hex');
    logger.info({ trace_id: traceId, code, reason: error.code }, 'request could not be read');
    if (socket.writable) {
      const body = documentOf(code, traceId, {});
      const headers = {
        ...headersOf(code, {}),
        connection: 'close',
        'content-length': String(Buffer.byteLength(body)),
      };
      const status = problemStatus[code];
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`);
    }
    socket.destroySoon();
  };

interface ConnectionError extends Error {
  readonly code?: string;
}
