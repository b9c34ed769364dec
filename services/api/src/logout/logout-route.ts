import { hash } from 'node:crypto';
import type { EventLog } from '@realtime-service/event-log';
import type { KeptRecord, Login } from '@realtime-service/room-store';
import type { Logger } from '@realtime-service/telemetry';
import type { FastifyInstance, RouteShorthandOptions } from 'fastify';
import { appendEvents, toRecord } from '../events/append-events.ts';
import type { ApiMetrics } from '../metrics.ts';
import { ProblemError, refuseOtherMethods } from '../problem.ts';
import { createReplayGuard, type Logout } from './verify-logout-token.ts';

export interface LogoutDependencies {
  readonly append: EventLog['append'];
  /** Keeps records that the log did not take, to be appended later. */
  readonly keepRecords: (records: readonly KeptRecord[]) => Promise<void>;
  /** The logins that are inside a call, of one person or by the login's id alone. */
  readonly findLiveLogins: (about: Partial<Login>, joinedBy: Date | null) => Promise<readonly Login[]>;
  readonly metrics: ApiMetrics;
  readonly logger: Logger;
  readonly now: () => number;
}

const url = '/api/realtime/oidc/backchannel-logout';
export const logoutOperation = 'backchannel_logout';

/** Hooks that refuse whoever has shown too many forged tokens. */
export type ForgeryLimit = Pick<RouteShorthandOptions, 'onRequest' | 'onError'>;

/** The life of a logout: token → which logins → facts in the log, or kept for it. */
export const registerLogout = async (
  root: FastifyInstance,
  limit: ForgeryLimit,
  verify: (token: string) => Promise<Logout>,
  dependencies: LogoutDependencies,
): Promise<void> => {
  const { metrics, logger, now } = dependencies;
  const done = createReplayGuard(now);

  // Forms are no other route's.
  await root.register(async (app) => {
    // A provider tells once, and not again by a new connection where a kept one has just been closed by an ending api.
    app.addHook('onRequest', async (_request, reply) => void reply.header('connection', 'close'));
    app.removeAllContentTypeParsers();
    app.addContentTypeParser(
      'application/x-www-form-urlencoded',
      { parseAs: 'string' },
      async (_request: unknown, body: string) => new URLSearchParams(body),
    );
    app.post(url, { ...limit, config: { operation: logoutOperation } }, async (request, reply) => {
      const logout = await verify(tokenOf(request.body));
      if (done.has(logout.id)) throw new ProblemError('invalid_logout_token', { reason: 'repeated' });
      const logins = await loginsOf(logout, dependencies);
      await appendOrKeep(
        logins.map((login) => toLoginEnded(login, logout.id, now())),
        dependencies,
      );
      done.add(logout.id);
      metrics.requests.inc({ operation: logoutOperation, outcome: 'accepted', reason: 'valid' });
      logger.info({ user: logout.userId, logins: logins.length }, 'logins ended');
      return reply.code(200).send();
    });
    refuseOtherMethods(app, url, ['POST']);
  });
};

/** Other fields are for others, as the specification says. @throws {ProblemError} 400 */
const tokenOf = (body: unknown): string => {
  const tokens = body instanceof URLSearchParams ? body.getAll('logout_token') : [];
  const [token] = tokens;
  if (token === undefined || tokens.length > 1) throw new ProblemError('invalid_logout_token', { reason: 'no_token' });
  return token;
};

/**
 * The login that a token names, and those inside a call that it is about: also by another `sub`, since a provider may
 * map what access tokens say there, and not what logout tokens do.
 * @throws {ProblemError} 503 where it names no login, or no person, and is lost
 */
const loginsOf = async (
  { userId, loginId, issuedBy }: Logout,
  { findLiveLogins, metrics, logger }: LogoutDependencies,
): Promise<readonly Login[]> => {
  const named = userId !== undefined && loginId !== undefined ? [{ userId, loginId }] : [];
  try {
    // A person may have logged in anew since; a login that is over does not come back, though a call may by its tokens.
    const inside =
      loginId === undefined
        ? await findLiveLogins(userId === undefined ? {} : { userId }, issuedBy)
        : await findLiveLogins({ loginId }, null);
    return [...named, ...inside.filter((login) => named.length === 0 || login.userId !== userId)];
  } catch (cause) {
    if (named.length > 0) {
      logger.warn({ err: cause }, 'nobody knows whether the login is inside by another sub');
      return named;
    }
    logLost(logger, cause);
    metrics.keptRecords.inc({ outcome: 'lost' });
    throw new ProblemError('store_unavailable', { cause });
  }
};

const toLoginEnded = ({ userId, loginId }: Login, logoutId: string, nowMs: number): KeptRecord =>
  toRecord({
    context: {
      specversion: '1.0',
      id: `${logoutId}:${hash('sha256', JSON.stringify([userId, loginId]))}`,
      source: 'realtime-service/logout',
      type: 'login.ended',
      subject: userId,
      time: new Date(nowMs).toISOString(),
    },
    data: { userId, sid: loginId },
  });

/** The provider asks once: what the log does not take now is kept. @throws {ProblemError} 503 all the same */
const appendOrKeep = async (
  records: readonly KeptRecord[],
  { append, keepRecords, metrics, logger }: LogoutDependencies,
): Promise<void> => {
  if (records.length === 0) return;
  try {
    await appendEvents(append, records);
  } catch (error) {
    const outcome = await keepRecords(records).then(
      () => 'kept',
      (cause: unknown) => {
        logLost(logger, cause);
        return 'lost';
      },
    );
    metrics.keptRecords.inc({ outcome }, records.length);
    throw error;
  }
};

const logLost = (logger: Logger, cause: unknown): void =>
  logger.error({ err: cause }, 'logout could not be kept and is lost');
