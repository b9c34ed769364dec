import type { MemberFacts, RoomLife, Session } from '@realtime-service/room-model';
import type { Pool } from './database/database.ts';
import { isSeenSql } from './database/rows.ts';
import { toQuery } from './database/statement.ts';

/** A room that is believed to be live in LiveKit, and who is in it, as far as a sweep compares it. */
export interface LiveRoom extends Pick<RoomLife, 'roomId' | 'roomSid'> {
  readonly sessions: readonly Pick<Session, 'participantSid' | 'isHidden' | 'lastFactAtMs'>[];
}

/** By an index: every room that ever was live is kept. */
export const readLiveRoomIds = async (database: Pick<Pool, 'query'>): Promise<string[]> => {
  const { rows } = await database.query<Pick<LiveRoom, 'roomId'>>(
    'select room_id as "roomId" from room_lives where is_live',
  );
  return rows.map(({ roomId }) => roomId);
};

interface LiveRow extends Pick<LiveRoom, 'roomId' | 'roomSid'> {
  /** Null in a room without people. */
  readonly participantSid: string | null;
  readonly isHidden: boolean;
  readonly lastFactAtMs: number;
}

/**
 * Those of these rooms that are believed to be live, from one snapshot. The columns are those that a sweep needs and
 * come as they are: it reads thousands of rows. The life is no part of the join, so that this goes by the index of live
 * sessions, not through all that a long life has seen.
 */
export const readLiveRooms = async (pool: Pool, roomIds: readonly string[]): Promise<LiveRoom[]> => {
  const { rows } = await pool.query<LiveRow>(
    toQuery(
      `
      select l.room_id as "roomId", l.room_sid as "roomSid",
        case when s.room_sid = l.room_sid then s.participant_sid end as "participantSid",
        s.is_hidden as "isHidden",
        (extract(epoch from s.last_fact_at) * 1000)::float8 as "lastFactAtMs"
      from room_lives l left join sessions s on s.room_id = l.room_id and s.is_live
      where l.is_live and l.room_id = any($1::opaque_id[])`,
      [roomIds],
      pool,
    ),
  );
  const rooms = new Map<string, LiveRoom & { readonly sessions: LiveRoom['sessions'][number][] }>();
  for (const { roomId, roomSid, participantSid, ...session } of rows) {
    const room = rooms.get(roomId) ?? { roomId, roomSid, sessions: [] };
    if (participantSid !== null) room.sessions.push({ participantSid, ...session });
    rooms.set(roomId, room);
  }
  return [...rooms.values()];
};

/** Whose session it is, as our signed attributes said when it began. */
export type SessionOwner = Pick<Session, 'userId' | 'deviceId' | 'loginId'>;

/** Whose live session this is; null where it is not known. */
export const readSessionOwner = async (
  pool: Pool,
  { roomId, identity, participantSid }: Pick<Session, 'roomId' | 'identity' | 'participantSid'>,
): Promise<SessionOwner | null> => {
  const { rows } = await pool.query<SessionOwner>(
    `select user_id as "userId", device_id as "deviceId", login_id as "loginId" from sessions
      where room_id = $1 and identity = $2 and participant_sid = $3 and is_live`,
    [roomId, identity, participantSid],
  );
  return rows[0] ?? null;
};

/** Whether somebody is believed to be inside by this identity. */
export const isInside = async (
  pool: Pool,
  { roomId, identity }: Pick<Session, 'roomId' | 'identity'>,
): Promise<boolean> => {
  const { rowCount } = await pool.query(
    'select from sessions where room_id = $1 and identity = $2 and is_live limit 1',
    [roomId, identity],
  );
  return rowCount === 1;
};

/** Somebody inside, as members see it. */
export interface PresentPerson extends Pick<Session, 'identity' | 'participantSid' | 'userId' | 'joinedAtMs'> {
  readonly member: MemberFacts | null;
}

interface PresentRow {
  readonly identity: string;
  readonly participant_sid: string;
  readonly user_id: string | null;
  readonly joined_at: Date;
  readonly has_member: boolean;
  readonly role: MemberFacts['role'];
  readonly display_name: string | null;
  readonly permissions: MemberFacts['permissions'];
  readonly is_removed: boolean;
}

/**
 * The people whom everybody in a room sees, in the order in which they came, at most `limit`: machines and hidden
 * people are not among them. Where an identity is given, its newest session alone.
 */
export const readPresentPeople = async (
  pool: Pool,
  roomId: string,
  { identity, limit }: { readonly identity: string | null; readonly limit: number },
): Promise<PresentPerson[]> => {
  const { rows } = await pool.query<PresentRow>(
    toQuery(
      `
      select s.identity, s.participant_sid, s.user_id, s.joined_at,
        m.user_id is not null as has_member, m.role, m.display_name, m.permissions, m.is_removed
      from sessions s left join members m on m.room_id = s.room_id and m.user_id = s.user_id
      where s.room_id = $1 and s.is_live and ${isSeenSql}
        and ($2::opaque_id is null or (s.identity = $2 and s.joined_at =
          (select max(joined_at) from sessions where room_id = $1 and identity = $2 and is_live)))
      order by s.joined_at, s.participant_sid limit $3`,
      [roomId, identity, limit],
      pool,
    ),
  );
  return rows.map((row) => ({
    identity: row.identity,
    participantSid: row.participant_sid,
    userId: row.user_id,
    joinedAtMs: row.joined_at.getTime(),
    member: row.has_member
      ? { role: row.role, displayName: row.display_name, permissions: row.permissions, isRemoved: row.is_removed }
      : null,
  }));
};
