import { type ParticipantsView, type ParticipantView, RoomId, type RoomView } from '@realtime-service/contracts';
import { authorise, type RoomFacts, roleIn } from '@realtime-service/room-model';
import type { PresentPerson } from '@realtime-service/room-store';
import type { FastifyInstance, onRequestHookHandler } from 'fastify';
import { z } from 'zod';
import type { Caller } from '../authenticate.ts';
import { allowedBy, fromStore } from '../join/decide-join.ts';
import type { JoinDependencies } from '../join/join-route.ts';
import { ProblemError, refuseOtherMethods } from '../problem.ts';
import { readRequest } from '../read-request.ts';

export interface RoomsDependencies extends Pick<JoinDependencies, 'store' | 'freshness' | 'metrics'> {
  /** People inside whom everybody sees; where an identity is given, its newest session alone. */
  readonly readPresentPeople: (
    roomId: string,
    options: { readonly identity: string | null; readonly limit: number },
  ) => Promise<readonly PresentPerson[]>;
}

export const roomUrl = '/api/realtime/rooms/:roomId';
const maxParticipants = 1_000;

const RoomRequest = z.object({ params: z.object({ roomId: RoomId }) });

/** What members see of a room: the room itself, and who is inside. */
export const registerRooms = (
  app: FastifyInstance,
  callerOnly: onRequestHookHandler[],
  dependencies: RoomsDependencies,
): void => {
  const { readPresentPeople, metrics } = dependencies;
  const options = (operation: string) => ({ onRequest: callerOnly, exposeHeadRoute: false, config: { operation } });
  const urls = { room: roomUrl, participants: `${roomUrl}/participants` };

  app.get(urls.room, options('read_room'), async ({ params, user }) => {
    const { roomId } = readRequest(RoomRequest, { params }).params;
    const { room, role, isRoomLive } = await decideView(dependencies, user, roomId);
    metrics.requests.inc({ operation: 'read_room', outcome: 'allowed', reason: role });
    return {
      roomId,
      ...(room.name !== null && { name: room.name }),
      access: room.access,
      isLocked: room.isLocked,
      isLive: isRoomLive,
      ...(room.opensAtMs !== null && { opensAt: toTimestamp(room.opensAtMs) }),
      ...(room.closesAtMs !== null && { closesAt: toTimestamp(room.closesAtMs) }),
      ownRole: role,
    } satisfies RoomView;
  });

  app.get(urls.participants, options('read_participants'), async ({ params, user }) => {
    const { roomId } = readRequest(RoomRequest, { params }).params;
    const { room, role } = await decideView(dependencies, user, roomId);
    const people = await fromStore(readPresentPeople(roomId, { identity: null, limit: maxParticipants + 1 }));
    metrics.requests.inc({ operation: 'read_participants', outcome: 'allowed', reason: role });
    return {
      participants: people.slice(0, maxParticipants).map((person) => toView(room, person)),
      isComplete: people.length <= maxParticipants,
    } satisfies ParticipantsView;
  });

  for (const url of Object.values(urls)) refuseOtherMethods(app, url, ['GET']);
};

/** @throws {ProblemError} 503 where the room's facts are too old */
export const assertCurrent = ({ freshness }: Pick<RoomsDependencies, 'freshness'>, roomId: string): void => {
  if (!freshness.isCurrent(roomId)) throw new ProblemError('projection_stale', { reason: 'partition_too_old' });
};

const decideView = async (
  dependencies: Pick<RoomsDependencies, 'store' | 'freshness'>,
  { userId, loginId }: Caller,
  roomId: string,
) => {
  assertCurrent(dependencies, roomId);
  const { facts, isRoomLive, nowMs } = await fromStore(dependencies.store.readFacts({ roomId, userId, loginId }));
  const { role } = allowedBy(authorise(facts, { purpose: 'act', identity: '', takeOver: false }, nowMs), nowMs);
  // Nobody is allowed anything in a room that is not there.
  return { room: facts.room as RoomFacts, role, isRoomLive };
};

const toTimestamp = (ms: number): string => new Date(ms).toISOString();

const toView = (room: RoomFacts, { identity, participantSid, userId, joinedAtMs, member }: PresentPerson) => {
  const role = userId === null ? null : roleIn(room, member);
  const displayName = member?.displayName ?? null;
  return {
    identity,
    participantSid,
    ...(userId !== null && { userId }),
    ...(displayName !== null && { displayName }),
    ...(role !== null && { role }),
    joinedAt: toTimestamp(joinedAtMs),
  } satisfies ParticipantView;
};
