import { topics } from '@realtime-service/contracts';
import {
  type BanFacts,
  type Facts,
  type MemberFacts,
  type OwnSession,
  type RoomFacts,
  recentlyLeftMs,
  wasRemoved,
} from '@realtime-service/room-model';
import pg from 'pg';
import { type BatchOptions, createBatcher } from './batch.ts';
import { assertPrimary, type Pool } from './database/database.ts';
import { toQuery } from './database/statement.ts';
import { activeProjection } from './positions.ts';

/** Whose facts, about which room. */
export interface FactsQuery {
  readonly roomId: string;
  readonly userId: string;
  readonly loginId: string | null;
}

/**
 * Facts of one snapshot; `facts.seats` is left null: seats are counted only under the room's seat lock. `facts.room`
 * is as a rule the same object while the room is unchanged, so that derived values may be kept by it in a WeakMap.
 */
export interface FactsAnswer {
  readonly facts: Facts;
  /** Whether the room is live in LiveKit, as far as is known. */
  readonly isRoomLive: boolean;
  /** The database's clock at the snapshot, milliseconds since the epoch. */
  readonly nowMs: number;
}

/** Doubts (`s`) that concern a person, by the SQL of whose they are. */
export const openDoubtsAbout = (roomId: string, userId: string, loginId: string): string =>
  `not s.is_healed and (
      (s.room_id = ${roomId} and s.user_id in ('', ${userId}))
      or (s.room_id = '' and s.user_id = ${userId} and (s.scope = 'user' or s.detail = ${loginId})))`;

/** A broken producer can leave a room thousands: so many may be about people, too, and no more of them are read. */
const doubtsAtMost = 1_000;

/** Sessions (`s`) that count: live ones, and those that ended a moment ago. */
export const isRecentSql = `(s.is_live or s.ended_at > statement_timestamp() - interval '${recentlyLeftMs} milliseconds')`;

/** How far the partitions of the room events are applied, in their order; once for all who ask. */
const standingSql = `case when q.at = 1 then (select array_agg(next_offset order by "partition")
      from log_positions where projection = '${activeProjection}' and topic = '${topics.roomEvents}') end`;

/** Told how far the partitions of the room events were applied where facts were read. */
export type NoteStanding = (nextOffsets: readonly bigint[]) => void;

const epochMs = (column: string): string => `extract(epoch from ${column})::float8 * 1000`;

/**
 * One statement, so one snapshot, for everybody who waits; every lookup goes by primary key or a narrow index. A room
 * is told as `RoomFacts`, in one column: many ask about the same one.
 */
const factsSql = `
  select pg_is_in_recovery() as is_replica, ${epochMs('statement_timestamp()')} as now_ms, ${standingSql} as standing,
    case when r.state is not null then json_build_object('roomId', r.room_id, 'state', r.state, 'name', r.name,
      'access', r.access, 'defaultRole', r.default_role, 'opensAtMs', ${epochMs('r.opens_at')}, 'closesAtMs', ${epochMs('r.closes_at')},
      'maxParticipants', r.max_participants, 'devicePolicy', r.device_policy, 'settings', r.settings,
      'isLocked', r.is_locked, 'closingReason', r.closing_reason) end as room,
    m.role, m.display_name, m.permissions, m.is_removed, m.removal_reason,
    u.is_disabled,
    exists (select from ended_logins l where l.user_id = q.user_id and l.login_id = q.login_id) as is_login_ended,
    (select case when bool_or(scope <> 'header') or count(*) = ${doubtsAtMost} then 'person' when count(*) > 0 then 'header' end
      from (select s.scope from suspects s
        where ${openDoubtsAbout('q.room_id', 'q.user_id', 'q.login_id')} limit ${doubtsAtMost}) as open) as doubt,
    (select jsonb_agg(jsonb_build_array(b.privilege, ${epochMs('b.until')}, b.reason))
      from bans b where b.room_id = q.room_id and b.user_id = q.user_id and not b.is_lifted) as bans,
    (select jsonb_agg(jsonb_build_array(s.identity, s.device_id, s.is_live, ${epochMs('s.ended_at')}, s.end_reason))
      from sessions s where s.room_id = q.room_id and s.user_id = q.user_id
        and ${isRecentSql}) as sessions,
    coalesce(life.is_live, false) as is_room_live
  from unnest($1::opaque_id[], $2::opaque_id[], $3::text[]) with ordinality as q (room_id, user_id, login_id, at)
    left join rooms r on r.room_id = q.room_id and r.event_id is not null
    left join members m on m.room_id = q.room_id and m.user_id = q.user_id
    left join users u on u.user_id = q.user_id and u.event_id is not null
    left join room_lives life on life.room_id = q.room_id
  order by q.at`;

