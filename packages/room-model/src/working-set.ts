import type { PresenceChange, PresenceEntities, RoomLife, Session } from './presence.ts';
import type { RoomChange, RoomEntities } from './room.ts';
import {
  type Ban,
  type Doubted,
  type EndedLogin,
  keyOf,
  keyOfSuspect,
  type Member,
  type RoomHeader,
  type Suspect,
  type User,
} from './room.ts';

/**
 * The entities that a run of facts touches, in memory. The store fills it with what it locked and writes back what
 * changed; the pure model of a whole log is the same set, started empty.
 */
export class WorkingSet implements RoomEntities, PresenceEntities {
  readonly rooms = new Map<string, RoomHeader>();
  readonly members = new Map<string, Member>();
  readonly bans = new Map<string, Ban>();
  readonly users = new Map<string, User>();
  readonly logins = new Map<string, EndedLogin>();
  readonly suspects = new Map<string, Suspect>();
  readonly lives = new Map<string, RoomLife>();
  readonly #presentByRoom = new Map<string, Map<string, Member>>();
  readonly #doubtsByEntity = new Map<string, Map<string, Suspect>>();
  readonly #doubtsByRoom = new Map<string, Map<string, Suspect>>();
  readonly #sessionsByRoom = new Map<string, Map<string, Session>>();
  readonly #sessionsByIdentity = new Map<string, Map<string, Session>>();

  membersOf(roomId: string): Iterable<Member> {
    return this.#presentByRoom.get(roomId)?.values() ?? [];
  }

  doubtsAbout(entity: Doubted): Iterable<Suspect> {
    return this.#doubtsByEntity.get(keyOfDoubted(entity))?.values() ?? [];
  }

  doubtsIn(roomId: string): Iterable<Suspect> {
    return this.#doubtsByRoom.get(roomId)?.values() ?? [];
  }

  sessionsOf(roomId: string): Iterable<Session> {
    return this.#sessionsByRoom.get(roomId)?.values() ?? [];
  }

  session(roomId: string, roomSid: string, participantSid: string): Session | undefined {
    return this.#sessionsByRoom.get(roomId)?.get(keyOf(roomSid, participantSid));
  }

  sessionsOfIdentity(roomId: string, identity: string): Iterable<Session> {
    return this.#sessionsByIdentity.get(keyOf(roomId, identity))?.values() ?? [];
  }

  put(change: RoomChange | PresenceChange): void {
    const { entity, row } = change;
    switch (entity) {
      case 'room':
        this.rooms.set(row.roomId, row);
        return;
      case 'member':
        this.members.set(keyOf(row.roomId, row.userId), row);
        if (row.isRemoved) this.#presentByRoom.get(row.roomId)?.delete(row.userId);
        else nested(this.#presentByRoom, row.roomId).set(row.userId, row);
        return;
      case 'ban':
        this.bans.set(keyOf(row.roomId, row.userId, row.privilege), row);
        return;
      case 'user':
        this.users.set(row.userId, row);
        return;
      case 'login':
        this.logins.set(keyOf(row.userId, row.loginId), row);
        return;
      case 'suspect':
        this.suspects.set(keyOfSuspect(row), row);
        nested(this.#doubtsByEntity, keyOfDoubted(row)).set(keyOfSuspect(row), row);
        nested(this.#doubtsByRoom, row.roomId).set(keyOfSuspect(row), row);
        return;
      // An order to one session is no state.
      case 'edge':
        return;
      case 'life':
        this.lives.set(row.roomId, row);
        return;
      case 'session':
        nested(this.#sessionsByRoom, row.roomId).set(keyOf(row.roomSid, row.participantSid), row);
        nested(this.#sessionsByIdentity, keyOf(row.roomId, row.identity)).set(
          keyOf(row.roomSid, row.participantSid),
          row,
        );
        return;
    }
  }
}

const keyOfDoubted = ({ scope, roomId, userId, detail }: Doubted): string => keyOf(scope, roomId, userId, detail);

const nested = <T>(map: Map<string, Map<string, T>>, key: string): Map<string, T> => {
  let inner = map.get(key);
  if (inner === undefined) {
    inner = new Map();
    map.set(key, inner);
  }
  return inner;
};
