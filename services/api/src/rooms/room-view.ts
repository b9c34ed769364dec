import type { ParticipantsView, ParticipantView, Role, RoomView } from '@realtime-service/contracts';
import { authorise, type RoomFacts, roleIn } from '@realtime-service/room-model';
import type { PresentPerson } from '@realtime-service/room-store';
import type { Caller } from '../authenticate.ts';
import { assertCurrent } from '../freshness.ts';
import { allowedBy, fromStore } from '../join/decide-join.ts';
import type { JoinDependencies } from '../join/join-route.ts';

/** People inside whom everybody sees; where an identity is given, its newest session alone. */
export type ReadPresentPeople = (
  roomId: string,
  options: { readonly identity: string | null; readonly limit: number },
) => Promise<readonly PresentPerson[]>;

type DecideDependencies = Pick<JoinDependencies, 'store' | 'freshness'>;

/** A room that this caller may see, and as whom. */
interface SeenRoom {
  readonly room: RoomFacts;
  readonly role: Role;
  readonly isRoomLive: boolean;
}

/** @throws {ProblemError} where the caller may not see this room */
export const decideView = async (
  dependencies: DecideDependencies,
  { userId, loginId, loginEndsAtMs }: Caller,
  roomId: string,
): Promise<SeenRoom> => {
  assertCurrent(dependencies.freshness, roomId, userId);
  const { facts, isRoomLive, nowMs } = await fromStore(dependencies.store.readFacts({ roomId, userId, loginId }));
  const { role } = allowedBy(authorise(facts, { purpose: 'act', loginEndsAtMs }, nowMs), nowMs);
  // Nobody is allowed anything in a room that is not there.
  return { room: facts.room as RoomFacts, role, isRoomLive };
};

const toTimestamp = (ms: number): string => new Date(ms).toISOString();

export const toRoomView = ({ room, role, isRoomLive }: SeenRoom): RoomView => ({
  roomId: room.roomId,
  ...(room.name !== null && { name: room.name }),
  access: room.access,
  isLocked: room.isLocked,
  isLive: isRoomLive,
  ...(room.opensAtMs !== null && { opensAt: toTimestamp(room.opensAtMs) }),
  ...(room.closesAtMs !== null && { closesAt: toTimestamp(room.closesAtMs) }),
  ownRole: role,
});

const maxParticipants = 1_000;

/** As many people as a view has, and one more where it has not all. @throws {ProblemError} 503 */
export const readPeople = (readPresentPeople: ReadPresentPeople, roomId: string): Promise<readonly PresentPerson[]> =>
  fromStore(readPresentPeople(roomId, { identity: null, limit: maxParticipants + 1 }));

export const toParticipantsView = (room: RoomFacts, people: readonly PresentPerson[]): ParticipantsView => ({
  participants: people.slice(0, maxParticipants).map((person) => toParticipantView(room, person)),
  isComplete: people.length <= maxParticipants,
});

const toParticipantView = (
  room: RoomFacts,
  { identity, participantSid, userId, joinedAtMs, member }: PresentPerson,
): ParticipantView => {
  const role = userId === null ? null : roleIn(room, member);
  const displayName = member?.displayName ?? null;
  return {
    identity,
    participantSid,
    ...(userId !== null && { userId }),
    ...(displayName !== null && { displayName }),
    ...(role !== null && { role }),
    joinedAt: toTimestamp(joinedAtMs),
  };
};
