import { setTimeout as delay } from 'node:timers/promises';
import { allTopics, topics } from '@realtime-service/contracts';
import { openEventLog, prepareEmbeddedLog } from '@realtime-service/event-log';
import { createRoomService, tokenLeewaySeconds } from '@realtime-service/livekit';
import {
  activeProjection,
  createFactsReader,
  createPool,
  createSeatTaker,
  findLiveLogins,
  keepRecords,
  migrate,
  type Pool,
  readFacts,
  readPositions,
  readPresentPeople,
  readProvenance,
} from '@realtime-service/room-store';
import { createOpsServer, type Logger, withDeadline } from '@realtime-service/telemetry';
import type { FastifyInstance } from 'fastify';
import { type ApiDependencies, createApp } from './app.ts';
import type { ApiSettings } from './config.ts';
import { registerExplain } from './explain/explain-route.ts';
import { assertCurrent, createFreshness } from './freshness.ts';
import type { EntryStore } from './join/decide-join.ts';
import { createRoomMaker } from './join/make-room.ts';
import { createTokenSigner } from './join/sign-token.ts';
import { createKeySet } from './key-set.ts';
import { startKeptSender } from './logout/send-kept.ts';
import { createApiMetrics, watchState } from './metrics.ts';

const livekitTimeoutMs = 2_000;
/** Shorter than any start of LiveKit: "it was made" must not be said of a server that has crashed and is back since. */
const doorCoalesceMs = 100;
/** Clients give up soon after; a connection that hangs must not hold them. */
const storeDeadlineMs = 2_500;
const watchSettings = { lookEveryMs: 1_000, maxStreams: 2_000, maxStreamsPerPerson: 20, lifeMs: 300_000 };
/** How long a seat is held beyond the life of its token: LiveKit's leeway, and clocks differ. */
const leaseBeyondTokenSeconds = tokenLeewaySeconds + 20;
const prepareAgainMs = 1_000;
const sweepEveryMs = 50;

export interface Api {
  readonly url: string;
  readonly opsUrl: string;
  readonly stop: () => Promise<void>;
}

const withStoreDeadline = <T>(answer: Promise<T>): Promise<T> => withDeadline(answer, storeDeadlineMs);

/** What the api is made of. The schema is being prepared from here on. */
const openParts = async (settings: ApiSettings, logger: Logger) => {
  const { database, livekit } = settings;
  const pool = createPool({
    ...database,
    applicationName: 'api',
    onError: (error) => logger.warn({ err: error }, 'idle database connection failed'),
  });
  const log = await openEventLog(settings, {
    clientId: 'api',
    pool,
    writeLog: (level, message, { error, ...fields }) => logger[level]({ ...fields, err: error }, message),
  });
  const rooms = createRoomService({ apiUrl: livekit.apiUrl, key: livekit.keys[0], timeoutMs: livekitTimeoutMs });
  const keys = createKeySet({ url: settings.oidc.jwksUri, logger });
  const freshness = createFreshness({
    bounds: log.bounds,
    readPositions: () => readPositions(pool, activeProjection),
    maxAgeMs: settings.projectionMaxAgeMs,
    logger,
  });
  const metrics = createApiMetrics();
  watchState(metrics.registry, { freshness, keys, consumerGroup: settings.consumerGroup });
  const schema = prepareSchema(settings, pool, logger);
  return { pool, log, rooms, keys, freshness, metrics, schema, logger };
};
type Parts = Awaited<ReturnType<typeof openParts>>;

const createOps = (settings: ApiSettings, parts: Parts): FastifyInstance => {
  const { pool, log, rooms, keys, freshness, metrics, schema, logger } = parts;
  const ops = createOpsServer({
    checks: {
      database: async () => {
        if (!schema.isReady()) throw new Error('the schema is not prepared');
        await pool.query('select 1');
      },
      identity: async () => {
        if (keys.ageMs() === undefined) throw new Error('there are no keys to verify tokens with');
      },
    },
    optionalChecks: {
      log: async () => void (await log.bounds(topics.roomEvents)),
      // Of one room, since there may be thousands.
      livekit: async () => void (await rooms.listRooms(['readiness'])),
    },
    metrics: metrics.registry,
    info: { service: 'api', log: settings.log.kind },
    logger,
  });
  registerExplain(ops, {
    readProvenance: (query) => withStoreDeadline(readProvenance(pool, query, freshness.compare())),
    freshness,
    logger,
  });
  return ops;
};

/** Where entries get their facts: none that were read where less is applied than was seen before. */
const entryStoreOf = ({ pool, freshness }: Parts, leaseSeconds: number): EntryStore => {
  const { compare, isCurrent } = freshness;
  const ask = createFactsReader((queries) => readFacts(pool, queries, compare()), { deadlineMs: storeDeadlineMs });
  const take = createSeatTaker(pool, { deadlineMs: storeDeadlineMs, leaseSeconds, compare });
  return {
    readFacts: async (query) => {
      const { roomId, userId } = query;
      // About whom a moderator asks, older facts do.
      const wasCurrent = isCurrent(roomId, userId);
      const answer = await ask(query);
      if (wasCurrent) assertCurrent(freshness, roomId, userId);
      return answer;
    },
    takeSeat: async (request, decide) => {
      const answer = await take(request, decide);
      assertCurrent(freshness, request.roomId, request.userId);
      return answer;
    },
  };
};

