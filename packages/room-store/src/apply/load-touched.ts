import {
  type Member,
  type PresenceChange,
  type RoomChange,
  type Suspect,
  WorkingSet,
} from '@realtime-service/room-model';
import type { Client } from '../database/database.ts';
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
} from '../database/rows.ts';
import { placeColumns } from '../dead-letters/dead-letters.ts';
import type { Touched } from './touched.ts';

type Change = RoomChange | PresenceChange;

const pairsOf = (map: Iterable<readonly [string, Iterable<string>]>): [string[], string[]] => {
  const left: string[] = [];
  const right: string[] = [];
  for (const [key, values] of map)
    for (const value of values) {
      left.push(key);
      right.push(value);
    }
  return [left, right];
};

/** Statements that are on their way, each of which puts what it answers into the set. */
type Loading = readonly Promise<void>[];

const put = async <T>(set: WorkingSet, rows: Promise<T[]>, toChange: (row: T) => Change): Promise<void> => {
  for (const row of await rows) set.put(toChange(row));
};

const loadRooms = async (client: Client, set: WorkingSet, rooms: string[]): Promise<void> => {
  for (const row of await load(client, roomTable, 'where room_id = any($1::opaque_id[])', [rooms]))
    if (row.origin !== null) set.put({ entity: 'room', row });
};

const loadRoomFacts = (client: Client, set: WorkingSet, touched: Touched): Loading => {
  const rooms = [...touched.rooms];
  const wholeRooms = [...touched.wholeRooms.keys()];
  const users = [...touched.users];
  const members = pairsOf(touched.members);
  const bans = pairsOf(touched.bans);
  const logins = pairsOf(touched.logins);
  const isPair = 'where (room_id, user_id) in (select * from unnest($1::opaque_id[], $2::opaque_id[]))';
  // A room keeps everybody who was ever removed from it; of these only those whom the facts name.
  const isOfRoom = `where room_id = any($1::opaque_id[])
    and (not is_removed or (room_id, user_id) in (select * from unnest($2::opaque_id[], $3::opaque_id[])))`;
  const isOfUser = 'where user_id = any($1::opaque_id[])';
  const isLogin = 'where (user_id, login_id) in (select * from unnest($1::opaque_id[], $2::text[]))';
  const toMember = (row: Member): Change => ({ entity: 'member', row });
  const loading: Promise<void>[] = [];
  if (rooms.length > 0) loading.push(loadRooms(client, set, rooms));
  // One statement each: an `or` of them has PostgreSQL read the whole table.
  if (members[0].length > 0) loading.push(put(set, load(client, memberTable, isPair, members), toMember));
  if (bans[0].length > 0)
    loading.push(put(set, load(client, banTable, isPair, bans), (row) => ({ entity: 'ban', row })));
  if (wholeRooms.length > 0)
    loading.push(put(set, load(client, memberTable, isOfRoom, [wholeRooms, ...pairsOf(touched.wholeRooms)]), toMember));
  if (users.length > 0)
    loading.push(
      put(set, load(client, userTable, `${isOfUser} and event_id is not null`, [users]), (row) => ({
        entity: 'user',
        row,
      })),
    );
  if (logins[0].length > 0)
    loading.push(put(set, load(client, endedLoginTable, isLogin, logins), (row) => ({ entity: 'login', row })));
  return loading;
};

/**
 * The doubts that a fact may settle, of each by an index: a producer out of order can leave a room thousands of them.
 * Settled ones are read by their letter only.
 */
const loadDoubts = (client: Client, set: WorkingSet, touched: Touched): Loading => {
  const [pairRooms, pairUsers] = pairsOf([...touched.members, ...touched.bans]);
  const openDoubts = `${suspectTable.selectSql} where not is_healed and`;
  const values = [[...touched.headers], [...touched.wholeRooms.keys()], pairRooms, pairUsers, [...touched.users]];
  const toSuspect = (row: Suspect): Change => ({ entity: 'suspect', row });
  const loading: Promise<void>[] = [];
  if (values.some(({ length }) => length > 0)) {
    const isOfTouched = `where not is_healed and room_id = any($1::opaque_id[]) and user_id = '' and scope = 'header'
        union all ${openDoubts} room_id = any($2::opaque_id[])
        union all ${openDoubts} (room_id, user_id) in (select * from unnest($3::opaque_id[], $4::opaque_id[]))
        union all ${openDoubts} room_id = '' and user_id = any($5::opaque_id[])`;
    loading.push(put(set, load(client, suspectTable, isOfTouched, values), toSuspect));
  }
  if (touched.letters.length > 0) {
    const isOfLetter =
      'where (cause_topic, cause_partition, cause_offset) in (select * from unnest($1::text[], $2::int[], $3::bigint[]))';
    loading.push(put(set, load(client, suspectTable, isOfLetter, placeColumns(touched.letters)), toSuspect));
  }
  return loading;
};

