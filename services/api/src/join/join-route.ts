import type { JoinResponse } from '@realtime-service/contracts';
import { attributes, toJoinPermissions } from '@realtime-service/room-model';
import { currentTraceparent, type Logger } from '@realtime-service/telemetry';
import type { FastifyInstance, onRequestHookHandler } from 'fastify';
import type { Caller } from '../authenticate.ts';
import { assertCurrent, type Freshness } from '../freshness.ts';
import type { ApiMetrics } from '../metrics.ts';
import { ProblemError, refuseOtherMethods, traceIdOf } from '../problem.ts';
import { type Admission, assertFresh, decideJoin, type EntryStore } from './decide-join.ts';
import { type AskedJoin, readJoin } from './join-request.ts';
import type { MakeRoom } from './make-room.ts';
import { maxLivekitTokenLength, type SignedToken, type SignToken } from './sign-token.ts';

export interface JoinDependencies {
  readonly store: EntryStore;
  readonly freshness: Pick<Freshness, 'isCurrent' | 'reaches'>;
  readonly makeRoom: MakeRoom;
  readonly signToken: SignToken;
  /** Where clients reach LiveKit. */
  readonly serverUrl: string;
  readonly metrics: ApiMetrics;
  readonly logger: Logger;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

const url = '/api/realtime/rooms/:roomId/join';

/** The life of a join: bytes → caller → facts → verdict → room → token. */
export const registerJoin = (
  app: FastifyInstance,
  callerOnly: onRequestHookHandler[],
  dependencies: JoinDependencies,
): void => {
  const { freshness, serverUrl, metrics, logger } = dependencies;

  app.post<{ Params: { roomId: string } }>(
    url,
    { onRequest: callerOnly, config: { operation: 'join' } },
    async (request) => {
      const caller = request.user;
      const asked = readJoin(request.params.roomId, request.body);
      if (asked.atLeast.length > 0) await assertReached(freshness, asked.atLeast);
      assertCurrent(freshness, asked.roomId, caller.userId);
      const admission = await decideJoin(dependencies.store, caller, asked);
      await ensureRoom(dependencies, asked, admission);
      assertFresh(admission);
      const name = nameOf(asked.participant_name, admission);
      const { token, expiresAt } = sign(dependencies, { caller, asked, admission, name });
      const { role, permissions } = admission.verdict;
      metrics.requests.inc({ operation: 'join', outcome: 'allowed', reason: role });
      logger.info({ room: asked.roomId, user: caller.userId, role }, 'join allowed');
      return {
        server_url: serverUrl,
        participant_token: token,
        room_name: asked.roomId,
        participant_identity: admission.identity,
        participant_name: name,
        expires_at: expiresAt,
        role,
        permissions: toJoinPermissions(permissions),
        trace_id: traceIdOf(request),
      } satisfies JoinResponse;
    },
  );
  refuseOtherMethods(app, url, ['POST']);
};

/** The facts that the caller has written itself, and whose position it names. */
const assertReached = async (
  freshness: JoinDependencies['freshness'],
  atLeast: AskedJoin['atLeast'],
): Promise<void> => {
  if (!(await freshness.reaches(atLeast)))
    throw new ProblemError('projection_stale', { reason: 'position_not_reached' });
};

/** A room that is live needs no making: LiveKit's API may be away while its media runs. */
const ensureRoom = async (
  { makeRoom, metrics, logger }: JoinDependencies,
  { roomId, room_config }: AskedJoin,
  { isRoomLive }: Admission,
): Promise<void> => {
  try {
    await makeRoom(roomId, room_config?.agents ?? []);
  } catch (cause) {
    metrics.roomsNotMade.inc();
    if (!isRoomLive) throw new ProblemError('livekit_unavailable', { cause });
    logger.warn({ err: cause, room: roomId }, 'room could not be made, but is live');
  }
};

/** The name that somebody goes by: the one asked for where the room allows that, else the projected one. */
export const nameOf = (asked: string | undefined, { room, verdict }: Admission): string =>
  (room.settings.clientName && asked) || withoutControls(verdict.displayName ?? '');

/** In a token each control character takes six bytes, and the longest name has 512: nobody is kept out by a name. */
const withoutControls = (name: string): string => name.replaceAll(/\p{Cc}/gu, ' ');

interface TokenParts {
  readonly caller: Caller;
  readonly asked: AskedJoin;
  readonly admission: Admission;
  readonly name: string;
}

const sign = (
  { signToken, now }: Pick<JoinDependencies, 'signToken' | 'now'>,
  { caller, asked, admission, name }: TokenParts,
): SignedToken => {
  const trace = currentTraceparent();
  const signed = signToken(
    {
      room: asked.roomId,
      identity: admission.identity,
      name,
      metadata: asked.participant_metadata || undefined,
      attributes: {
        ...asked.participant_attributes,
        [attributes.user]: caller.userId,
        ...(asked.device_id !== undefined && { [attributes.device]: asked.device_id }),
        ...(caller.loginId !== null && { [attributes.login]: caller.loginId }),
        ...(caller.loginEndsAtMs !== null && { [attributes.loginEnd]: String(caller.loginEndsAtMs / 1000) }),
        ...(trace !== undefined && { [attributes.trace]: trace }),
      },
      permissions: admission.verdict.permissions,
    },
    now(),
  );
  if (signed.token.length > maxLivekitTokenLength)
    throw new ProblemError('invalid_request', {
      reason: 'token_too_long',
      faults: [
        {
          path: '/participant_attributes',
          message: 'must be shorter, as must the metadata: the token would exceed 4 KB',
        },
      ],
    });
  return signed;
};
