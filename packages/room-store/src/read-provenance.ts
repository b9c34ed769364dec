import {
  type Ban,
  type EndedLogin,
  type Facts,
  identityOf,
  type Member,
  needsSeat,
  type Origin,
  type RoomHeader,
  type Seats,
  type Session,
  type Suspect,
  type User,
} from '@realtime-service/room-model';
import { allInOrder, type Client, inTransaction, type Pool } from './database/database.ts';
import {
  banTable,
  endedLoginTable,
  load,
  memberTable,
  roomTable,
  sessionTable,
  suspectTable,
  userTable,
} from './database/rows.ts';
import { readSeats } from './leases.ts';
import {
  type FactsAnswer,
  type FactsQuery,
  isRecentSql,
  type NoteStanding,
  openDoubtsAbout,
  readFacts,
} from './read-facts.ts';

/** A room that a fact has told of, not only LiveKit or a lock. */
export interface ToldRoom extends RoomHeader {
  readonly origin: Origin;
}

const isTold = (room: RoomHeader): room is ToldRoom => room.origin !== null;

/** The rows that facts were read from, each with the record that last changed it. */
export interface Provenance {
  readonly room: ToldRoom | null;
  readonly member: Member | null;
  /** Also those that are over or lifted. */
  readonly bans: readonly Ban[];
  readonly user: User | null;
  readonly endedLogin: EndedLogin | null;
  /** Open doubts that concern the person. */
  readonly suspects: readonly Suspect[];
  readonly sessions: readonly Session[];
}

export interface ProvenFacts {
  /** As `readFacts` answers, and with seats where the room counts them. */
  readonly answer: FactsAnswer;
  readonly provenance: Provenance;
}

/**
 * Facts about one person in one room and where each comes from, all of one snapshot. For people who ask why: it takes
 * nine statements where a decision takes one. Takes no seat; the transaction can write nothing.
 */
export const readProvenance = (pool: Pool, query: FactsQuery, noteStanding?: NoteStanding): Promise<ProvenFacts> =>
  inTransaction(pool, async (client) => {
    const { roomId, userId, loginId } = query;
    const ofBoth = 'where room_id = $1 and user_id = $2';
    const [, answers, rooms, members, bans, users, logins, suspects, sessions] = await allInOrder([
      client.query('set transaction isolation level repeatable read, read only'),
      readFacts(client, [query], noteStanding),
      load(client, roomTable, 'where room_id = $1', [roomId]),
      load(client, memberTable, ofBoth, [roomId, userId]),
      load(client, banTable, `${ofBoth} order by privilege`, [roomId, userId]),
      load(client, userTable, 'where user_id = $1 and event_id is not null', [userId]),
      load(client, endedLoginTable, 'where user_id = $1 and login_id = $2', [userId, loginId]),
      load(client, suspectTable, `s where ${openDoubtsAbout('$1', '$2', '$3')} order by "offset"`, [
        roomId,
        userId,
        loginId,
      ]),
      load(client, sessionTable, `s ${ofBoth} and ${isRecentSql} order by joined_at`, [roomId, userId]),
    ]);
    const answer = answers[0] as FactsAnswer;
    const seats = await seatsFor(client, query, answer.facts);
    return {
      answer: { ...answer, facts: { ...answer.facts, seats } },
      provenance: {
        room: rooms.find(isTold) ?? null,
        member: members[0] ?? null,
        bans,
        user: users[0] ?? null,
        endedLogin: logins[0] ?? null,
        suspects,
        sessions,
      },
    };
  });

/** The seats that the person finds, without a device. */
const seatsFor = async (client: Client, query: FactsQuery, { room }: Facts): Promise<Seats | null> =>
  room !== null && needsSeat(room)
    ? readSeats(client, { ...query, identity: identityOf(room, query.userId, null), deviceId: null })
    : null;
