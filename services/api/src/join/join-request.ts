import {
  decodeAtLeast,
  faultsOf,
  JoinRequest,
  type LogPosition,
  type ProblemFault,
  RoomId,
} from '@realtime-service/contracts';
import type { Permissions, RoomFacts } from '@realtime-service/room-model';
import { z } from 'zod';
import { ProblemError } from '../problem.ts';

const readRoomId = z.compile(RoomId);
const readRequest = z.compile(JoinRequest);

/** What a caller asks for, well-formed but not granted. */
export interface AskedJoin extends Omit<JoinRequest, 'at_least'> {
  readonly roomId: string;
  readonly atLeast: readonly LogPosition[];
}

/**
 * Reads path and body. The room's id is used as it came, byte for byte.
 * @throws {ProblemError} 422 naming all that is wrong
 */
export const readJoin = (roomId: unknown, body: unknown): AskedJoin => {
  const room = readRoomId.safeParse(roomId);
  const request = readRequest.safeParse(body ?? {});
  const faults: ProblemFault[] = [];
  if (!room.success) faults.push(...faultsOf(room.error, '/roomId'));
  if (!request.success) faults.push(...faultsOf(request.error));
  if (!room.success || !request.success) throw new ProblemError('invalid_request', { reason: 'schema', faults });
  const { at_least, ...wishes } = request.data;
  if (wishes.room_name !== undefined && wishes.room_name !== room.data)
    faults.push({ path: '/room_name', message: 'must equal the room of the path' });
  const atLeast = at_least === undefined ? [] : decodeAtLeast(at_least);
  if (atLeast === undefined)
    faults.push({ path: '/at_least', message: 'must be a position that this service answered' });
  if (faults.length > 0 || atLeast === undefined)
    throw new ProblemError('invalid_request', { reason: 'contradiction', faults });
  return { ...wishes, roomId: room.data, atLeast };
};

interface Grant {
  readonly identity: string;
  readonly settings: RoomFacts['settings'];
  readonly permissions: Permissions;
}

/**
 * What the caller chose and may not choose; asked only once entering is allowed, so that it tells strangers nothing.
 */
export const faultsOfChoice = (asked: AskedJoin, { identity, settings, permissions }: Grant): ProblemFault[] => {
  const { participant_identity, participant_metadata = '', participant_attributes = {}, room_config } = asked;
  const rules: readonly (readonly [isBroken: boolean, path: string, message: string])[] = [
    [
      participant_identity !== undefined && participant_identity !== identity,
      '/participant_identity',
      'must be left out, or be what the server chooses',
    ],
    [participant_metadata !== '' && !settings.clientMetadata, '/participant_metadata', 'is not allowed in this room'],
    [
      Object.keys(participant_attributes).length > 0 && !settings.clientAttributes,
      '/participant_attributes',
      'are not allowed in this room',
    ],
    [
      (room_config?.agents?.length ?? 0) > 0 && !permissions.dispatchAgents,
      '/room_config/agents',
      'are not allowed to this role',
    ],
  ];
  return rules.flatMap(([isBroken, path, message]) => (isBroken ? [{ path, message }] : []));
};
