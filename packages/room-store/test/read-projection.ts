import { WorkingSet } from '@realtime-service/room-model';
import type { Pool } from '../src/database/database.ts';
import { banTable, endedLoginTable, memberTable, roomTable, suspectTable, userTable } from '../src/database/rows.ts';

/**
 * Everything that folds from room events, as the tables hold it: equal, entity by entity, to the pure fold of the log.
 * Rows that were only made to be locked are left out.
 */
export const readProjection = async (pool: Pool): Promise<WorkingSet> => {
  const set = new WorkingSet();
  const rowsOf = async (table: string) => (await pool.query(`select * from ${table} where event_id is not null`)).rows;
  for (const row of await rowsOf('rooms')) set.put({ entity: 'room', row: roomTable.read(row) });
  for (const row of await rowsOf('members')) set.put({ entity: 'member', row: memberTable.read(row) });
  for (const row of await rowsOf('bans')) set.put({ entity: 'ban', row: banTable.read(row) });
  for (const row of await rowsOf('users')) set.put({ entity: 'user', row: userTable.read(row) });
  for (const row of await rowsOf('ended_logins')) set.put({ entity: 'login', row: endedLoginTable.read(row) });
  for (const row of await rowsOf('suspects')) set.put({ entity: 'suspect', row: suspectTable.read(row) });
  return set;
};
