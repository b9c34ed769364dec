import {
  isUserEventType,
  type LivekitFact,
  type LivekitObserved,
  type LogPosition,
  type RoomEvent,
  RoomId,
  toLogPosition,
  UserId,
} from '@realtime-service/contracts';
import { type Session, signedUserOf } from '@realtime-service/room-model';
import type { ChunkRecord } from './chunk.ts';

/** A session as a fact names it. */
type NamedSession = Pick<Session, 'roomSid' | 'participantSid' | 'identity'>;

/** The entities that a chunk can change, by id: what it locks and loads, and never more. */
export interface Touched {
  readonly rooms: Set<string>;
  /** Those of them of whose header a fact says something. */
  readonly headers: Set<string>;
  /** Whom full-state facts name, by the rooms whose whole member list they replace. */
  readonly wholeRooms: Map<string, Set<string>>;
  /** Dead letters whose doubts may be raised or settled. */
  readonly letters: LogPosition[];
  /** Users by their rooms. */
  readonly members: Map<string, Set<string>>;
  /** Users by the rooms in which something is taken from them or given back. */
  readonly bans: Map<string, Set<string>>;
  /** Users whom a fact is about. */
  readonly users: Set<string>;
  /** Logins that have ended, by their users. */
  readonly logins: Map<string, Set<string>>;
  /** Users whose session a fact may open. */
  readonly entering: Set<string>;
  /** Rooms of LiveKit facts, with the room sids and the sessions that these name. */
  readonly liveRooms: Map<string, { readonly sids: Set<string>; readonly sessions: NamedSession[]; isWhole: boolean }>;
}

const touchPairs = (pairs: Map<string, Set<string>>, outerId: string, innerIds: Iterable<string>): void => {
  const known = pairs.get(outerId) ?? new Set();
  pairs.set(outerId, known);
  for (const innerId of innerIds) known.add(innerId);
};

const touchEvent = (touched: Touched, event: RoomEvent): void => {
  const { subject } = event;
  if (isUserEventType(event.type)) {
    touched.users.add(subject);
    if (event.type === 'login.ended') touchPairs(touched.logins, subject, [event.data.sid]);
    return;
  }
  if (event.type === 'dead_letter.discarded') {
    touched.letters.push(toLogPosition(event.data));
    return;
  }
  touched.rooms.add(subject);
  if (event.type.startsWith('room.')) touched.headers.add(subject);
  if (event.type === 'room.created' && event.data.members !== undefined)
    touchPairs(
      touched.wholeRooms,
      subject,
      event.data.members.map(({ userId }) => userId),
    );
  if (event.type === 'member.banned' || event.type === 'member.unbanned')
    touchPairs(touched.bans, subject, [event.data.userId]);
  else if (event.data !== undefined && 'userId' in event.data)
    touchPairs(touched.members, subject, [event.data.userId]);
};

/** Whom a fact of LiveKit's names, in the shape of a list. */
const namedBy = (fact: LivekitFact): Pick<LivekitObserved, 'roomName' | 'room' | 'participants'> => {
  if (fact.type === 'observed') return fact.observed;
  return { roomName: fact.room.name, room: fact.room, participants: 'participant' in fact ? [fact.participant] : [] };
};

const touchLive = (touched: Touched, fact: LivekitFact): void => {
  const { roomName, room, participants } = namedBy(fact);
  touched.rooms.add(roomName);
  const live = touched.liveRooms.get(roomName) ?? { sids: new Set(), sessions: [], isWhole: false };
  touched.liveRooms.set(roomName, live);
  if (room !== null) live.sids.add(room.sid);
  // Two lives of a room in one chunk: the newer one ends whoever is left of the older.
  if (!('participant' in fact) || live.sids.size > 1) live.isWhole = true;
  for (const participant of participants) {
    if (room !== null)
      live.sessions.push({ roomSid: room.sid, participantSid: participant.sid, identity: participant.identity });
    const userId = signedUserOf(participant);
    if (userId !== null) touched.entering.add(userId);
  }
};

const touchRecord = (touched: Touched, { content, origin }: ChunkRecord): void => {
  switch (content.kind) {
    case 'skipped':
      return;
    case 'retry':
      touched.letters.push(content.letter);
      return;
    case 'dead': {
      touched.letters.push(origin);
      const roomId = RoomId.safeParse(content.unreadable.key);
      const userId = UserId.safeParse(content.unreadable.key);
      if (roomId.success) touched.rooms.add(roomId.data);
      if (userId.success) touched.users.add(userId.data);
      return;
    }
    case 'room_event':
      touchEvent(touched, content.event);
      return;
    case 'livekit':
      touchLive(touched, content.fact);
      return;
  }
};

export const touchedBy = (records: readonly ChunkRecord[]): Touched => {
  const touched: Touched = {
    rooms: new Set(),
    headers: new Set(),
    wholeRooms: new Map(),
    letters: [],
    members: new Map(),
    bans: new Map(),
    users: new Set(),
    logins: new Map(),
    entering: new Set(),
    liveRooms: new Map(),
  };
  for (const record of records) touchRecord(touched, record);
  return touched;
};
