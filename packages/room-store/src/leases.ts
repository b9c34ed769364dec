import {
  type Permissions,
  recentlyLeftMs,
  removedReason,
  type Seats,
  type Verdict,
} from '@realtime-service/room-model';
import { type BatchOptions, createBatcher } from './batch.ts';
import { type Client, inTransaction, type Pool } from './database/database.ts';
import { isSeenSql } from './database/rows.ts';
import { type FactsAnswer, type FactsQuery, type NoteStanding, readFacts } from './read-facts.ts';

/** Who asks for a seat, or about one. */
export interface SeatRequest extends FactsQuery {
  readonly identity: string;
  readonly deviceId: string | null;
}

export interface SeatOptions extends BatchOptions {
  /** How long a token holds a seat that it does not use: its life, LiveKit's leeway, and a margin. */
  readonly leaseSeconds: number;
  /** Asked before facts are read, for who is to be told where they stood. */
  readonly compare?: () => NoteStanding;
}

/** What was decided, and the facts that it rests on. */
export interface SeatAnswer {
  readonly answer: FactsAnswer;
  readonly verdict: Verdict;
}

type Decide = (answer: FactsAnswer) => Verdict;

interface SeatQuestion {
  readonly request: SeatRequest;
  readonly decide: Decide;
}

/** Most times that one transaction reads and grants, while it holds all its rooms' locks. */
const maxRounds = 3;

/**
 * Whoever leaves by own will gives the seat up after this time: a reload or a full reconnect says that it leaves, too.
 */
const freedAfterLeavingMs = 15_000;
const longestHeldMs = Math.max(freedAfterLeavingMs, recentlyLeftMs);
const isNotAhead = (session: string): string =>
  `${session}.ended_at < statement_timestamp() + interval '${longestHeldMs} milliseconds'`;
/**
 * After these the seat is free at once: it was taken away, or went with the room. Not after `DUPLICATE_IDENTITY`: who
 * comes anew by the same identity has passed the gate as somebody inside, and is told of only when its media is up.
 */
const freeingReasons = [removedReason, 'ROOM_DELETED', 'ROOM_CLOSED'];

/** LiveKit's clock says when somebody joined, the database's when the token was given: the gate, a moment before. */
const clocksDifferByMs = 1_000;

/**
 * Of a person's devices, the one that is about to enter comes first, then whichever is inside, and whoever has left
 * comes last; of two alike the one by the identity that the policy gives now, which has taken over.
 */
const nearness = `array_position(array['left', 'left, due', 'inside', 'inside, due', 'token'], taken.how ||
          case when taken.how <> 'token' and taken.identity = asked.identity then ', due' else '' end)`;

/**
 * Seats are held by people: who is inside, who was until a moment ago, and who has a token that was not used yet: no
 * session of that device has joined since, nor within the second before and was there still. Machines (recorders,
 * agents, ingress, SIP) and hidden people hold none. Of those who left, the last end of an identity counts (of two at
 * once that of whoever joined later) unless that identity is inside again, and a removal of the person for all of the
 * person's ends before it. A device that is inside or has just left keeps its seat by whatever identity an earlier
 * device policy gave it; a token does not, since it may still be used beside the new one. A lease that goes on for more
 * than twice its life was granted before the clock was set back: it holds nothing, nor does an end that lies far ahead.
 *
 * `ended_at` is bounded twice. The second bound is the rule; the index cannot use it, since `clock_timestamp()` is
 * volatile and the `case` depends on the row. The first is wider, constant within the statement, and there for the
 * index alone. `of_asking` is there for the time alone: it looks at each seat once, by a hash, where the join looks at
 * each of its own for every question.
 */