const dependenciesOf = (settings: ApiSettings, parts: Parts): ApiDependencies => {
  const { pool, log, rooms, keys, freshness, metrics, logger } = parts;
  const { livekit, makesRooms, tokenTtlSeconds } = settings;
  const { createRoom } = rooms;
  return {
    settings,
    keys,
    watch: watchSettings,
    store: entryStoreOf(parts, tokenTtlSeconds + leaseBeyondTokenSeconds),
    freshness,
    makeRoom: makesRooms ? createRoomMaker({ createRoom, tokenTtlSeconds }) : async () => {},
    makeRoomAtDoor: createRoomMaker({ createRoom, tokenTtlSeconds, coalesceMs: doorCoalesceMs }),
    livekitKeys: livekit.keys,
    signToken: createTokenSigner(livekit.keys[0], tokenTtlSeconds),
    serverUrl: livekit.publicUrl,
    append: log.append,
    readPresentPeople: (roomId, options) => withStoreDeadline(readPresentPeople(pool, roomId, options)),
    keepRecords: (records) => withStoreDeadline(keepRecords(pool, records)),
    findLiveLogins: (about, joinedBy) => withStoreDeadline(findLiveLogins(pool, about, joinedBy)),
    metrics,
    logger,
    now: Date.now,
  };
};

/**
 * Builds the api and starts it. It listens within seconds: what it depends on may come later, and readiness says what
 * is missing.
 */
export const startApi = async (settings: ApiSettings, logger: Logger): Promise<Api> => {
  const parts = await openParts(settings, logger);
  const { pool, log, keys, freshness, metrics, schema } = parts;
  const ops = createOps(settings, parts);
  const app = await createApp(dependenciesOf(settings, parts));
  const keptSender = startKeptSender({ pool, append: log.append, metrics, logger });

  const opsUrl = await ops.listen({ host: settings.host, port: settings.opsPort });
  await Promise.all([keys.start(), freshness.start()]);
  const url = await app.listen({ host: settings.host, port: settings.port });
  const { publicUrl } = settings.livekit;
  if (isPlainAndRemote(publicUrl)) logger.warn({ server_url: publicUrl }, 'clients are sent to LiveKit without TLS');
  logger.info({ url, ops: opsUrl, log: settings.log.kind }, 'api is up');

  return {
    url,
    opsUrl,
    stop: async () => {
      await close(app);
      await Promise.all([freshness.stop(), schema.stop(), keptSender.stop()]);
      keys.stop();
      await log.close();
      await ops.close();
      await pool.end();
    },
  };
};

/**
 * Answers who is being answered. Their connections would then be kept alive for more than a minute: they end as they
 * fall idle.
 */
const close = async (app: FastifyInstance): Promise<void> => {
  const sweep = setInterval(() => app.server.closeIdleConnections(), sweepEveryMs);
  await app.close();
  clearInterval(sweep);
};

/** Browsers refuse it on a page that came over https, except on the machine itself. */
const isPlainAndRemote = (url: string): boolean => {
  const { protocol, hostname } = new URL(url);
  return protocol === 'ws:' && !/^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname);
};

/** Migrates in the background, or waits for whoever does, as often as it takes. */
const prepareSchema = ({ migrates, database, log }: ApiSettings, pool: Pool, logger: Logger) => {
  const stopping = new AbortController();
  let isReady = false;

  const bringUpToDate = async (): Promise<void> => {
    const applied = await migrate(database.directUrl, stopping.signal);
    if (applied.length > 0) logger.info({ migrations: applied }, 'schema migrated');
    if (log.kind === 'embedded') await prepareEmbeddedLog(pool, allTopics);
  };

  const prepare = async (): Promise<void> => {
    if (migrates) await bringUpToDate();
    // Refused until somebody else has: every join asks so.
    else
      await Promise.all([
        readFacts(pool, [{ roomId: '', userId: '', loginId: null }]),
        readPositions(pool, activeProjection),
      ]);
    isReady = true;
  };

  const untilPrepared = async (): Promise<void> => {
    while (!isReady && !stopping.signal.aborted) {
      try {
        await prepare();
      } catch (error) {
        if (stopping.signal.aborted) return;
        logger.warn({ err: error }, 'the schema could not be prepared yet');
        await delay(prepareAgainMs, undefined, { signal: stopping.signal }).catch(() => {});
      }
    }
  };
  const done = untilPrepared();

  return {
    isReady: () => isReady,
    stop: async () => {
      stopping.abort();
      await done;
    },
  };
};
