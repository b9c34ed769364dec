import { hash, timingSafeEqual } from 'node:crypto';
import { type ReadWebhook, readLivekitWebhook, type WebhookFact } from '@realtime-service/contracts';
import { type EventLog, LogUnavailableError, type NewRecord, RecordTooLargeError } from '@realtime-service/event-log';
import type { LivekitKey } from '@realtime-service/livekit';
import { attributes } from '@realtime-service/room-model';
import { currentTraceparent, type Logger, linkActiveSpan, traceRoutes } from '@realtime-service/telemetry';
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply } from 'fastify';
import { decodeJwt, decodeProtectedHeader, errors, jwtVerify } from 'jose';
import { participantForLog, toLivekitRecord } from './livekit-record.ts';
import type { WorkerMetrics } from './metrics.ts';

/** LiveKit's bodies can hold a room of thousands; below this nothing may be lost to a limit. */
const bodyLimitBytes = 4 * 1024 * 1024;
/** LiveKit gives up a room's head of queue after 15 s of tries, so a late 503 costs events. */
const appendTimeoutMs = 2_000;
/** LiveKit signs for 5 minutes. */
const maxLifetimeSeconds = 360;
const clockToleranceSeconds = 60;
const rememberedIds = 10_000;

declare module 'fastify' {
  interface FastifyRequest {
    /** What the signature of a webhook says of its body. */
    sha256: unknown;
  }
}

export interface WebhookIntakeDependencies {
  readonly log: EventLog;
  /** Every key that LiveKit may sign webhooks with. */
  readonly keys: readonly LivekitKey[];
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
}

const compactJwt = /^[\w-]+\.[\w-]+\.[\w-]+$/;
const mediaType = /^application\/(?:webhook\+)?json\s*(?:;.*)?$/i;
const utf8 = new TextDecoder('utf-8', { fatal: true });

/** The hash as LiveKit writes it; another spelling of the same bytes is not LiveKit's. */
const isHashOf = (claim: unknown, body: Buffer): boolean => {
  const claimed = Buffer.from(String(claim));
  const actual = Buffer.from(hash('sha256', body, 'base64'));
  return claimed.length === actual.length && timingSafeEqual(claimed, actual);
};

/**
 * Rightly signed, for another time than this clock shows: one of the two clocks is wrong, or it was on its way for
 * long.
 */
const isOutOfTime = (error: unknown): boolean =>
  error instanceof errors.JWTExpired ||
  (error instanceof errors.JWTClaimValidationFailed && error.claim === 'nbf' && error.reason === 'check_failed');

/** What a signature says of the body, or why it does not hold. The reason is for a counter, never for the sender. */
type Signed = { readonly sha256: unknown } | { readonly fault: string };

const readSignature = async (authorization: string | undefined, keys: readonly LivekitKey[]): Promise<Signed> => {
  if (authorization === undefined) return { fault: 'no_signature' };
  if (!compactJwt.test(authorization)) return { fault: 'malformed_signature' };
  try {
    if (decodeProtectedHeader(authorization).alg !== 'HS256') return { fault: 'wrong_algorithm' };
    const key = keys.find(({ apiKey }) => apiKey === decodeJwt(authorization).iss);
    if (key === undefined) return { fault: 'unknown_key' };
    const { payload } = await jwtVerify(authorization, new TextEncoder().encode(key.secret), {
      algorithms: ['HS256'],
      clockTolerance: clockToleranceSeconds,
      requiredClaims: ['exp', 'nbf', 'sha256'],
    });
    if ((payload.exp ?? 0) - (payload.nbf ?? 0) > maxLifetimeSeconds) return { fault: 'lifetime' };
    return { sha256: payload.sha256 };
  } catch (error) {
    return { fault: isOutOfTime(error) ? 'out_of_time' : 'bad_signature' };
  }
};

/** Whether an id came before with other bytes, which LiveKit's own retries never do; of the most recent ids. */
const createChangeWatch = (): ((id: string, body: Buffer) => boolean) => {
  const hashes = new Map<string, string>();
  return (id, body) => {
    const digest = hash('sha256', body);
    const known = hashes.get(id);
    if (known !== undefined) return known !== digest;
    hashes.set(id, digest);
    if (hashes.size > rememberedIds) hashes.delete(hashes.keys().next().value as string);
    return false;
  };
};

/** Never throws: what is signed but says nothing here is LiveKit's right. */
const readBody = (body: Buffer): ReadWebhook | { readonly kind: 'ignored'; readonly why: string } => {
  let json: unknown;
  try {
    json = JSON.parse(utf8.decode(body));
  } catch {
    return { kind: 'ignored', why: 'not_json' };
  }
  return readLivekitWebhook(json);
};

