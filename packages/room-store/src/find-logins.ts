import type { Pool } from './database/database.ts';

/** One login of one person, as their tokens name it. */
export interface Login {
  readonly userId: string;
  readonly loginId: string;
}

/**
 * The logins of those who were inside a call at that moment and still are: of one person, or by the login's id alone.
 */
export const findLiveLogins = async (pool: Pool, about: Partial<Login>, joinedBy: Date): Promise<readonly Login[]> => {
  const { rows } = await pool.query<{ user_id: string; login_id: string }>(
    `select distinct user_id, login_id from sessions
      where is_live and user_id is not null and login_id is not null and joined_at <= $3
        and user_id = coalesce($1, user_id) and login_id = coalesce($2, login_id)`,
    [about.userId ?? null, about.loginId ?? null, joinedBy],
  );
  return rows.map((row) => ({ userId: row.user_id, loginId: row.login_id }));
};
