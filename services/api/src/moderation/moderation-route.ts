import { randomUUID } from 'node:crypto';
import {
  BanRequest,
  encodeAtLeast,
  Identity,
  type ModerationAccepted,
  ModerationRequest,
  type OutgoingRoomEvent,
  RoomId,
  Sid,
  UnbanQuery,
  UserId,
} from '@realtime-service/contracts';
import type { EventLog } from '@realtime-service/event-log';
import { authoriseModeration, type Moderation } from '@realtime-service/room-model';
import type { PresentPerson } from '@realtime-service/room-store';
import { type Logger, thisMoment } from '@realtime-service/telemetry';
import type { FastifyInstance, FastifyReply, onRequestHookHandler } from 'fastify';
import { z } from 'zod';
import type { Caller } from '../authenticate.ts';
import { appendEvents, toRecord } from '../events/append-events.ts';
import { assertCurrent } from '../freshness.ts';
import { allowedBy, assertFresh, fromStore } from '../join/decide-join.ts';
import { ProblemError, refuseOtherMethods } from '../problem.ts';
import { readRequest } from '../read-request.ts';
import { type RoomsDependencies, roomUrl } from '../rooms/rooms-route.ts';

export interface ModerationDependencies extends RoomsDependencies {
  readonly append: EventLog['append'];
  readonly logger: Logger;
}

const urls = {
  kick: `${roomUrl}/participants/:identity/kick`,
  mute: `${roomUrl}/participants/:identity/tracks/:trackSid/mute`,
  bans: `${roomUrl}/bans`,
  ban: `${roomUrl}/bans/:userId`,
};

const KickRequest = z.object({ params: z.object({ roomId: RoomId, identity: Identity }), body: ModerationRequest });
const MuteRequest = z.object({
  params: z.object({ roomId: RoomId, identity: Identity, trackSid: Sid }),
  body: ModerationRequest,
});
const BanUserRequest = z.object({ params: z.object({ roomId: RoomId }), body: BanRequest });
const UnbanRequest = z.object({ params: z.object({ roomId: RoomId, userId: UserId }), query: UnbanQuery });

/**
 * The life of a moderation: caller and target → facts of both → verdict → a fact in the log, which the worker enforces.
 */
export const registerModeration = (
  app: FastifyInstance,
  callerOnly: onRequestHookHandler[],
  dependencies: ModerationDependencies,
): void => {
  const { metrics, logger } = dependencies;
  const options = (operation: string) => ({ onRequest: callerOnly, config: { operation } });

  const accept = async (
    operation: string,
    { caller, reply, nowMs }: { caller: Caller; reply: FastifyReply; nowMs: number },
    event: OutgoingRoomEvent,
  ): Promise<ModerationAccepted> => {
    const positions = await appendEvents(dependencies.append, [toRecord(toCloudEvent(event, nowMs))]);
    metrics.requests.inc({ operation, outcome: 'accepted', reason: 'valid' });
    logger.info({ operation, room: event.subject, user: caller.userId }, 'moderation appended');
    reply.code(202);
    return { at_least: encodeAtLeast(positions) };
  };

  app.post(urls.kick, options('kick_participant'), async ({ params, body = {}, user: caller }, reply) => {
    const { params: at, body: asked } = readRequest(KickRequest, { params, body });
    const { session, nowMs } = await decideOnSession(dependencies, caller, at);
    const { identity, participantSid } = session;
    const data = { identity, participantSid, by: caller.userId, ...asked };
    const event = { type: 'participant.kick_requested', subject: at.roomId, data } as const;
    return accept('kick_participant', { caller, reply, nowMs }, event);
  });

  app.post(urls.mute, options('mute_track'), async ({ params, body = {}, user: caller }, reply) => {
    const { params: at, body: asked } = readRequest(MuteRequest, { params, body });
    const { session, nowMs } = await decideOnSession(dependencies, caller, at);
    const { identity, participantSid } = session;
    const data = { identity, participantSid, trackSid: at.trackSid, by: caller.userId, ...asked };
    const event = { type: 'track.mute_requested', subject: at.roomId, data } as const;
    return accept('mute_track', { caller, reply, nowMs }, event);
  });

  app.post(urls.bans, options('ban_user'), async ({ params, body, user: caller }, reply) => {
    const { params: at, body: asked } = readRequest(BanUserRequest, { params, body });
    const { seconds, ...ban } = asked;
    const nowMs = await decideOnRights(dependencies, caller, { roomId: at.roomId, userId: ban.userId });
    const until = seconds === undefined ? {} : { until: new Date(nowMs + seconds * 1000).toISOString() };
    const event = { type: 'member.banned', subject: at.roomId, data: { ...ban, ...until, by: caller.userId } } as const;
    return accept('ban_user', { caller, reply, nowMs }, event);
  });

  app.delete(urls.ban, options('unban_user'), async ({ params, query, user: caller }, reply) => {
    const { params: at, query: asked } = readRequest(UnbanRequest, { params, query });
    const nowMs = await decideOnRights(dependencies, caller, at);
    const data = { userId: at.userId, privilege: asked.privilege, by: caller.userId };
    return accept('unban_user', { caller, reply, nowMs }, { type: 'member.unbanned', subject: at.roomId, data });
  });

  for (const url of [urls.kick, urls.mute, urls.bans]) refuseOtherMethods(app, url, ['POST']);
  refuseOtherMethods(app, urls.ban, ['DELETE']);
};

