import type { PresenceEventData } from '@realtime-service/contracts';
import { edgeLifeSeconds } from './apply/chunk-writes.ts';
import { type Client, inTransaction, type Pool } from './database/database.ts';
import { isSeenSql } from './database/rows.ts';

/** A presence event that is due as soon as LiveKit is known to enforce what it says. The store knows the room's sid. */
export interface Announcement {
  readonly eventId: string;
  readonly data: Omit<PresenceEventData<'participant.permissions_applied'>, 'roomSid'>;
}

/** A claimed question: does LiveKit agree with the facts about this identity (or, with identity '', this room)? */
export interface Mark {
  readonly roomId: string;
  readonly identity: string;
  readonly generation: bigint;
  readonly cause: string;
  /** The time of the oldest fact that still waits for an answer, milliseconds since the epoch. */
  readonly causedAtMs: number;
  readonly trace: string | null;
  readonly attempts: number;
  /** What LiveKit was being asked for when an earlier claim ended: it may have done so. */
  readonly announcement: Announcement | null;
  /** When the claim ends, which tells it from every other: whoever comes later than that settles nothing. */
  readonly claim: string;
}

interface MarkRow {
  readonly room_id: string;
  readonly identity: string;
  readonly generation: string;
  readonly cause: string;
  readonly caused_at: Date;
  readonly trace: string | null;
  readonly attempts: number;
  readonly announcement: Announcement | null;
  readonly claim: string;
}

type RaisedRow = Pick<MarkRow, 'trace'>;

/**
 * Claims due marks for `claimSeconds`; no lock is held afterwards. At most one claim per (room, identity) is alive:
 * a question whose claim expired may be claimed by another. A claim that goes on for more than twice as long was made
 * before the clock was set back: whoever made it may be gone, and nothing that is raised since ends it. What is due is
 * told by a time that stays the same within the statement, so that the index leads past what is kept for later. `first`
 * says from which end of those that are due.
 */
export const claimMarks = async (
  database: Pick<Pool, 'query'>,
  limit: number,
  claimSeconds: number,
  first: 'oldest' | 'newest',
): Promise<Mark[]> => {
  const { rows } = await database.query<MarkRow>(
    `update marks set locked_until = clock_timestamp() + make_interval(secs => $2), attempts = marks.attempts + 1
      from (select room_id, identity from marks
        where due_at <= statement_timestamp() and (locked_until is null
          or locked_until not between clock_timestamp() and clock_timestamp() + 2 * make_interval(secs => $2))
        order by due_at ${first === 'newest' ? 'desc' : 'asc'} limit $1 for update skip locked) as due
      where marks.room_id = due.room_id and marks.identity = due.identity
      returning marks.room_id, marks.identity, generation, cause, caused_at, trace, attempts,
        announcement, locked_until::text as claim`,
    [limit, claimSeconds],
  );
  return rows.map((row) => ({
    roomId: row.room_id,
    identity: row.identity,
    generation: BigInt(row.generation),
    cause: row.cause,
    causedAtMs: row.caused_at.getTime(),
    trace: row.trace,
    attempts: row.attempts,
    announcement: row.announcement,
    claim: row.claim,
  }));
};

/**
 * Generations begin anew with each mark. Without the claim, an answer that comes too late would settle a mark that was
 * raised since.
 */
const isClaimed = 'room_id = $1 and identity = $2 and locked_until = $3::timestamptz';

/** The longest that a question is kept for a time to come. */
export const keptForSeconds = 3600;

/**
 * Notes with a mark that is still claimed what LiveKit is about to be asked for, so that it is announced also where
 * nobody learns LiveKit's answer. False where the claim has ended.
 */
export const noteAnnouncement = async (pool: Pool, mark: Mark, announcement: Announcement): Promise<boolean> => {
  const { rowCount } = await pool.query(`update marks set announcement = $4 where ${isClaimed}`, [
    mark.roomId,
    mark.identity,
    mark.claim,
    announcement,
  ]);
  return rowCount === 1;
};

/** When it is asked again about a session that is not known yet: the fact that it has joined asks, too. */
export const unknownSessionRetryMs = (attempts: number): number => 2_000 * 2 ** Math.min(attempts - 1, 5);

/** A rebuild's swap holds marks while it waits for the table of rooms, for twice as long: it goes first. */
const lockTimeoutMs = 100;

