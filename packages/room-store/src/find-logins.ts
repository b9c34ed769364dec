import type { Pool } from './database/database.ts';

/** One login of one person, as their tokens name it. */
export interface Login {
  readonly userId: string;
  readonly loginId: string;
}

/** The logins that are inside a call, of one person or by the login's id alone: all, or those that joined by then. */
export const findLiveLogins = async (
  pool: Pick<Pool, 'query'>,
  { userId, loginId }: Partial<Login>,
  joinedBy: Date | null,
): Promise<readonly Login[]> => {
  // Each asked for by its own index: one text for all would look through everybody who is inside.
  const isTheirs = userId === undefined ? '$2::text is null' : 'user_id = $2';
  const isThatOne = loginId === undefined ? '$3::text is null' : 'login_id = $3';
  const { rows } = await pool.query<{ user_id: string; login_id: string }>(
    `select distinct user_id, login_id from sessions
      where is_live and joined_at <= coalesce($1, 'infinity'::timestamptz)
        and user_id is not null and login_id is not null and ${isTheirs} and ${isThatOne}`,
    [joinedBy, userId, loginId],
  );
  return rows.map((row) => ({ userId: row.user_id, loginId: row.login_id }));
};