const seatsSql = `
  with asked as materialized (
    select * from unnest($1::opaque_id[], $2::opaque_id[], $3::opaque_id[], $4::text[])
      with ordinality as asked (room_id, user_id, identity, device_id, at)),
  wanted as (select distinct room_id from asked),
  taken as materialized (
    select s.room_id, s.identity, s.user_id, s.device_id, 'inside' as how
      from wanted join sessions s using (room_id)
      where s.is_live and ${isSeenSql}
    union all
    select s.room_id, s.identity, s.user_id, s.device_id, 'left'
      from wanted join sessions s using (room_id)
      where not s.is_live and ${isSeenSql} and s.end_reason <> all ($5::text[])
        and s.ended_at > statement_timestamp() - interval '${longestHeldMs} milliseconds'
        and ${isNotAhead('s')}
        and s.ended_at > clock_timestamp() - case s.end_reason when 'CLIENT_INITIATED'
          then interval '${freedAfterLeavingMs} milliseconds' else interval '${recentlyLeftMs} milliseconds' end
        and not exists (
          select from sessions later where later.room_id = s.room_id and later.user_id = s.user_id
            and later.ended_at >= s.ended_at and ${isNotAhead('later')}
            and (later.end_reason = '${removedReason}' or
              later.identity = s.identity and (later.ended_at, later.joined_at) > (s.ended_at, s.joined_at)))
        and not exists (
          select from sessions again where again.room_id = s.room_id and again.identity = s.identity and again.is_live)
    union all
    select l.room_id, l.identity, l.user_id, l.device_id, 'token'
      from wanted join seat_leases l using (room_id)
      where l.expires_at > clock_timestamp() and l.expires_at - clock_timestamp() <= 2 * (l.expires_at - l.granted_at)
        and not exists (
          select from sessions s where s.room_id = l.room_id and s.identity = l.identity
            and s.device_id is not distinct from l.device_id and s.joined_at >= l.granted_at - interval '${clocksDifferByMs} milliseconds'
            and (s.is_live or s.ended_at >= l.granted_at))),
  totals as (select room_id, count(distinct identity)::int as taken from taken group by room_id),
  of_asking as materialized (
    select * from (
        select *, (room_id, user_id) in (select room_id, user_id from asked) as is_asking from taken offset 0) as seat
      where is_asking),
  own as materialized (
    select asked.at, taken.identity, taken.device_id, taken.how, same.*,
        same.is_identity or same.is_device and taken.how <> 'token' as is_held,
        ${nearness} > coalesce(max(${nearness}) filter (where same.is_device and taken.how <> 'token')
          over (partition by asked.at), 0) as is_nearer
      from asked join of_asking as taken using (room_id, user_id) cross join lateral (
        select taken.identity = asked.identity as is_identity, taken.device_id is not distinct from asked.device_id as is_device
      ) as same)
  select coalesce(totals.taken, 0) - (count(distinct own.identity) filter (where own.is_held))::int as taken_by_others,
    coalesce(bool_or(own.is_held), false) as is_held,
    coalesce(bool_or(own.is_identity), false) as is_counted,
    coalesce(bool_or(own.is_identity and own.is_device and own.how = 'token'), false) as is_reserved,
    coalesce(bool_or(own.is_identity and own.is_device and own.how = 'inside'), false) as is_inside,
    (count(distinct row(own.device_id)) filter (where not own.is_device and own.is_nearer))::int as own_other_devices,
    (count(*) filter (where own.how = 'token' and not own.is_identity))::int as own_unused_tokens
  from asked left join totals using (room_id) left join own using (at)
  group by asked.at, totals.taken order by asked.at`;

interface SeatRow {
  readonly taken_by_others: number;
  readonly is_held: boolean;
  /** Whether this very identity is counted already: a lease for it adds none. */
  readonly is_counted: boolean;
  readonly is_reserved: boolean;
  readonly is_inside: boolean;
  readonly own_other_devices: number;
  readonly own_unused_tokens: number;
}

/** Columns of requests, in the order of `unnest`. */
const columnsOf = (requests: readonly SeatRequest[]): readonly unknown[][] => [
  requests.map(({ roomId }) => roomId),
  requests.map(({ userId }) => userId),
  requests.map(({ identity }) => identity),
  requests.map(({ deviceId }) => deviceId),
];

const countSeats = async (client: Client, requests: readonly SeatRequest[]): Promise<SeatRow[]> => {
  const { rows } = await client.query<SeatRow>(seatsSql, [...columnsOf(requests), freeingReasons]);
  return rows;
};

/** `added`: by those who were decided on before, in the same transaction. */
const toSeats = (row: SeatRow, added: number): Seats => ({
  takenByOthers: row.taken_by_others + added,
  ownOtherDevices: row.own_other_devices,
  ownUnusedTokens: row.own_unused_tokens,
  isHeld: row.is_held,
  isReserved: row.is_reserved,
});

/** Seats as they are at the moment, for whoever only wants to know: nothing is locked, and none is taken. */
export const readSeats = async (client: Client, request: SeatRequest): Promise<Seats> => {
  const [row] = await countSeats(client, [request]);
  return toSeats(row as SeatRow, 0);
};

/** Sorted by what is locked, so that two batches over the same rooms cannot wait for each other. */
const lockRooms = async (client: Client, requests: readonly SeatRequest[]): Promise<void> => {
  await client.query(
    `select pg_advisory_xact_lock(key) from
      (select distinct hashtextextended(id, 1) as key from unnest($1::opaque_id[]) as id order by key) as rooms`,
    [requests.map(({ roomId }) => roomId)],
  );
};

