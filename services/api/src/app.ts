import fastifyCors from '@fastify/cors';
import { trace } from '@opentelemetry/api';
import { RoomId } from '@realtime-service/contracts';
import { measureRoutes, routeOf, traceRoutes } from '@realtime-service/telemetry';
import Fastify, {
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type onRequestHookHandler,
} from 'fastify';
import { z } from 'zod';
import { addressBlockOf } from './address-block.ts';
import { registerAuthentication } from './authenticate.ts';
import type { ApiSettings } from './config.ts';
import { registerDocs } from './docs.ts';
import { watchEventLoop } from './event-loop-delay.ts';
import { type EventsDependencies, registerEvents } from './events/events-route.ts';
import { allowReading, type GateDependencies, gateOperation, type LimitBy, registerGate } from './gate/gate-route.ts';
import { type JoinDependencies, registerJoin } from './join/join-route.ts';
import type { KeySet } from './key-set.ts';
import { type ForgeryLimit, type LogoutDependencies, logoutOperation, registerLogout } from './logout/logout-route.ts';
import { createLogoutVerifier, isForged } from './logout/verify-logout-token.ts';
import { type ModerationDependencies, registerModeration } from './moderation/moderation-route.ts';
import { createClientErrorHandler, createProblemHandler, type OnProblem, ProblemError } from './problem.ts';
import { createRateLimit, type RateLimit } from './rate-limit.ts';
import { registerRooms } from './rooms/rooms-route.ts';
import { registerWatch, type WatchSettings } from './rooms/watch-route.ts';
import { parseJsonBody } from './strict-json.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Names a route in metrics. */
    operation?: string;
  }
}

export interface ApiDependencies
  extends JoinDependencies,
    EventsDependencies,
    GateDependencies,
    LogoutDependencies,
    ModerationDependencies {
  readonly settings: Omit<ApiSettings, 'database' | 'log' | 'livekit'>;
  readonly keys: Pick<KeySet, 'find' | 'findForCertain'>;
  readonly watch: WatchSettings;
}

/**
 * Answers are JSON and never framed, sniffed or cached. @fastify/helmet would compute its fourteen anew for each
 * request.
 */
const headersOfEveryAnswer = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'strict-transport-security': 'max-age=31536000; includeSubDomains',
  'x-content-type-options': 'nosniff',
};

const clientBodyLimit = 16_384;

