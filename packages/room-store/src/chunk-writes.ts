import type { PresenceEvent, PresenceEventType } from '@realtime-service/contracts';
import {
  type Ban,
  type Edge,
  type EndedLogin,
  keyOf,
  type Member,
  type PresenceChange,
  type RoomChange,
  type RoomHeader,
  type RoomLife,
  type Session,
  type Suspect,
  type User,
  type WorkingSet,
} from '@realtime-service/room-model';
import type { ChunkRecord } from './chunk.ts';
import type { Client } from './database.ts';
import {
  banTable,
  endedLoginTable,
  lifeTable,
  memberTable,
  roomTable,
  sessionTable,
  suspectTable,
  upsert,
  userTable,
} from './rows.ts';

/** Why a session should be looked at, and since when. */
interface Cause {
  readonly cause: string;
  readonly causedAtMs: number;
  readonly trace: string | null;
}

interface OutboxRow {
  readonly roomId: string;
  readonly eventId: string;
  readonly type: PresenceEventType;
  readonly occurredAtMs: number;
  readonly data: unknown;
  readonly trace: string | null;
}

/** How long an order that concerns one session is worth carrying out. */
const edgeLifeSeconds = 60;

/** What the marks' selection joins: each list is one way in which a fact concerns sessions. */
const concerns = ['room', 'identity', 'member', 'user', 'login'] as const;
type Concern = (typeof concerns)[number];

/**
 * Collects what a chunk's fold changed: the last row of each entity, and what follows from the changes (marks, outbox,
 * dead letters). Written in a fixed order of tables.
 */
