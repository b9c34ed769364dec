import type { PresenceEvent } from '@realtime-service/contracts';
import {
  type Ban,
  type Edge,
  type EndedLogin,
  isSeen,
  keyOf,
  keyOfSuspect,
  type Member,
  type PresenceChange,
  type RoomChange,
  type RoomHeader,
  type RoomLife,
  type Session,
  type Suspect,
  sessionOwner,
  type User,
  type WorkingSet,
  wasRemoved,
} from '@realtime-service/room-model';
import type { ChunkRecord, OutboxEvent } from './chunk.ts';

/** Why a session should be looked at, and since when. */
interface Cause {
  readonly cause: string;
  readonly causedAtMs: number;
  readonly trace: string | null;
}

/** How long an order that concerns one session is worth carrying out, from its fact's time, which may not lie ahead. */
export const edgeLifeSeconds = 60;

/**
 * The ways in which a fact concerns sessions, each with its outer and inner id: `room` (room id), `identity` (room id,
 * identity), and by their user those that are live: `member` (room id, user id), `user` (user id), `login` (user id,
 * login id).
 */
const concerns = ['room', 'identity', 'member', 'user', 'login'] as const;
export type Concern = (typeof concerns)[number];

/** Sessions that should be looked at, and why. */
export interface RaisedMark extends Cause {
  readonly concern: Concern;
  readonly outerId: string;
  /** '' where there is none. */
  readonly innerId: string;
}

/** By what the domain says of somebody; not by what LiveKit tells of a session, which its person can bring about. */
export const isByFact = ({ concern }: RaisedMark): boolean => concern !== 'identity' && concern !== 'room';

/**
 * Collects what a chunk's fold changed: the last row of each entity, and what follows from the changes (marks, outbox,
 * dead letters). The store writes it.
 */
export class ChunkWrites {
  readonly sessions = new Map<string, Session>();
  readonly lives = new Map<string, RoomLife>();
  readonly suspects = new Map<string, Suspect>();
  readonly logins = new Map<string, EndedLogin>();
  readonly users = new Map<string, User>();
  readonly bans = new Map<string, Ban>();
  readonly members = new Map<string, Member>();
  readonly rooms = new Map<string, RoomHeader>();
  readonly edges: { row: Edge; trace: string | null }[] = [];
  readonly outbox: OutboxEvent[] = [];
  /** Each with the time from which the identity of its fact counts. */
  readonly records: ChunkRecord[] = [];
  readonly marks = new Map<string, RaisedMark>();
  readonly #raisesMarks: boolean;

  constructor(raisesMarks = true) {
    this.#raisesMarks = raisesMarks;
  }

  /** `before` is the state that the change was folded from. */
  add(change: RoomChange | PresenceChange, before: WorkingSet, record: ChunkRecord): void {
    const { entity, row } = change;
    const cause: Cause = { cause: causeOf(record), causedAtMs: record.origin.timeMs, trace: record.trace };
    switch (entity) {
      case 'room':
        this.rooms.set(row.roomId, row);
        if (changesRights(before.rooms.get(row.roomId), row)) this.#mark('room', row.roomId, '', cause);
        return;
      case 'member':
        this.members.set(keyOf(row.roomId, row.userId), row);
        this.#mark('member', row.roomId, row.userId, cause);
        return;
      case 'ban':
        this.bans.set(keyOf(row.roomId, row.userId, row.privilege), row);
        this.#mark('member', row.roomId, row.userId, cause);
        return;
      case 'user':
        this.users.set(row.userId, row);
        this.#mark('user', row.userId, '', cause);
        return;
      case 'login':
        this.logins.set(keyOf(row.userId, row.loginId), row);
        this.#mark('login', row.userId, row.loginId, cause);
        return;
      case 'suspect':
        this.suspects.set(keyOfSuspect(row), row);
        return;
      case 'edge':
        this.edges.push({ row, trace: record.trace });
        return;
      case 'life':
        this.lives.set(row.roomId, row);
        // Whether the domain knows it, and when it ends, is asked about each life.
        if (row.isLive && !isSameLife(before.lives.get(row.roomId), row))
          this.#mark('room', row.roomId, '', { ...cause, causedAtMs: record.recordedAtMs });
        this.#announceLife(before.lives.get(row.roomId), row, record);
        return;
      case 'session':
        this.sessions.set(keyOf(row.roomId, row.roomSid, row.participantSid), row);
        this.#announceSession(before.session(row.roomId, row.roomSid, row.participantSid), row, record);
        return;
    }
  }