/** The api, ready to listen or to be asked by `inject`. */
export const createApp = async (dependencies: ApiDependencies): Promise<FastifyInstance> => {
  const { settings, keys, metrics, logger, now } = dependencies;
  const app: FastifyInstance = Fastify({
    bodyLimit: clientBodyLimit,
    requestTimeout: 5_000,
    connectionTimeout: 10_000,
    keepAliveTimeout: 72_000,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    // Deadlines are looked at every second, not every 30.
    http: { maxHeaderSize: settings.maxHeaderBytes, headersTimeout: 5_000, connectionsCheckingInterval: 1_000 },
    // Ids of any length reach the schema, which says what is wrong with them.
    routerOptions: { maxParamLength: settings.maxHeaderBytes },
    trustProxy: settings.trustProxy,
    // No hook has seen a path with a broken escape: it goes on as one that can be read.
    frameworkErrors: (_error, { raw }, reply) => {
      raw.url = unreadablePath;
      app.routing(raw, reply.raw);
    },
    clientErrorHandler: createClientErrorHandler(logger),
  });
  app.addHook('onRequest', (_request, reply, done) => {
    reply.headers(headersOfEveryAnswer);
    done();
  });
  app.setErrorHandler(createProblemHandler(noteProblem(dependencies)));
  app.setNotFoundHandler(() => {
    throw new ProblemError('route_not_found');
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, parseJsonBody);
  traceRoutes(app);
  measureRoutes(app, metrics.registry);

  await guard(app, settings);
  refuseUnreadable(app);
  const authenticate = await registerAuthentication(app, { keys, oidc: settings.oidc, now });
  const callersUpTo = (max: number): onRequestHookHandler[] => [
    authenticate,
    limit('caller', createRateLimit(max), (request) => request.user.userId),
  ];
  registerJoin(app, callersUpTo(settings.userRequestsPerMinute), dependencies);
  const viewersAndModerators = callersUpTo(settings.userRequestsPerMinute);
  registerRooms(app, viewersAndModerators, dependencies);
  registerWatch(app, viewersAndModerators, dependencies.watch, dependencies);
  registerModeration(app, viewersAndModerators, dependencies);
  await registerEvents(app, callersUpTo(settings.producerRequestsPerMinute), dependencies);
  const logoutLimit = limitForged(settings.addressRequestsPerMinute);
  await registerLogout(app, logoutLimit, createLogoutVerifier({ keys, oidc: settings.oidc, now }), dependencies);
  const gate = { ...settings.gate, pathPrefix: pathOf(dependencies.serverUrl) };
  const visitorsBy: LimitBy = (keyOf) => limit('visitor', createRateLimit(settings.gate.requestsPerMinute), keyOf);
  registerGate(app, gate, visitorsBy, dependencies);
  registerDocs(app);
  return app;
};

/** Empty where clients reach LiveKit at the root of its host. */
const pathOf = (serverUrl: string): string => new URL(serverUrl).pathname.replace(/\/$/, '');

const registerCors = async (app: FastifyInstance, origins: readonly string[]): Promise<void> => {
  await app.register(fastifyCors, {
    origin: [...origins],
    methods: ['GET', 'POST', 'DELETE'],
    allowedHeaders: ['authorization', 'content-type', 'last-event-id', 'traceparent', 'tracestate'],
    exposedHeaders: ['retry-after'],
    maxAge: 600,
    strictPreflight: false,
  });
};

/** What stands before every route; CORS first, so that browsers can read whatever comes after it. */
const guard = async (app: FastifyInstance, settings: ApiDependencies['settings']): Promise<void> => {
  if (settings.corsOrigins.length > 0) await registerCors(app, settings.corsOrigins);
  const eventLoop = watchEventLoop();
  app.addHook('onClose', async () => eventLoop.stop());
  app.addHook('onRequest', (request, reply, done) => {
    if (eventLoop.delayMs() > settings.maxEventLoopDelayMs) shed(request, reply);
    done();
  });
  // Before anything is verified, and on paths that lead nowhere, too.
  const count = limit('address', createRateLimit(settings.addressRequestsPerMinute), addressOf);
  app.addHook('onRequest', function (request, reply, done) {
    if (sharingAnAddress.has(operationOf(request))) done();
    else count.call(this, request, reply, done);
  });
};

/** All who stand at the door come by one proxy, and all logouts by one provider. */
const sharingAnAddress: ReadonlySet<string> = new Set([gateOperation, logoutOperation]);

/** What comes while this process falls behind has to come again. Not a logout: a provider tells of it once. */
const shed = (request: FastifyRequest, reply: FastifyReply): void => {
  const operation = operationOf(request);
  if (operation === logoutOperation) return;
  if (operation === gateOperation) allowReading(reply);
  throw new ProblemError('overloaded', { reason: 'event_loop' });
};

const operationOf = (request: FastifyRequest): string => routeOf(request)?.config?.operation ?? 'none';

/** Refuses what one address, one caller or one visitor asks too often. */
const limit =
  (
    whose: 'address' | 'caller' | 'visitor',
    count: RateLimit,
    keyOf: (request: FastifyRequest) => string,
  ): onRequestHookHandler =>
  (request, _reply, done) => {
    const retryAfterSeconds = count(keyOf(request));
    if (retryAfterSeconds !== undefined) throw new ProblemError('rate_limited', { reason: whose, retryAfterSeconds });
    done();
  };

/** Where paths with a broken escape are led. Whoever asks for it by name gets their answer. */
const unreadablePath = '/unreadable';

const refuseUnreadable = (app: FastifyInstance): void => {
  const refuse = (): never => {
    throw new ProblemError('malformed_request', { reason: 'unreadable_path' });
  };
  // Before the body is read, whatever its type.
  app.route({ method: app.supportedMethods, url: unreadablePath, onRequest: refuse, handler: refuse });
};

const addressOf = ({ ip }: FastifyRequest): string => addressBlockOf(ip);

/**
 * A forged token costs a signature's check, and what is no logout token is a caller's. What else is refused is not
 * counted: it may be the provider's, which tells of a logout once, and our own settings or keys that are at fault.
 */
const limitForged = (max: number): ForgeryLimit => {
  const count = createRateLimit(max);
  return {
    onRequest: limit('address', (address) => count(address, 0), addressOf),
    onError: (request, _reply, error, done) => {
      if (isForged(error)) count(addressOf(request));
      done();
    },
  };
};

/** The reason of a refusal goes to the log, the span and a metric label, and nowhere else. */
const noteProblem =
  ({ metrics, logger }: ApiDependencies): OnProblem =>
  ({ code, reason, cause, details: { unfit } }, request) => {
    const operation = operationOf(request);
    metrics.requests.inc({ operation, outcome: code, reason });
    trace.getActiveSpan()?.setAttributes({ 'realtime.outcome': code, 'realtime.reason': reason });
    const user = request.user?.userId ?? request.visitor?.person?.userId;
    const fields = { operation, code, reason, unfit, room: request.visitor?.roomId ?? roomOf(request), user };
    if (code === 'internal') logger.error({ ...fields, err: cause }, 'request failed');
    else if (ourFailures.has(code)) logger.warn({ ...fields, err: cause }, 'request failed');
    else logger.info(fields, 'request refused');
  };

/** The room's id, once it is known to be one; before that it may be anything. */
const roomOf = ({ params }: FastifyRequest): string | undefined => RoomPath.safeParse(params).data?.roomId;

const RoomPath = z.object({ roomId: RoomId });

const ourFailures: ReadonlySet<string> = new Set(['store_unavailable', 'livekit_unavailable']);
