import { isUserEventType, RoomId, UserId } from '@realtime-service/contracts';
import { attributes, WorkingSet } from '@realtime-service/room-model';
import type { ChunkRecord } from './chunk.ts';
import type { Client } from './database.ts';
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

/** The entities that a chunk can change, by id: what it locks and loads, and never more. */
export interface Touched {
  readonly rooms: Set<string>;
  /** Rooms whose whole member list a full-state fact replaces. */
  readonly wholeRooms: Set<string>;
  readonly members: Map<string, Set<string>>;
  /** Users whom a fact is about. */
  readonly users: Set<string>;
  /** Users whose session a fact may open. */
  readonly entering: Set<string>;
  /** Rooms of LiveKit facts, with the identities and room sids that these name. */
  readonly liveRooms: Map<string, { readonly identities: Set<string>; readonly sids: Set<string>; isWhole: boolean }>;
}

const touchMember = (touched: Touched, roomId: string, userId: string): void => {
  const users = touched.members.get(roomId);
  if (users === undefined) touched.members.set(roomId, new Set([userId]));
  else users.add(userId);
};

const touchRecord = (touched: Touched, { content }: ChunkRecord): void => {
  switch (content.kind) {
    case 'skipped':
      return;
    case 'dead': {
      const roomId = RoomId.safeParse(content.unreadable.key);
      const userId = UserId.safeParse(content.unreadable.key);
      if (roomId.success) touched.rooms.add(roomId.data);
      if (userId.success) touched.users.add(userId.data);
      return;
    }
    case 'room_event': {
      const { event } = content;
      if (isUserEventType(event.type)) {
        touched.users.add(event.subject);
        return;
      }
      touched.rooms.add(event.subject);
      if (event.type === 'room.created' && event.data.members !== undefined) touched.wholeRooms.add(event.subject);
      if (event.data !== undefined && 'userId' in event.data) touchMember(touched, event.subject, event.data.userId);
      return;
    }
    case 'livekit': {
      const { fact } = content;
      const roomId = fact.type === 'observed' ? fact.observed.roomName : fact.room.name;
      const room = fact.type === 'observed' ? fact.observed.room : fact.room;
      const participants =
        fact.type === 'observed' ? fact.observed.participants : 'participant' in fact ? [fact.participant] : [];
      touched.rooms.add(roomId);
      const live = touched.liveRooms.get(roomId) ?? { identities: new Set(), sids: new Set(), isWhole: false };
      touched.liveRooms.set(roomId, live);
      if (room !== null) live.sids.add(room.sid);
      if (!('participant' in fact)) live.isWhole = true;
      for (const participant of participants) {
        live.identities.add(participant.identity);
        const userId = participant.attributes?.[attributes.user];
        if (userId !== undefined) touched.entering.add(userId);
      }
      return;
    }
  }
};

export const touchedBy = (records: readonly ChunkRecord[]): Touched => {
  const touched: Touched = {
    rooms: new Set(),
    wholeRooms: new Set(),
    members: new Map(),
    users: new Set(),
    entering: new Set(),
    liveRooms: new Map(),
  };
  for (const record of records) touchRecord(touched, record);
  return touched;
};

/**
 * Makes the rows that serve as locks and takes them, sorted (unsorted ones deadlock), in statements of their own.
 * Rooms are not locked against foreign keys of leases; users are shared by facts that only open sessions.
 */
export const lockTouched = async (client: Client, touched: Touched): Promise<void> => {
  const rooms = [...touched.rooms];
  if (rooms.length > 0) {
    await client.query(
      'insert into rooms (room_id) select id from unnest($1::opaque_id[]) as id order by id on conflict do nothing',
      [rooms],
    );
    await client.query('select 1 from rooms where room_id = any($1::opaque_id[]) order by room_id for no key update', [
      rooms,
    ]);
  }
  const users = [...new Set([...touched.users, ...touched.entering])];
  if (users.length === 0) return;
  await client.query(
    'insert into users (user_id) select id from unnest($1::opaque_id[]) as id order by id on conflict do nothing',
    [users],
  );
  const strength = touched.users.size > 0 ? 'update' : 'share';
  await client.query(`select 1 from users where user_id = any($1::opaque_id[]) order by user_id for ${strength}`, [
    users,
  ]);
};

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
  const doubted = `where room_id = any($1::opaque_id[]) or (room_id = '' and user_id = any($2::opaque_id[]))`;
  if (rooms.length > 0 || users.length > 0)
    for (const row of await load(client, suspectTable, doubted, [rooms, users])) set.put({ entity: 'suspect', row });
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