export class ChunkWrites {
  readonly #rooms = new Map<string, RoomHeader>();
  readonly #members = new Map<string, Member>();
  readonly #bans = new Map<string, Ban>();
  readonly #users = new Map<string, User>();
  readonly #logins = new Map<string, EndedLogin>();
  readonly #suspects = new Map<string, Suspect>();
  readonly #lives = new Map<string, RoomLife>();
  readonly #sessions = new Map<string, Session>();
  readonly #edges: { row: Edge; trace: string | null }[] = [];
  readonly #outbox: OutboxRow[] = [];
  readonly #records: ChunkRecord[] = [];
  readonly #marks: Record<Concern, Map<string, readonly [string, string, Cause]>> = {
    room: new Map(),
    identity: new Map(),
    member: new Map(),
    user: new Map(),
    login: new Map(),
  };

  /** `before` is the state that the change was folded from. */
  add(change: RoomChange | PresenceChange, before: WorkingSet, record: ChunkRecord): void {
    const { entity, row } = change;
    const cause: Cause = { cause: causeOf(record), causedAtMs: record.origin.timeMs, trace: record.trace };
    switch (entity) {
      case 'room':
        this.#rooms.set(row.roomId, row);
        if (changesRights(before.rooms.get(row.roomId), row)) this.#mark('room', row.roomId, '', cause);
        return;
      case 'member':
        this.#members.set(keyOf(row.roomId, row.userId), row);
        this.#mark('member', row.roomId, row.userId, cause);
        return;
      case 'ban':
        this.#bans.set(keyOf(row.roomId, row.userId, row.privilege), row);
        this.#mark('member', row.roomId, row.userId, cause);
        return;
      case 'user':
        this.#users.set(row.userId, row);
        this.#mark('user', row.userId, '', cause);
        return;
      case 'login':
        this.#logins.set(keyOf(row.userId, row.loginId), row);
        this.#mark('login', row.userId, row.loginId, cause);
        return;
      case 'suspect':
        this.#suspects.set(keyOf(row.scope, row.roomId, row.userId), row);
        return;
      case 'edge':
        this.#edges.push({ row, trace: record.trace });
        return;
      case 'life':
        this.#lives.set(row.roomId, row);
        this.#announceLife(before.lives.get(row.roomId), row, record);
        return;
      case 'session':
        this.#sessions.set(keyOf(row.roomId, row.roomSid, row.participantSid), row);
        this.#announceSession(before.session(row.roomId, row.roomSid, row.participantSid), row, record);
        return;
    }
  }

  /** Called once per record, after its changes. */
  addRecord(record: ChunkRecord): void {
    this.#records.push(record);
    const { content } = record;
    if (content.kind !== 'livekit') return;
    const { fact } = content;
    const cause: Cause = { cause: causeOf(record), causedAtMs: record.recordedAtMs, trace: record.trace };
    // Every entry is looked at, whatever token brought it in; so is every identity that a list shows otherwise than expected.
    if (fact.type === 'participant_joined' || fact.type === 'participant_connection_aborted')
      this.#mark('identity', fact.room.name, fact.participant.identity, cause);
    if (fact.type === 'room_started') this.#mark('room', fact.room.name, '', cause);
    if (fact.type === 'observed')
      for (const { identity } of fact.observed.participants)
        this.#mark('identity', fact.observed.roomName, identity, cause);
  }

  #mark(concern: Concern, left: string, right: string, cause: Cause): void {
    const key = keyOf(left, right);
    // The oldest cause: it is what somebody waits for.
    if (!this.#marks[concern].has(key)) this.#marks[concern].set(key, [left, right, cause]);
  }

  /** `sid` of what changed, with the record that changed it, makes the id: one per real change, the same in repeats. */
  #announce({ type, roomId, data }: PresenceEvent, sid: string, record: ChunkRecord): void {
    this.#outbox.push({
      roomId,
      eventId: `${type}:${sid}:${record.origin.offset}`,
      type,
      occurredAtMs: record.recordedAtMs,
      data,
      trace: record.trace,
    });
  }

  #announceLife(before: RoomLife | undefined, row: RoomLife, record: ChunkRecord): void {
    const wasLive = before?.roomSid === row.roomSid && before.isLive;
    if (before?.isLive && before.roomSid !== row.roomSid)
      this.#announce(lifeEvent('room.live_ended', before), before.roomSid, record);
    if (row.isLive && !wasLive) this.#announce(lifeEvent('room.live_started', row), row.roomSid, record);
    if (!row.isLive && wasLive) this.#announce(lifeEvent('room.live_ended', row), row.roomSid, record);
  }

  #announceSession(before: Session | undefined, row: Session, record: ChunkRecord): void {
    if (row.kind !== 'STANDARD' || row.isHidden) return;
    const { roomSid, participantSid, identity, userId, deviceId } = row;
    const session = {
      roomSid,
      participantSid,
      identity,
      ...(userId === null ? {} : { userId }),
      ...(deviceId === null ? {} : { deviceId }),
    };
    const wasLive = before?.isLive ?? false;
    if (row.isLive && !wasLive)
      this.#announce({ type: 'participant.joined', roomId: row.roomId, data: session }, participantSid, record);
    if (row.isLive || !wasLive) return;
    const reason = row.endReason ?? 'UNKNOWN_REASON';
    const type = wasRemoved(row) ? 'participant.removed' : 'participant.left';
    this.#announce({ type, roomId: row.roomId, data: { ...session, reason } }, participantSid, record);
  }

  /** Writes everything; to be called under the locks that the rows were read under. */
  async flush(client: Client): Promise<{ marks: number; outbox: number }> {
    await upsert(client, roomTable, [...this.#rooms.values()]);
    await upsert(client, memberTable, [...this.#members.values()]);
    await upsert(client, banTable, [...this.#bans.values()]);
    await upsert(client, userTable, [...this.#users.values()]);
    await upsert(client, endedLoginTable, [...this.#logins.values()]);
    await upsert(client, suspectTable, [...this.#suspects.values()]);
    await upsert(client, lifeTable, [...this.#lives.values()]);
    await upsert(client, sessionTable, [...this.#sessions.values()]);
    await this.#writeAppliedFacts(client);
    await this.#writeDeadLetters(client);
    await this.#writeEdges(client);
    const marks = await this.#writeMarks(client);
    await this.#writeOutbox(client);
    return { marks: marks + this.#edges.length, outbox: this.#outbox.length };
  }

  async #writeAppliedFacts(client: Client): Promise<void> {
    const facts = this.#records.filter(({ factKey }) => factKey !== null);
    const [first] = facts;
    if (first === undefined) return;
    await client.query(
      `insert into applied_facts (topic, "partition", fact_key, recorded_at)
        select $1, $2, fact_key, recorded_at from unnest($3::bytea[], $4::timestamptz[]) as fact (fact_key, recorded_at)`,
      [
        first.origin.topic,
        first.origin.partition,
        facts.map(({ factKey }) => factKey),
        facts.map(({ recordedAtMs }) => new Date(recordedAtMs)),
      ],
    );
  }

  async #writeDeadLetters(client: Client): Promise<void> {
    for (const { content, origin, recordedAtMs } of this.#records) {
      if (content.kind !== 'dead') continue;
      const { key, value, headers, reason, message } = content.dead;
      // A name with NUL cannot be stored as JSON, and must not keep its record from becoming a dead letter.
      const encoded = Object.fromEntries(
        Object.entries(headers).map(([name, bytes]) => [name.replaceAll('\0', '\uFFFD'), bytes.toString('base64')]),
      );
      await client.query(
        `insert into dead_letters (topic, "partition", "offset", recorded_at, key, value, headers, reason, message)
          values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing`,
        [
          origin.topic,
          origin.partition,
          origin.offset.toString(),
          new Date(recordedAtMs),
          key,
          value,
          JSON.stringify(encoded),
          reason,
          message,
        ],
      );
    }
  }

  async #writeEdges(client: Client): Promise<void> {
    for (const { row, trace } of this.#edges)
      await client.query(
        `insert into edges (kind, room_id, identity, participant_sid, track_sid, requested_by, trace, expires_at)
          values ($1, $2, $3, $4, $5, $6, $7, $8::timestamptz + make_interval(secs => ${edgeLifeSeconds}))`,
        [
          row.kind,
          row.roomId,
          row.identity,
          row.participantSid,
          row.trackSid,
          row.by,
          trace,
          new Date(row.origin.timeMs),
        ],
      );
  }

  /** One statement, sorted, so that lanes which meet in a room's marks wait for each other in one order. */
  async #writeMarks(client: Client): Promise<number> {
    const rows = concerns.flatMap((concern) =>
      [...this.#marks[concern].values()].map(([left, right, cause]) => ({ concern, left, right, ...cause })),
    );
    if (rows.length === 0) return 0;
    const { rowCount } = await client.query(
      `with concern as (
          select * from unnest($1::text[], $2::opaque_id[], $3::opaque_id[], $4::text[], $5::timestamptz[], $6::text[])
            as c (concern, a, b, cause, caused_at, trace)),
        affected as (
          select a as room_id, b as identity, cause, caused_at, trace from concern where concern in ('room', 'identity')
          union all
          select s.room_id, s.identity, cause, caused_at, c.trace from concern c
            join sessions s on s.room_id = c.a and s.user_id = c.b and s.is_live where concern = 'member'
          union all
          select s.room_id, s.identity, cause, caused_at, c.trace from concern c
            join sessions s on s.user_id = c.a and s.is_live where concern = 'user'
          union all
          select s.room_id, s.identity, cause, caused_at, c.trace from concern c
            join sessions s on s.user_id = c.a and s.login_id = c.b and s.is_live where concern = 'login')
        insert into marks (room_id, identity, cause, caused_at, trace, due_at)
          select distinct on (room_id, identity) room_id, identity, cause, caused_at, trace, clock_timestamp()
            from affected order by room_id, identity, caused_at
          on conflict (room_id, identity) do update set
            generation = marks.generation + 1, cause = excluded.cause, trace = excluded.trace, attempts = 0,
            caused_at = least(marks.caused_at, excluded.caused_at), due_at = excluded.due_at`,
      [
        rows.map(({ concern }) => concern),
        rows.map(({ left }) => left),
        rows.map(({ right }) => right),
        rows.map(({ cause }) => cause),
        rows.map(({ causedAtMs }) => new Date(causedAtMs)),
        rows.map(({ trace }) => trace),
      ],
    );
    return rowCount ?? 0;
  }

  async #writeOutbox(client: Client): Promise<void> {
    if (this.#outbox.length === 0) return;
    await client.query(
      `insert into outbox (room_id, event_id, type, occurred_at, data, trace)
        select * from unnest($1::opaque_id[], $2::text[], $3::text[], $4::timestamptz[], $5::jsonb[], $6::text[])`,
      [
        this.#outbox.map(({ roomId }) => roomId),
        this.#outbox.map(({ eventId }) => eventId),
        this.#outbox.map(({ type }) => type),
        this.#outbox.map(({ occurredAtMs }) => new Date(occurredAtMs)),
        this.#outbox.map(({ data }) => JSON.stringify(data)),
        this.#outbox.map(({ trace }) => trace),
      ],
    );
  }
}

/** LiveKit's reason for a session that RoomService ended. */
export const removedReason = 'PARTICIPANT_REMOVED';
const wasRemoved = ({ endReason }: Session): boolean => endReason === removedReason;

const lifeEvent = (type: 'room.live_started' | 'room.live_ended', { roomId, roomSid }: RoomLife): PresenceEvent => ({
  type,
  roomId,
  data: { roomSid },
});

/** Whether a header's change can concern people who are inside. */
const changesRights = (before: RoomHeader | undefined, row: RoomHeader): boolean =>
  before === undefined ||
  before.state !== row.state ||
  before.access !== row.access ||
  before.defaultRole !== row.defaultRole;

const causeOf = ({ content }: ChunkRecord): string => {
  switch (content.kind) {
    case 'room_event':
      return content.event.type;
    case 'livekit':
      return content.fact.type;
    case 'dead':
    case 'skipped':
      return content.kind;
  }
};
