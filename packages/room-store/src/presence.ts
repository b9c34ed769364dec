import type { RoomLife, Session } from '@realtime-service/room-model';
import type { Pool } from './database.ts';
import { lifeTable, sessionTable } from './rows.ts';

/** What is believed to be live in LiveKit. */
export interface LivePresence {
  readonly lives: RoomLife[];
  readonly sessions: Session[];
}

/** Everything that is believed to be live, for the sweep to compare; of some rooms only where `roomIds` is given. */
export const readLivePresence = async (pool: Pool, roomIds: readonly string[] | null): Promise<LivePresence> => {
  const where = 'where is_live and ($1::opaque_id[] is null or room_id = any($1::opaque_id[]))';
  const lives = await pool.query(`select * from room_lives ${where}`, [roomIds]);
  const sessions = await pool.query(`select * from sessions ${where}`, [roomIds]);
  return { lives: lives.rows.map(lifeTable.read), sessions: sessions.rows.map(sessionTable.read) };
};