/** What goes into the log is what the projection reads, so that no secret can be among it, known to us or not. */
const toRecord = (fact: WebhookFact, id: string, createdAt: number | undefined): NewRecord => {
  const about = {
    id,
    source: 'livekit',
    type: `livekit.${fact.type}`,
    roomName: fact.room.name,
    timeMs: createdAt === undefined ? undefined : createdAt * 1000,
    traceparent: currentTraceparent(),
  } as const;
  return toLivekitRecord(about, {
    event: fact.type,
    id,
    createdAt,
    room: fact.room,
    ...('participant' in fact ? { participant: participantForLog(fact.participant) } : {}),
    ...('track' in fact ? { track: fact.track } : {}),
  });
};

const traceOf = (fact: WebhookFact): string | undefined =>
  'participant' in fact ? fact.participant.attributes?.[attributes.trace] : undefined;

/** What Fastify refuses before our handler is asked. */
const refusals: Readonly<Record<string, { readonly status: number; readonly outcome: string }>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: { status: 413, outcome: 'too_large' },
  FST_ERR_CTP_INVALID_MEDIA_TYPE: { status: 415, outcome: 'unsupported' },
};

/**
 * Receives LiveKit's webhooks: raw bytes verified, then durable in the log, then 200. Any 4xx would count as delivered
 * with LiveKit, so our own trouble is always a 503, and what we do not understand is a 200 with a counter.
 */
export const createWebhookIntake = ({ log, keys, metrics, logger }: WebhookIntakeDependencies): FastifyInstance => {
  const app = Fastify({
    bodyLimit: bodyLimitBytes,
    requestTimeout: 5_000,
    connectionTimeout: 10_000,
    // Deadlines are looked at every second, not every 30.
    http: { headersTimeout: 5_000, connectionsCheckingInterval: 1_000 },
    trustProxy: false,
    // LiveKit keeps connections that it has never used, which would hold up the end; what is cut is sent again.
    forceCloseConnections: true,
  });
  const hasChanged = createChangeWatch();
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(mediaType, { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  traceRoutes(app);
  app.setErrorHandler<FastifyError>((error, _request, reply) => {
    const { status, outcome } = refusals[error.code] ?? { status: 503, outcome: 'failed' };
    metrics.webhooks.inc({ outcome });
    if (status === 503) logger.error({ err: error }, 'webhook could not be handled');
    else logger.warn({ reason: outcome }, 'webhook refused');
    if (status === 503) reply.header('retry-after', '1');
    reply.code(status).send();
  });

  const refuse = (reply: FastifyReply, fault: string): FastifyReply => {
    metrics.webhooks.inc({ outcome: fault });
    logger.warn({ reason: fault }, 'webhook refused');
    return reply.code(401).send();
  };
  app.decorateRequest('sha256');
  // Before the body is read, on paths that lead nowhere, too: who has no key of LiveKit's fills no memory.
  app.addHook('onRequest', async (request, reply) => {
    const signed = await readSignature(request.headers.authorization, keys);
    if ('fault' in signed) return refuse(reply, signed.fault);
    request.sha256 = signed.sha256;
  });

  app.post<{ Body: Buffer }>('/webhooks/livekit', async (request, reply) => {
    const answer = (status: number, outcome: string): void => {
      metrics.webhooks.inc({ outcome });
      reply.code(status).send();
    };
    const { body } = request;
    if (!Buffer.isBuffer(body) || request.headers['content-encoding'] !== undefined) return answer(415, 'unsupported');
    if (!isHashOf(request.sha256, body)) return void refuse(reply, 'wrong_hash');
    const reading = readBody(body);
    if (reading.kind === 'ignored') {
      if (reading.why !== 'no_state') logger.warn({ reason: reading.why }, 'webhook says nothing that is understood');
      return answer(200, reading.why);
    }
    const { fact, id = hash('sha256', body), createdAt } = reading;
    const isChanged = hasChanged(id, body);
    if (isChanged) logger.error({ event_id: id }, 'webhook id came again with other bytes');
    linkActiveSpan(traceOf(fact));
    try {
      await log.append([toRecord(fact, id, createdAt)], appendTimeoutMs);
    } catch (error) {
      if (error instanceof RecordTooLargeError) {
        // It will never fit, however often LiveKit sends it: the sweep tells what it would have said.
        logger.error({ event_id: id, bytes: body.length }, 'webhook does not fit into the log');
        return answer(200, 'too_large');
      }
      if (!(error instanceof LogUnavailableError)) throw error;
      reply.header('retry-after', '1');
      return answer(503, 'log_unavailable');
    }
    return answer(200, isChanged ? 'changed' : 'accepted');
  });
  return app;
};