/**
 * Of each named session's group (one identity, one life), the last to join that is not named. Walks
 * `sessions_by_joining` backwards from the group's end: with `=` for `<=` the planner takes an index that has the whole
 * group read. A row of another group ends the walk; without the `<>` arm it would go on through the groups of all other
 * named ones.
 */
const isLastOfOthers = `(room_id, room_sid, participant_sid) in (
  select last.room_id, last.room_sid, last.participant_sid
    from unnest($1::opaque_id[], $2::text[], $3::text[], $4::opaque_id[]) as named (room_id, room_sid, participant_sid, identity)
      cross join lateral (
        select * from sessions as other
          where (other.room_id, other.identity, other.room_sid) <= (named.room_id, named.identity, named.room_sid)
            and ((other.room_id, other.identity, other.room_sid) <> (named.room_id, named.identity, named.room_sid)
              or (room_id, room_sid, participant_sid) not in (select * from unnest($1::opaque_id[], $2::text[], $3::text[])))
          order by room_id desc, identity desc, room_sid desc, joined_at desc limit 1) as last
    where (last.room_id, last.identity, last.room_sid) = (named.room_id, named.identity, named.room_sid))`;

/**
 * What the fold can ask for (`PresenceEntities`), of each by an index: somebody who comes and goes without end leaves a
 * room as many ended sessions.
 */
const loadPresence = (client: Client, set: WorkingSet, touched: Touched): Loading => {
  const live = [...touched.liveRooms];
  if (live.length === 0) return [];
  const rooms = live.map(([roomId]) => roomId);
  const whole = live.filter(([, each]) => each.isWhole).map(([roomId]) => roomId);
  const lives = pairsOf(live.map(([roomId, { sids }]) => [roomId, sids]));
  const named = live.flatMap(([roomId, { sessions }]) => sessions.map((each) => ({ roomId, ...each })));
  const namedRooms = named.map(({ roomId }) => roomId);
  const roomSids = named.map(({ roomSid }) => roomSid);
  const participantSids = named.map(({ participantSid }) => participantSid);
  const identities = named.map(({ identity }) => identity);
  const selections: readonly (readonly [where: string, values: readonly (readonly string[])[]])[] = [
    [
      '(room_id, room_sid, participant_sid) in (select * from unnest($1::opaque_id[], $2::text[], $3::text[]))',
      [namedRooms, roomSids, participantSids],
    ],
    [
      'is_live and (room_id, identity) in (select * from unnest($1::opaque_id[], $2::opaque_id[]))',
      [namedRooms, identities],
    ],
    [isLastOfOthers, [namedRooms, roomSids, participantSids, identities]],
    // All that live where a fact is about the whole room; and what an older life of the room left.
    ['room_id = any($1::opaque_id[]) and is_live', [whole]],
    // `not in`, since `<> all` goes through the list for each of them.
    [
      `room_id = any($1::opaque_id[]) and is_live
        and (room_id, room_sid) not in (select * from unnest($2::opaque_id[], $3::text[]))`,
      [rooms, ...lives],
    ],
  ];
  return [
    put(set, load(client, lifeTable, 'where room_id = any($1::opaque_id[])', [rooms]), (row) => ({
      entity: 'life',
      row,
    })),
    ...selections
      .filter(([, values]) => values[0]?.length)
      .map(([where, values]) =>
        put(set, load(client, sessionTable, `where ${where}`, [...values]), (row) => ({ entity: 'session', row })),
      ),
  ];
};

/** Reads what is touched, after the locks: statements that are sent without waiting for each other's answers. */
export const loadTouched = async (client: Client, touched: Touched): Promise<WorkingSet> => {
  const set = new WorkingSet();
  await Promise.all([
    ...loadRoomFacts(client, set, touched),
    ...loadDoubts(client, set, touched),
    ...loadPresence(client, set, touched),
  ]);
  return set;
};
