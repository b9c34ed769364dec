import { WorkingSet } from '@realtime-service/room-model';
import type { Client } from './database.ts';
import { placeColumns } from './dead-letters.ts';
import {
  banTable,
  endedLoginTable,
  lifeTable,
  load,
  memberTable,
  roomTable,
  sessionTable,
  suspectTable,
  userTable,
} from './rows.ts';
import type { Touched } from './touched.ts';

const pairsOf = (map: ReadonlyMap<string, Iterable<string>>): [string[], string[]] => {
  const left: string[] = [];
  const right: string[] = [];
  for (const [key, values] of map)
    for (const value of values) {
      left.push(key);
      right.push(value);
    }
  return [left, right];
};

const loadRoomFacts = async (client: Client, set: WorkingSet, touched: Touched): Promise<void> => {
  const rooms = [...touched.rooms];
  const users = [...touched.users];
  const pairs = pairsOf(touched.members);
  const isPair = '(room_id, user_id) in (select * from unnest($1::opaque_id[], $2::opaque_id[]))';
  if (rooms.length > 0)
    for (const row of await load(client, roomTable, 'where room_id = any($1::opaque_id[])', [rooms]))
      if (row.origin !== null) set.put({ entity: 'room', row });
  // One statement each: an `or` of them has PostgreSQL read the whole table.
  if (pairs[0].length > 0)
    for (const row of await load(client, memberTable, `where ${isPair}`, pairs)) set.put({ entity: 'member', row });
  if (touched.wholeRooms.size > 0)
    for (const row of await load(client, memberTable, 'where room_id = any($1::opaque_id[])', [
      [...touched.wholeRooms],
    ]))
      set.put({ entity: 'member', row });
  if (pairs[0].length > 0)
    for (const row of await load(client, banTable, `where ${isPair}`, pairs)) set.put({ entity: 'ban', row });
  if (users.length > 0) {
    for (const row of await load(client, userTable, 'where user_id = any($1::opaque_id[]) and event_id is not null', [
      users,
    ]))
      set.put({ entity: 'user', row });
    for (const row of await load(client, endedLoginTable, 'where user_id = any($1::opaque_id[])', [users]))
      set.put({ entity: 'login', row });
  }
  await loadDoubts(client, set, touched);
};

/**
 * The doubts that a fact may settle, of each by an index: a producer out of order can leave a room thousands of them.
 * Settled ones are read by their letter only.
 */
const loadDoubts = async (client: Client, set: WorkingSet, touched: Touched): Promise<void> => {
  const [pairRooms, pairUsers] = pairsOf(touched.members);
  const isOpen = 'from suspects where not is_healed and';
  const values = [[...touched.rooms], [...touched.wholeRooms], pairRooms, pairUsers, [...touched.users]];
  if (values.some(({ length }) => length > 0))
    for (const row of await load(
      client,
      suspectTable,
      `where not is_healed and room_id = any($1::opaque_id[]) and user_id = '' and scope = 'header'
        union all select * ${isOpen} room_id = any($2::opaque_id[])
        union all select * ${isOpen} (room_id, user_id) in (select * from unnest($3::opaque_id[], $4::opaque_id[]))
        union all select * ${isOpen} room_id = '' and user_id = any($5::opaque_id[])`,
      values,
    ))
      set.put({ entity: 'suspect', row });
  if (touched.letters.length > 0)
    for (const row of await load(
      client,
      suspectTable,
      `where (cause_topic, cause_partition, cause_offset) in (select * from unnest($1::text[], $2::int[], $3::bigint[]))`,
      placeColumns(touched.letters),
    ))
      set.put({ entity: 'suspect', row });
};

const loadPresence = async (client: Client, set: WorkingSet, touched: Touched): Promise<void> => {
  const live = [...touched.liveRooms];
  if (live.length === 0) return;
  const rooms = live.map(([roomId]) => roomId);
  for (const row of await load(client, lifeTable, 'where room_id = any($1::opaque_id[])', [rooms]))
    set.put({ entity: 'life', row });
  const [pairRooms, identities] = pairsOf(new Map(live.map(([roomId, each]) => [roomId, each.identities])));
  const whole = live.filter(([, each]) => each.isWhole).map(([roomId]) => roomId);
  const sids = live.flatMap(([, each]) => [...each.sids]);
  const selections: readonly (readonly [where: string, values: readonly (readonly string[])[]])[] = [
    // Those named; all that live where a fact is about the whole room; and what an older life of the room left.
    ['(room_id, identity) in (select * from unnest($1::opaque_id[], $2::opaque_id[]))', [pairRooms, identities]],
    ['room_id in (select * from unnest($1::opaque_id[])) and is_live', [whole]],
    ['room_id in (select * from unnest($1::opaque_id[])) and is_live and room_sid <> all($2::text[])', [rooms, sids]],
  ];
  for (const [where, values] of selections)
    if (values[0]?.length)
      for (const row of await load(client, sessionTable, `where ${where}`, [...values]))
        set.put({ entity: 'session', row });
};

/** Reads what is touched, after the locks. */
export const loadTouched = async (client: Client, touched: Touched): Promise<WorkingSet> => {
  const set = new WorkingSet();
  await loadRoomFacts(client, set, touched);
  await loadPresence(client, set, touched);
  return set;
};
