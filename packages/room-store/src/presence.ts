import type { MemberFacts, RoomLife, Session } from '@realtime-service/room-model';
import { type Pool, preparedAs } from './database/database.ts';

/** What is believed to be live in LiveKit, as far as a sweep compares it. */
export interface LivePresence {
  readonly lives: readonly Pick<RoomLife, 'roomId' | 'roomSid'>[];
  readonly sessions: readonly Pick<Session, 'roomId' | 'roomSid' | 'participantSid' | 'identity' | 'lastFactAtMs'>[];
}

/**
 * Everything that is believed to be live, for the sweep to compare; of some rooms only where `roomIds` is given. The
 * columns are those that it needs and come as they are: a sweep reads thousands of rows.
 */
export const readLivePresence = async (pool: Pool, roomIds: readonly string[] | null): Promise<LivePresence> => {
  const where = 'where is_live and ($1::opaque_id[] is null or room_id = any($1::opaque_id[]))';
  const lives = await pool.query<LivePresence['lives'][number]>(
    `select room_id as "roomId", room_sid as "roomSid" from room_lives ${where}`,
    [roomIds],
  );
  const sessions = await pool.query<LivePresence['sessions'][number]>(
    `select room_id as "roomId", room_sid as "roomSid", participant_sid as "participantSid", identity,
       (extract(epoch from last_fact_at) * 1000)::float8 as "lastFactAtMs"
     from sessions ${where}`,
    [roomIds],
  );
  return { lives: lives.rows, sessions: sessions.rows };
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
 * The people whom everybody in a room sees, in the order in which they came, at most `limit`: machines and hidden people
 * are not among them. Where an identity is given, its newest session alone.
 */
export const readPresentPeople = async (
  pool: Pool,
  roomId: string,
  { identity, limit }: { readonly identity: string | null; readonly limit: number },
): Promise<PresentPerson[]> => {
  const { rows } = await pool.query<PresentRow>({
    ...preparedAs('present people', pool),
    text: `
      select s.identity, s.participant_sid, s.user_id, s.joined_at,
        m.user_id is not null as has_member, m.role, m.display_name, m.permissions, m.is_removed
      from sessions s left join members m on m.room_id = s.room_id and m.user_id = s.user_id
      where s.room_id = $1 and s.is_live and s.kind = 'STANDARD' and not s.is_hidden
        and ($2::opaque_id is null or (s.identity = $2 and s.joined_at =
          (select max(joined_at) from sessions where room_id = $1 and identity = $2 and is_live)))
      order by s.joined_at, s.participant_sid limit $3`,
    values: [roomId, identity, limit],
  });
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