/** Dated by the database's clock, by which bans and orders end. */
const toCloudEvent = ({ type, subject, data }: OutgoingRoomEvent, nowMs: number) => ({
  context: {
    specversion: '1.0' as const,
    id: randomUUID(),
    source: '/api/realtime/moderation',
    type,
    subject,
    time: new Date(nowMs).toISOString(),
  },
  data,
});

interface Decided {
  readonly session: PresentPerson;
  readonly nowMs: number;
}

/**
 * Whom an identity names is what LiveKit's session facts say, never a part of its text.
 * @throws {ProblemError} where the caller may not moderate this person, or nobody is inside by that identity
 */
const decideOnSession = async (
  dependencies: ModerationDependencies,
  { userId, loginId, loginEndsAtMs }: Caller,
  { roomId, identity }: { readonly roomId: string; readonly identity: string },
): Promise<Decided> => {
  assertCurrent(dependencies.freshness, roomId, userId);
  const askedAt = thisMoment();
  const [{ facts, nowMs }, [session = null]] = await fromStore(
    Promise.all([
      dependencies.store.readFacts({ roomId, userId, loginId }),
      dependencies.readPresentPeople(roomId, { identity, limit: 1 }),
    ]),
  );
  assertFresh({ askedAt });
  const moderation: Moderation = { byUserId: userId, loginEndsAtMs, target: session, concerns: 'session' };
  allowedBy(authoriseModeration(facts, moderation, nowMs), nowMs);
  if (session === null) throw new ProblemError('participant_not_found');
  return { session, nowMs };
};

/**
 * When it was decided, by the database's clock.
 * @throws {ProblemError} where the caller may not moderate this person
 */
const decideOnRights = async (
  dependencies: ModerationDependencies,
  { userId, loginId, loginEndsAtMs }: Caller,
  target: { readonly roomId: string; readonly userId: string },
): Promise<number> => {
  const { roomId } = target;
  assertCurrent(dependencies.freshness, roomId, userId);
  const askedAt = thisMoment();
  // Of one snapshot, or of two a moment apart: either may change as well before the fact is appended.
  const [{ facts, nowMs }, { facts: targetFacts }] = await fromStore(
    Promise.all([
      dependencies.store.readFacts({ roomId, userId, loginId }),
      dependencies.store.readFacts({ roomId, userId: target.userId, loginId: null }),
    ]),
  );
  assertFresh({ askedAt });
  const { member } = targetFacts;
  const moderation: Moderation = {
    byUserId: userId,
    loginEndsAtMs,
    target: { userId: target.userId, member },
    concerns: 'rights',
  };
  allowedBy(authoriseModeration(facts, moderation, nowMs), nowMs);
  return nowMs;
};