/** Under the room's lock, as all that is told of it: after the session's `joined`, and never after its end. */
const announce = async (client: Client, mark: Mark, { eventId, data }: Announcement): Promise<boolean> => {
  await client.query(`set local lock_timeout = ${lockTimeoutMs}`);
  await client.query('select from rooms where room_id = $1 for no key update', [mark.roomId]);
  const { rowCount } = await client.query(
    `insert into outbox (room_id, event_id, type, occurred_at, data, trace)
      select room_id, $4, 'participant.permissions_applied', clock_timestamp(),
          jsonb_build_object('roomSid', s.room_sid) || $5::jsonb, $6
        from marks join sessions s using (room_id, identity)
        where ${isClaimed} and s.participant_sid = $7 and s.is_live and ${isSeenSql} for update of marks`,
    [mark.roomId, mark.identity, mark.claim, eventId, data, mark.trace, data.participantSid],
  );
  return rowCount === 1;
};

/**
 * Answers a mark that is still claimed, and announces what LiveKit does since. When it was raised again meanwhile it
 * stays and is due at once, behind those that wait already. `askAgainAtMs` keeps the question for a time when the
 * answer changes by itself (the end of a ban), and for an hour at most: whom it is about may be gone by then. Resolves
 * with the trace of who raised it meanwhile: the answer may have been given on that newer fact already. A mark about a
 * session that is not known yet stays, with what is to be announced of it.
 */
export const settleMark = (
  pool: Pool,
  mark: Mark,
  askAgainAtMs: number | null,
  announcement: Announcement | null = null,
): Promise<string | null> => {
  if (announcement === null) return settle(pool, mark, askAgainAtMs);
  return inTransaction(pool, async (client) => {
    if (await announce(client, mark, announcement)) return settle(client, mark, askAgainAtMs);
    await postponeMark(client, mark, unknownSessionRetryMs(mark.attempts));
    return null;
  });
};

const settle = async (
  database: Pick<Pool, 'query'>,
  mark: Mark,
  askAgainAtMs: number | null,
): Promise<string | null> => {
  const id = [mark.roomId, mark.identity, mark.claim, mark.generation.toString()];
  if (askAgainAtMs === null) {
    const { rowCount } = await database.query(`delete from marks where ${isClaimed} and generation = $4`, id);
    // Not a part of the delete: one that waited for whoever raised the mark skips it, and sees it as it was before.
    if (rowCount !== 0) return null;
    const { rows } = await database.query<RaisedRow>(
      `update marks set locked_until = null, due_at = clock_timestamp(), announcement = null
        where ${isClaimed} and generation <> $4 returning trace`,
      id,
    );
    return rows[0]?.trace ?? null;
  }
  const { rows } = await database.query<RaisedRow>(
    `update marks set locked_until = null, attempts = 0, announcement = null,
        due_at = case when generation = $4 then again.at else clock_timestamp() end,
        caused_at = case when generation = $4 then again.at else caused_at end
      from (select least($5::timestamptz, clock_timestamp() + make_interval(secs => ${keptForSeconds})) as at) as again
      where ${isClaimed}
      returning case when generation <> $4 then trace end as trace`,
    [...id, new Date(askAgainAtMs)],
  );
  return rows[0]?.trace ?? null;
};

/**
 * Puts a mark back that is still claimed and could not be answered, to be due after `delayMs`; when it was raised again
 * meanwhile, at once, behind those that wait already. Its claim counts as a try, unless `attempts` says otherwise.
 */
export const postponeMark = async (
  database: Pick<Pool, 'query'>,
  mark: Mark,
  delayMs: number,
  attempts = mark.attempts,
): Promise<void> => {
  await database.query(
    `update marks set locked_until = null, attempts = case when generation = $4 then $6 else attempts end,
        due_at = clock_timestamp() + make_interval(secs => case when generation = $4 then $5::float8 / 1000 else 0 end)
      where ${isClaimed}`,
    [mark.roomId, mark.identity, mark.claim, mark.generation.toString(), delayMs, attempts],
  );
};

/**
 * What becomes of a mark that is raised again, for an `on conflict` of its key: it is asked about as if for the first
 * time. One that is due already keeps its place, so that whoever is asked about often is answered no later. Where
 * `comesLastSql` holds it comes last, and is taken in turns with the oldest: somebody is removed who waits to be asked
 * about with everybody else in a large room. That must not hold time and again, or neither end would come to it.
 */
export const raisedAgainSql = (comesLastSql = 'false'): string =>
  `generation = marks.generation + 1, attempts = 0,
    due_at = case when ${comesLastSql} then excluded.due_at else least(marks.due_at, excluded.due_at) end`;

