import { type EventsAccepted, encodeAtLeast, mediaTypes, toBinaryHeaders, topics } from '@realtime-service/contracts';
import {
  type EventLog,
  type LogPosition,
  LogUnavailableError,
  type NewRecord,
  RecordTooLargeError,
} from '@realtime-service/event-log';
import { currentTraceparent, type Logger } from '@realtime-service/telemetry';
import type { FastifyInstance, onRequestHookHandler } from 'fastify';
import { requireScope } from '../authenticate.ts';
import type { ApiMetrics } from '../metrics.ts';
import { ProblemError, refuseOtherMethods } from '../problem.ts';
import { parseStrictJson } from '../strict-json.ts';
import { operatorScope, publisherScope, type ReadEvent, readEvents } from './read-events.ts';

export interface EventsDependencies {
  readonly append: EventLog['append'];
  readonly metrics: ApiMetrics;
  readonly logger: Logger;
}

const url = '/api/realtime/events';
const maxBodyBytes = 1_048_576;
const appendWithinMs = 4_000;

/** Facts over HTTP, for producers without Kafka: all of them are read before any is appended. */
export const registerEvents = async (
  root: FastifyInstance,
  callerOnly: onRequestHookHandler[],
  { append, metrics, logger }: EventsDependencies,
): Promise<void> => {
  const producerOnly: onRequestHookHandler = async (request) =>
    requireScope(request.user, [publisherScope, operatorScope]);

  // The media types of this route are no other's.
  await root.register(async (app) => {
    app.addContentTypeParser(
      [mediaTypes.structured, mediaTypes.batch],
      { parseAs: 'buffer' },
      async (request: Parameters<typeof parseStrictJson>[0], body: Buffer) => parseStrictJson(request, body),
    );
    app.post(
      url,
      { onRequest: [...callerOnly, producerOnly], bodyLimit: maxBodyBytes, config: { operation: 'publish_events' } },
      async (request, reply) => {
        const events = readEvents(request, request.user.scopes);
        const positions = await appendAll(append, events.map(toRecord));
        metrics.requests.inc({ operation: 'publish_events', outcome: 'accepted', reason: 'valid' });
        metrics.eventsAccepted.inc(events.length);
        logger.info({ producer: request.user.userId, events: events.length }, 'events appended');
        reply.code(202);
        return { accepted: events.length, at_least: encodeAtLeast(positions) } satisfies EventsAccepted;
      },
    );
    refuseOtherMethods(app, url, ['POST']);
  });
};

/** Binary mode. An event that names no origin of its trace begins it here. */
const toRecord = ({ context, data }: ReadEvent): NewRecord => {
  const traceparent = currentTraceparent();
  const origin = context.traceparent ?? traceparent;
  return {
    topic: topics.roomEvents,
    key: context.subject,
    value: Buffer.from(JSON.stringify(data ?? {})),
    headers: {
      ...toBinaryHeaders({ ...context, ...(origin !== undefined && { traceparent: origin }) }),
      ...(traceparent !== undefined && { traceparent }),
    },
  };
};

/** @throws {ProblemError} 503 when some may have been written and others not: the producer sends all of them again */
const appendAll = async (append: EventLog['append'], records: readonly NewRecord[]): Promise<LogPosition[]> => {
  try {
    return await append(records, appendWithinMs);
  } catch (cause) {
    if (cause instanceof LogUnavailableError)
      throw new ProblemError('store_unavailable', { reason: 'log_unavailable', cause });
    if (cause instanceof RecordTooLargeError)
      throw new ProblemError('body_too_large', { reason: 'event_too_large', cause });
    throw cause;
  }
};
