import { createHash, timingSafeEqual } from 'node:crypto';
import { type CloudEventContext, type LivekitFact, LivekitWebhook, readLivekitWebhook, toBinaryHeaders, topics } from '@realtime-service/contracts';
import { type EventLog, LogUnavailableError } from '@realtime-service/event-log';
import type { LivekitKey } from '@realtime-service/livekit';
import { attributes } from '@realtime-service/room-model';
import { currentTraceparent, linkTo, type Logger, traceRoutes } from '@realtime-service/telemetry';
import { trace } from '@opentelemetry/api';
import Fastify, { type FastifyInstance } from 'fastify';
import { decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose';
import type { WorkerMetrics } from './metrics.ts';

/** LiveKit's bodies can hold a room of thousands; below this nothing may be lost to a limit. */
const bodyLimitBytes = 4 * 1024 * 1024;
/** LiveKit gives up a room's head of queue after 15 s of tries, so a late 503 costs events. */
const appendTimeoutMs = 2_000;
/** LiveKit signs for 5 minutes. */
const maxLifetimeSeconds = 360;
const clockToleranceSeconds = 60;
const rememberedIds = 10_000;

export interface WebhookIntakeDependencies {
  readonly log: EventLog;
  /** Every key that LiveKit may sign webhooks with. */
  readonly keys: readonly LivekitKey[];
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
}

const compactJwt = /^[\w-]+\.[\w-]+\.[\w-]+$/;
const mediaType = /^application\/(?:webhook\+)?json\s*(?:;.*)?$/i;

/** Names of secrets in webhook bodies, in either spelling. */
const secretName = /^(?:turn_?password|stream_?key|\w*token)$/i;

/** Why a webhook's signature does not hold, or null when it does. The reason is for a counter, never for the sender. */
const findFault = async (authorization: string | undefined, body: Buffer, keys: readonly LivekitKey[]): Promise<string | null> => {
  if (authorization === undefined) return 'no_signature';
  if (!compactJwt.test(authorization)) return 'malformed_signature';
  try {
    if (decodeProtectedHeader(authorization).alg !== 'HS256') return 'wrong_algorithm';
    const key = keys.find(({ apiKey }) => apiKey === decodeJwt(authorization).iss);
    if (key === undefined) return 'unknown_key';
    const { payload } = await jwtVerify(authorization, new TextEncoder().encode(key.secret), {
      algorithms: ['HS256'],
      clockTolerance: clockToleranceSeconds,
      requiredClaims: ['exp', 'nbf', 'sha256'],
    });
    if ((payload.exp ?? 0) - (payload.nbf ?? 0) > maxLifetimeSeconds) return 'lifetime';
    const claimed = Buffer.from(String(payload.sha256), 'base64');
    const actual = createHash('sha256').update(body).digest();
    return claimed.length === actual.length && timingSafeEqual(claimed, actual) ? null : 'wrong_hash';
  } catch {
    return 'bad_signature';
  }
};

/** The body as it goes into the log: without secrets. */
const withoutSecrets = (body: Buffer): unknown =>
  JSON.parse(body.toString('utf8'), (name, value: unknown) => (secretName.test(name) ? undefined : value));

/** Tells repeated ids with other bytes apart from LiveKit's own retries, among the most recent ones. */
const createRepeatWatch = (): ((id: string, body: Buffer) => 'new' | 'repeated' | 'changed') => {
  const hashes = new Map<string, string>();
  return (id, body) => {
    const hash = createHash('sha256').update(body).digest('base64');
    const known = hashes.get(id);
    if (known !== undefined) return known === hash ? 'repeated' : 'changed';
    hashes.set(id, hash);
    if (hashes.size > rememberedIds) hashes.delete(hashes.keys().next().value as string);
    return 'new';
  };
};

const traceOf = (fact: LivekitFact): string | undefined =>
  'participant' in fact ? fact.participant.attributes?.[attributes.trace] : undefined;

/**
 * Receives LiveKit's webhooks: raw bytes verified, then durable in the log, then 200. Any 4xx would count as delivered
 * with LiveKit, so our own trouble is always a 503, and what we do not understand is a 200 with a counter.
 */
export const createWebhookIntake = ({ log, keys, metrics, logger }: WebhookIntakeDependencies): FastifyInstance => {
  const app = Fastify({ bodyLimit: bodyLimitBytes, requestTimeout: 5_000, connectionTimeout: 10_000, trustProxy: false });
  const watch = createRepeatWatch();
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(mediaType, { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  traceRoutes(app);

  app.post<{ Body: Buffer }>('/webhooks/livekit', async (request, reply) => {
    const answer = (status: number, outcome: string): void => {
      metrics.webhooks.inc({ outcome });
      reply.code(status).send();
    };
    const { body } = request;
    if (!Buffer.isBuffer(body) || request.headers['content-encoding'] !== undefined) return answer(415, 'unsupported');
    const fault = await findFault(request.headers.authorization, body, keys);
    if (fault !== null) {
      logger.warn({ reason: fault }, 'webhook refused');
      return answer(401, fault);
    }
    let json: unknown;
    try {
      json = withoutSecrets(body);
    } catch {
      return answer(200, 'not_json');
    }
    const reading = readLivekitWebhook(json);
    if (reading.kind === 'ignored') {
      if (reading.why !== 'no_state') logger.warn({ reason: reading.why }, 'webhook says nothing that is understood');
      return answer(200, reading.why);
    }
    const { fact } = reading;
    if (fact.type === 'observed') return answer(200, 'unknown_event');
    const { id, createdAt } = LivekitWebhook.parse(json);
    const eventId = id ?? createHash('sha256').update(body).digest('hex');
    if (watch(eventId, body) === 'changed') logger.error({ event_id: eventId }, 'webhook id came again with other bytes');
    const link = linkTo(traceOf(fact));
    if (link !== undefined) trace.getActiveSpan()?.addLink(link);

    const context: CloudEventContext = {
      specversion: '1.0',
      id: eventId,
      source: 'livekit',
      type: `livekit.${fact.type}`,
      subject: fact.room.name,
      ...(createdAt === undefined ? {} : { time: new Date(createdAt * 1000).toISOString() }),
    };
    const traceparent = currentTraceparent();
    const headers = { ...toBinaryHeaders(context), ...(traceparent === undefined ? {} : { traceparent }) };
    try {
      await log.append([{ topic: topics.livekitWebhooks, key: fact.room.name, value: Buffer.from(JSON.stringify(json)), headers }], appendTimeoutMs);
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      reply.header('retry-after', '1');
      return answer(503, 'log_unavailable');
    }
    return answer(200, 'accepted');
  });
  return app;
};