interface FactsRow {
  readonly is_replica: boolean;
  readonly now_ms: number;
  /** Null but in the first row, and before anything was applied. */
  readonly standing: readonly string[] | null;
  readonly room: RoomFacts | null;
  readonly role: MemberFacts['role'];
  readonly display_name: string | null;
  readonly permissions: MemberFacts['permissions'];
  /** Null where there is no member. */
  readonly is_removed: boolean | null;
  readonly removal_reason: string | null;
  readonly is_disabled: boolean | null;
  readonly is_login_ended: boolean;
  readonly doubt: Facts['doubt'];
  readonly bans: readonly (readonly [BanFacts['privilege'], number | null, string | null])[] | null;
  readonly sessions: readonly (readonly [string, string | null, boolean, number | null, string | null])[] | null;
  readonly is_room_live: boolean;
}

const memberOf = ({ role, display_name, permissions, is_removed, removal_reason }: FactsRow): MemberFacts | null =>
  is_removed === null
    ? null
    : { role, displayName: display_name, permissions, isRemoved: is_removed, removalReason: removal_reason };

const sessionsOf = (row: FactsRow): OwnSession[] =>
  (row.sessions ?? []).map(([identity, deviceId, isLive, endedAtMs, endReason]) => ({
    identity,
    deviceId,
    isLive,
    endedAtMs,
    wasRemoved: wasRemoved({ endReason }),
  }));

const answerOf = (row: FactsRow): FactsAnswer => ({
  facts: {
    room: row.room,
    member: memberOf(row),
    bans: (row.bans ?? []).map(([privilege, untilMs, reason]) => ({ privilege, untilMs, reason })),
    user: row.is_disabled === null ? null : { isDisabled: row.is_disabled },
    isLoginEnded: row.is_login_ended,
    doubt: row.doubt,
    ownSessions: sessionsOf(row),
    seats: null,
  },
  isRoomLive: row.is_room_live,
  nowMs: row.now_ms,
});

/** Texts of rooms that were read before; there are as many as rooms that are in use, and versions of them. */
const maxKnownRooms = 2_000;
const knownRooms = new Map<string, RoomFacts>();

/** What the same text says is read once. */
const readRoom = (text: string): RoomFacts => {
  let room = knownRooms.get(text);
  if (room === undefined) {
    room = JSON.parse(text) as RoomFacts;
    if (knownRooms.size === maxKnownRooms) knownRooms.clear();
    knownRooms.set(text, room);
  }
  return room;
};

/** The one column of type `json` is the room. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (type: number) => (type === pg.types.builtins.JSON ? readRoom : pg.types.getTypeParser(type)),
};

/** Reads facts of many at once, in the order asked, from one snapshot of the primary. */
export const readFacts = async (
  database: Pick<Pool, 'query'>,
  queries: readonly FactsQuery[],
  noteStanding: NoteStanding = () => {},
): Promise<FactsAnswer[]> => {
  const columns = [
    queries.map(({ roomId }) => roomId),
    queries.map(({ userId }) => userId),
    queries.map(({ loginId }) => loginId),
  ];
  const { rows } = await database.query<FactsRow>({
    ...toQuery(factsSql, columns, database),
    types,
  });
  assertPrimary(rows[0]?.is_replica);
  noteStanding((rows[0]?.standing ?? []).map(BigInt));
  return rows.map(answerOf);
};

/**
 * Facts for whoever asks, many at once in one query, so that freshness costs little. A question never joins a query
 * that is under way: its answer could miss a removal that was committed before the question was asked.
 */
export const createFactsReader = (
  read: (queries: readonly FactsQuery[]) => Promise<readonly FactsAnswer[]>,
  options: BatchOptions,
): ((query: FactsQuery) => Promise<FactsAnswer>) => createBatcher(read, options);
