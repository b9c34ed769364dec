import { type EventsAccepted, encodeAtLeast, mediaTypes } from '@realtime-service/contracts';
import type { EventLog } from '@realtime-service/event-log';
import type { Logger } from '@realtime-service/telemetry';
import type { FastifyInstance, onRequestHookHandler } from 'fastify';
import { requireScope } from '../authenticate.ts';
import type { ApiMetrics } from '../metrics.ts';
import { refuseOtherMethods } from '../problem.ts';
import { parseJsonBody } from '../strict-json.ts';
import { appendEvents, toRecord } from './append-events.ts';
import { operatorScope, publisherScope, readEvents } from './read-events.ts';

export interface EventsDependencies {
  readonly append: EventLog['append'];
  readonly metrics: ApiMetrics;
  readonly logger: Logger;
}

const url = '/api/realtime/events';
const maxBodyBytes = 1_048_576;

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
    app.addContentTypeParser([mediaTypes.structured, mediaTypes.batch], { parseAs: 'buffer' }, parseJsonBody);
    app.post(
      url,
      { onRequest: [...callerOnly, producerOnly], bodyLimit: maxBodyBytes, config: { operation: 'publish_events' } },
      async (request, reply) => {
        const events = readEvents(request, request.user.scopes);
        const positions = await appendEvents(append, events.map(toRecord));
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