  /** Called once per record, after its changes. */
  addRecord(record: ChunkRecord): void {
    const { countsFromMs } = record;
    this.records.push(countsFromMs === undefined ? record : { ...record, recordedAtMs: countsFromMs });
    const { content } = record;
    if (content.kind !== 'livekit') return;
    const { fact } = content;
    const cause: Cause = { cause: causeOf(record), causedAtMs: record.recordedAtMs, trace: record.trace };
    // Every entry is looked at, whatever token brought it in; so is whoever publishes one kind of media under a source
    // of the other, and every identity that a list shows otherwise than expected.
    if (
      fact.type === 'participant_joined' ||
      fact.type === 'participant_connection_aborted' ||
      fact.type === 'track_published'
    )
      this.#mark('identity', fact.room.name, fact.participant.identity, cause);
    if (fact.type === 'observed')
      for (const { identity } of fact.observed.participants)
        this.#mark('identity', fact.observed.roomName, identity, cause);
  }

  #mark(concern: Concern, outerId: string, innerId: string, cause: Cause): void {
    if (!this.#raisesMarks) return;
    const key = keyOf(concern, outerId, innerId);
    // The oldest cause: it is what somebody waits for.
    if (!this.marks.has(key)) this.marks.set(key, { concern, outerId, innerId, ...cause });
  }

  /** `sid` of what changed, with the record that changed it, makes the id: one per real change, the same in repeats. */
  #announce({ type, roomId, data }: PresenceEvent, sid: string, record: ChunkRecord): void {
    this.outbox.push({
      roomId,
      eventId: `${type}:${sid}:${record.origin.offset}`,
      type,
      occurredAtMs: record.recordedAtMs,
      data,
      trace: record.trace,
    });
  }

  #announceLife(before: RoomLife | undefined, row: RoomLife, record: ChunkRecord): void {
    const wasLive = isSameLife(before, row);
    if (before?.isLive && before.roomSid !== row.roomSid)
      this.#announce(lifeEvent('room.live_ended', before), before.roomSid, record);
    if (row.isLive && !wasLive) this.#announce(lifeEvent('room.live_started', row), row.roomSid, record);
    if (!row.isLive && wasLive) this.#announce(lifeEvent('room.live_ended', row), row.roomSid, record);
  }

  #announceSession(before: Session | undefined, row: Session, record: ChunkRecord): void {
    const wasThere = before !== undefined && isThere(before);
    if (isThere(row) === wasThere) return;
    const { roomSid, participantSid } = row;
    const session = { roomSid, ...sessionOwner(row) };
    if (!wasThere) {
      this.#announce({ type: 'participant.joined', roomId: row.roomId, data: session }, participantSid, record);
      return;
    }
    const reason = row.endReason ?? 'hidden';
    const type = wasRemoved(row) ? 'participant.removed' : 'participant.left';
    this.#announce({ type, roomId: row.roomId, data: { ...session, reason } }, participantSid, record);
  }
}

/** For all that others see. */
const isThere = (session: Session): boolean => session.isLive && isSeen(session);

const lifeEvent = (type: 'room.live_started' | 'room.live_ended', { roomId, roomSid }: RoomLife): PresenceEvent => ({
  type,
  roomId,
  data: { roomSid },
});

/** Whether this life was known to be live. */
const isSameLife = (before: RoomLife | undefined, { roomSid }: RoomLife): boolean =>
  before?.roomSid === roomSid && before.isLive;

/** Whether a header's change can concern people who are inside. */
const changesRights = (before: RoomHeader | undefined, row: RoomHeader): boolean =>
  before === undefined ||
  before.state !== row.state ||
  before.access !== row.access ||
  before.closesAtMs !== row.closesAtMs ||
  before.defaultRole !== row.defaultRole;

const causeOf = ({ content }: ChunkRecord): string => {
  switch (content.kind) {
    case 'room_event':
      return content.event.type;
    case 'livekit':
      return content.fact.type;
    case 'dead':
    case 'retry':
    case 'skipped':
      return content.kind;
  }
};