/** Asks about identities of a room now. */
export const markIdentities = async (
  pool: Pool,
  roomId: string,
  identities: readonly string[],
  { cause, causedAtMs }: Pick<Mark, 'cause' | 'causedAtMs'>,
): Promise<void> => {
  if (identities.length === 0) return;
  await pool.query(
    `insert into marks (room_id, identity, cause, caused_at, due_at)
      select $1, identity, $3, $4, clock_timestamp()
        from (select distinct unnest($2::opaque_id[]) as identity) as named order by identity
      on conflict (room_id, identity) do update set ${raisedAgainSql()},
        caused_at = least(marks.caused_at, excluded.caused_at)`,
    [roomId, identities, cause, new Date(causedAtMs)],
  );
};

/** Longer than any delay after which a question that was put back is due again. */
const putBackForSeconds = 120;

/**
 * How many marks wait, those too that were put back after a try, and for how long the oldest has, by the database's
 * clock. One that was tried more than once waits since its fact: it becomes due anew with each try.
 */
export const readMarkBacklog = async (
  database: Pick<Pool, 'query'>,
): Promise<{ count: number; ageSeconds: number }> => {
  const { rows } = await database.query<{ count: number; age: number }>(
    `select count(*)::int as count, coalesce(extract(epoch from clock_timestamp()
          - min(least(due_at, clock_timestamp(), case when attempts > 1 then caused_at end))), 0)::float8 as age
      from marks where due_at <= statement_timestamp() + make_interval(secs => ${putBackForSeconds})
        and (due_at <= clock_timestamp() or attempts > 0)`,
  );
  return { count: rows[0]?.count ?? 0, ageSeconds: rows[0]?.age ?? 0 };
};

export interface ClaimedEdge {
  readonly edgeId: bigint;
  readonly kind: 'kick' | 'mute';
  readonly roomId: string;
  readonly identity: string;
  readonly participantSid: string;
  readonly trackSid: string | null;
  /** For people. */
  readonly reason: string | null;
  /** The time of its fact, milliseconds since the epoch; never one that lay ahead when it was applied. */
  readonly causedAtMs: number;
  readonly trace: string | null;
}

const isFree = '(locked_until is null or locked_until < clock_timestamp())';

export type ExpiredEdge = Pick<ClaimedEdge, 'kind' | 'roomId' | 'identity'>;

/** Drops orders that expired before they could be carried out; one that is claimed may still be. */
export const dropExpiredEdges = async (pool: Pool): Promise<ExpiredEdge[]> => {
  const { rows } = await pool.query<ExpiredEdge>(
    `delete from edges where expires_at <= clock_timestamp() and ${isFree}
      returning kind, room_id as "roomId", identity`,
  );
  return rows;
};

/** Claims orders that have not expired, first those that were not tried yet. */
export const claimEdges = async (pool: Pool, limit: number, claimSeconds: number): Promise<ClaimedEdge[]> => {
  const { rows } = await pool.query(
    `update edges set locked_until = clock_timestamp() + make_interval(secs => $2)
      from (select edge_id from edges where expires_at > clock_timestamp() and ${isFree}
        order by locked_until nulls first, edge_id limit $1 for update skip locked) as due
      where edges.edge_id = due.edge_id
      returning edges.edge_id, kind, room_id, identity, participant_sid, track_sid, reason, trace,
        expires_at - make_interval(secs => ${edgeLifeSeconds}) as caused_at`,
    [limit, claimSeconds],
  );
  return rows.map((row) => ({
    edgeId: BigInt(row.edge_id),
    kind: row.kind,
    roomId: row.room_id,
    identity: row.identity,
    participantSid: row.participant_sid,
    trackSid: row.track_sid,
    reason: row.reason,
    causedAtMs: row.caused_at.getTime(),
    trace: row.trace,
  }));
};

/** After a failover that has lost the last of them, their ids are given anew. */
const isThisEdge = 'edge_id = $1 and kind = $2 and participant_sid = $3 and track_sid is not distinct from $4::text';
const idOf = ({ edgeId, kind, participantSid, trackSid }: ClaimedEdge): unknown[] => [
  edgeId.toString(),
  kind,
  participantSid,
  trackSid,
];

export const settleEdge = async (pool: Pool, edge: ClaimedEdge): Promise<void> => {
  await pool.query(`delete from edges where ${isThisEdge}`, idOf(edge));
};

/** Puts an order back that could not be carried out, to be taken again after `delayMs` unless it expires before. */
export const postponeEdge = async (pool: Pool, edge: ClaimedEdge, delayMs: number): Promise<void> => {
  await pool.query(
    `update edges set locked_until = clock_timestamp() + make_interval(secs => $5::float8 / 1000) where ${isThisEdge}`,
    [...idOf(edge), delayMs],
  );
};