const grantLeases = async (client: Client, granted: readonly SeatRequest[], leaseSeconds: number): Promise<void> => {
  if (granted.length === 0) return;
  await client.query(
    `insert into seat_leases (room_id, user_id, identity, device_id, expires_at, granted_at)
      select room_id, user_id, identity, device_id, clock_timestamp() + make_interval(secs => $5), clock_timestamp()
        from unnest($1::opaque_id[], $2::opaque_id[], $3::opaque_id[], $4::text[])
          as granted (room_id, user_id, identity, device_id)
      on conflict (room_id, identity, user_id) do update
        set device_id = excluded.device_id, expires_at = excluded.expires_at, granted_at = excluded.granted_at`,
    [...columnsOf(granted), leaseSeconds],
  );
};

/** What was decided of a round; who is not in it is to be read anew. */
interface Round {
  readonly decided: ReadonlyMap<SeatQuestion, SeatAnswer>;
  readonly granted: readonly SeatRequest[];
}

/**
 * Decides one after the other, as if each had come alone: who was let in before takes a seat from those who follow.
 * What was read for a person is out of date once that person has a further lease; one that is renewed changes nothing,
 * nor does a refusal.
 */
const decideInOrder = (
  questions: readonly SeatQuestion[],
  answers: readonly FactsAnswer[],
  rows: readonly SeatRow[],
): Round => {
  const added = new Map<string, number>();
  const outdated = new Set<string>();
  const granted = new Map<string, SeatRequest>();
  const decided = new Map<SeatQuestion, SeatAnswer>();
  for (const [at, question] of questions.entries()) {
    const { request, decide } = question;
    const person = `${request.roomId}\0${request.userId}`;
    if (outdated.has(person)) continue;
    const row = rows[at] as SeatRow;
    const { facts, ...rest } = answers[at] as FactsAnswer;
    const addedHere = added.get(request.roomId) ?? 0;
    const answer = { ...rest, facts: { ...facts, seats: toSeats(row, addedHere) } };
    const verdict = decide(answer);
    decided.set(question, { answer, verdict });
    if (verdict.kind !== 'allow' || !takesSeat(verdict.permissions)) continue;
    if (!row.is_counted) added.set(request.roomId, addedHere + 1);
    // Who is inside has a seat; a token for a reconnect reserves nothing beyond it.
    if (row.is_inside) continue;
    granted.set(`${person}\0${request.identity}`, request);
    if (!row.is_reserved) outdated.add(person);
  }
  return { decided, granted: [...granted.values()] };
};

const takesSeat = ({ hidden }: Permissions): boolean => !hidden;

/**
 * Decides and takes seats as one step: under the rooms' advisory locks, taken in a statement of their own (in one
 * statement, or without them, more get in than there are seats), facts and seats are read, `decide` is asked, and the
 * leases are written of those whom it allows. Who is to be read anew comes in the next round, and after a few of them
 * in the next batch, so that nobody waits for one person's many questions.
 */
const decideWithSeats = (
  pool: Pool,
  questions: readonly SeatQuestion[],
  { leaseSeconds, compare }: Pick<SeatOptions, 'leaseSeconds' | 'compare'>,
): Promise<(SeatAnswer | undefined)[]> =>
  inTransaction(pool, async (client) => {
    await lockRooms(
      client,
      questions.map(({ request }) => request),
    );
    const answers = new Map<SeatQuestion, SeatAnswer>();
    for (let round = 0; round < maxRounds && answers.size < questions.length; round += 1) {
      const left = questions.filter((question) => !answers.has(question));
      const requests = left.map(({ request }) => request);
      const [facts, rows] = await Promise.all([readFacts(client, requests, compare?.()), countSeats(client, requests)]);
      const { decided, granted } = decideInOrder(left, facts, rows);
      await grantLeases(client, granted, leaseSeconds);
      for (const [question, answer] of decided) answers.set(question, answer);
    }
    return questions.map((question) => answers.get(question));
  });

/** Decides with seats for whoever asks, many at once in one transaction: the rooms' locks let one through at a time. */
export const createSeatTaker = (
  pool: Pool,
  options: SeatOptions,
): ((request: SeatRequest, decide: Decide) => Promise<SeatAnswer>) => {
  const take = createBatcher<SeatQuestion, SeatAnswer>(
    (questions) => decideWithSeats(pool, questions, options),
    options,
  );
  return (request, decide) => take({ request, decide });
};
