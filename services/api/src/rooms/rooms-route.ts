import { RoomId } from '@realtime-service/contracts';
import type { FastifyInstance, onRequestHookHandler } from 'fastify';
import { z } from 'zod';
import type { JoinDependencies } from '../join/join-route.ts';
import { refuseOtherMethods } from '../problem.ts';
import { readRequest } from '../read-request.ts';
import { decideView, type ReadPresentPeople, readPeople, toParticipantsView, toRoomView } from './room-view.ts';

export interface RoomsDependencies extends Pick<JoinDependencies, 'store' | 'freshness' | 'metrics'> {
  readonly readPresentPeople: ReadPresentPeople;
  readonly now: () => number;
}

export const roomUrl = '/api/realtime/rooms/:roomId';

export const RoomRequest = z.object({ params: z.object({ roomId: RoomId }) });

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
    const seen = await decideView(dependencies, user, roomId);
    metrics.requests.inc({ operation: 'read_room', outcome: 'allowed', reason: seen.role });
    return toRoomView(seen);
  });

  app.get(urls.participants, options('read_participants'), async ({ params, user }) => {
    const { roomId } = readRequest(RoomRequest, { params }).params;
    const { room, role } = await decideView(dependencies, user, roomId);
    const people = await readPeople(readPresentPeople, roomId);
    metrics.requests.inc({ operation: 'read_participants', outcome: 'allowed', reason: role });
    return toParticipantsView(room, people);
  });

  for (const url of Object.values(urls)) refuseOtherMethods(app, url, ['GET']);
};
