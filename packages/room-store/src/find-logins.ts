import type { Pool } from './database/database.ts';

/** One login of one person, as their tokens name it. */
export interface Login {
  readonly userId: string;
  readonly loginId: string;
}

/** The logins that are inside a call, of one person or by the login's id alone: all, or those that joined by then. */
export const findLiveLogins = async (
  pool: Pool,
  about: Partial<Login>,
  joinedBy: Date | null,
): Promise<readonly Login[]> => {
  const { rows } = await pool.query<{ user_id: string; login_id: string }>(
    `select distinct user_id, login_id from sessions
      where is_live and joined_at <= coalesce($3, 'infinity'::timestamptz)
        and user_id = coalesce($1, user_id) and login_id = coalesce($2, login_id)`,
    [about.userId ?? null, about.loginId ?? null, joinedBy],
  );
  return rows.map((row) => ({ userId: row.user_id, loginId: row.login_id }));
};
