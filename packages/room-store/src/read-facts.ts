import {
  type BanFacts,
  type Facts,
  type MemberFacts,
  type OwnSession,
  type RoomFacts,
  recentlyLeftMs,
} from '@realtime-service/room-model';
import { removedReason } from './apply/chunk-writes.ts';
import { type BatchOptions, createBatcher } from './batch.ts';
import { type Pool, preparedAs } from './database/database.ts';

/** Whose facts, about which room. */
export interface FactsQuery {
  readonly roomId: string;
  readonly userId: string;
  readonly loginId: string | null;
}

/** Facts of one snapshot; `facts.seats` is left null: seats are counted only under the room's seat lock. */
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

/** Sessions (`s`) that count: live ones, and those that ended a moment ago. */
export const isOfLate = `(s.is_live or s.ended_at > statement_timestamp() - interval '${recentlyLeftMs} milliseconds')`;

/** One statement, so one snapshot, for everybody who waits; every lookup goes by primary key or a narrow index. */
const factsSql = `
  select extract(epoch from statement_timestamp())::float8 * 1000 as now_ms,
    r.state, r.name, r.access, r.default_role, r.max_participants, r.device_policy, r.settings, r.is_locked, r.closing_reason,
    extract(epoch from r.opens_at)::float8 * 1000 as opens_at_ms, extract(epoch from r.closes_at)::float8 * 1000 as closes_at_ms,
    m.user_id is not null as has_member, m.role, m.display_name, m.permissions, m.is_removed, m.removal_reason,
    u.is_disabled,
    exists (select from ended_logins l where l.user_id = q.user_id and l.login_id = q.login_id) as is_login_ended,
    exists (select from suspects s where ${openDoubtsAbout('q.room_id', 'q.user_id', 'q.login_id')}) as is_suspect,
    (select jsonb_agg(jsonb_build_array(b.privilege, extract(epoch from b.until)::float8 * 1000, b.reason))
      from bans b where b.room_id = q.room_id and b.user_id = q.user_id and not b.is_lifted) as bans,
    (select jsonb_agg(jsonb_build_array(s.identity, s.device_id, s.is_live, extract(epoch from s.ended_at)::float8 * 1000, s.end_reason))
      from sessions s where s.room_id = q.room_id and s.user_id = q.user_id
        and ${isOfLate}) as sessions,
    coalesce(life.is_live, false) as is_room_live
  from unnest($1::opaque_id[], $2::opaque_id[], $3::text[]) with ordinality as q (room_id, user_id, login_id, at)
    left join rooms r on r.room_id = q.room_id and r.event_id is not null
    left join members m on m.room_id = q.room_id and m.user_id = q.user_id
    left join users u on u.user_id = q.user_id and u.event_id is not null
    left join room_lives life on life.room_id = q.room_id
  order by q.at`;

interface FactsRow {
  readonly now_ms: number;
  readonly state: RoomFacts['state'] | null;
  readonly name: string | null;
  readonly access: RoomFacts['access'];
  readonly default_role: RoomFacts['defaultRole'];
  readonly max_participants: number | null;
  readonly device_policy: RoomFacts['devicePolicy'];
  readonly settings: RoomFacts['settings'];
  readonly is_locked: boolean;
  readonly closing_reason: string | null;
  readonly opens_at_ms: number | null;
  readonly closes_at_ms: number | null;
  readonly has_member: boolean;
  readonly role: MemberFacts['role'];
  readonly display_name: string | null;
  readonly permissions: MemberFacts['permissions'];
  readonly is_removed: boolean;
  readonly removal_reason: string | null;
  readonly is_disabled: boolean | null;
  readonly is_login_ended: boolean;
  readonly is_suspect: boolean;
  readonly bans: readonly (readonly [BanFacts['privilege'], number | null, string | null])[] | null;
  readonly sessions: readonly (readonly [string, string | null, boolean, number | null, string | null])[] | null;
  readonly is_room_live: boolean;
}

const roomOf = (row: FactsRow, roomId: string): RoomFacts | null =>
  row.state === null
    ? null
    : {
        roomId,
        state: row.state,
        name: row.name,
        access: row.access,
        defaultRole: row.default_role,
        opensAtMs: row.opens_at_ms,
        closesAtMs: row.closes_at_ms,
        maxParticipants: row.max_participants,
        devicePolicy: row.device_policy,
        settings: row.settings,
        isLocked: row.is_locked,
        closingReason: row.closing_reason,
      };

const memberOf = (row: FactsRow): MemberFacts | null =>
  row.has_member
    ? {
        role: row.role,
        displayName: row.display_name,
        permissions: row.permissions,
        isRemoved: row.is_removed,
        removalReason: row.removal_reason,
      }
    : null;

const sessionsOf = (row: FactsRow): OwnSession[] =>
  (row.sessions ?? []).map(([identity, deviceId, isLive, endedAtMs, endReason]) => ({
    identity,
    deviceId,
    isLive,
    endedAtMs,
    wasRemoved: endReason === removedReason,
  }));

const answerOf = (row: FactsRow, { roomId }: FactsQuery): FactsAnswer => ({
  facts: {
    room: roomOf(row, roomId),
    member: memberOf(row),
    bans: (row.bans ?? []).map(([privilege, untilMs, reason]) => ({ privilege, untilMs, isLifted: false, reason })),
    user: row.is_disabled === null ? null : { isDisabled: row.is_disabled },
    isLoginEnded: row.is_login_ended,
    isSuspect: row.is_suspect,
    ownSessions: sessionsOf(row),
    seats: null,
  },
  isRoomLive: row.is_room_live,
  nowMs: row.now_ms,
});

interface Queryable {
  query: Pool['query'];
}

/** Reads facts of many at once, in the order asked, from one snapshot. */
export const readFacts = async (database: Queryable, queries: readonly FactsQuery[]): Promise<FactsAnswer[]> => {
  const { rows } = await database.query<FactsRow>({
    ...preparedAs('facts', database),
    text: factsSql,
    values: [
      queries.map(({ roomId }) => roomId),
      queries.map(({ userId }) => userId),
      queries.map(({ loginId }) => loginId),
    ],
  });
  return queries.map((query, at) => answerOf(rows[at] as FactsRow, query));
};

export type ReadFacts = (queries: readonly FactsQuery[]) => Promise<readonly FactsAnswer[]>;

/**
 * Facts for whoever asks, many at once in one query, so that freshness costs little. A question never joins a query that
 * is under way: its answer could miss a removal that was committed before the question was asked.
 */
export const createFactsReader = (
  read: ReadFacts,
  options: BatchOptions,
): ((query: FactsQuery) => Promise<FactsAnswer>) => createBatcher<FactsQuery, FactsAnswer>(read, options);
