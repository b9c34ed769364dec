import type { Seats } from '@realtime-service/room-model';
import { type Client, inTransaction, type Pool } from './database.ts';
import { type FactsAnswer, type FactsQuery, readFacts } from './read-facts.ts';

/** A seat that a token holds until it is used or expires. */
export interface SeatRequest extends FactsQuery {
  readonly identity: string;
  readonly deviceId: string | null;
  /** Token life plus LiveKit's leeway plus a margin, seconds. */
  readonly leaseSeconds: number;
}

const countSeats = async (client: Client, { roomId, userId, identity, deviceId }: SeatRequest): Promise<Seats> => {
  const { rows } = await client.query<{ taken: string; own: string }>(
    `with taken as (
        select identity, user_id, device_id from sessions where room_id = $1 and is_live and kind = 'STANDARD' and not is_hidden
        union
        select identity, user_id, device_id from seat_leases where room_id = $1 and expires_at > clock_timestamp())
      select count(distinct identity) filter (where identity <> $2) as taken,
        count(distinct (identity, device_id)) filter (where user_id = $3 and (identity <> $2 or device_id is distinct from $4)) as own
      from taken`,
    [roomId, identity, userId, deviceId],
  );
  return { takenByOthers: Number(rows[0]?.taken ?? 0), ownOtherDevices: Number(rows[0]?.own ?? 0) };
};

/**
 * Decides and takes a seat as one step: under the room's advisory lock, taken as a statement of its own (in one
 * statement, or without it, more get in than there are seats), facts and seats are read, `decide` is asked, and the
 * lease is written when it allows.
 */
export const decideWithSeat = <T extends { readonly kind: 'allow' | 'deny' }>(
  pool: Pool,
  request: SeatRequest,
  decide: (answer: FactsAnswer) => T,
): Promise<{ answer: FactsAnswer; verdict: T }> =>
  inTransaction(pool, async (client) => {
    await client.query(`select pg_advisory_xact_lock(hashtextextended($1, 1))`, [request.roomId]);
    const [answer] = (await readFacts(client, [request])) as [FactsAnswer];
    const seated: FactsAnswer = { ...answer, facts: { ...answer.facts, seats: await countSeats(client, request) } };
    const verdict = decide(seated);
    if (verdict.kind === 'allow')
      await client.query(
        `insert into seat_leases (room_id, identity, device_id, user_id, expires_at)
          values ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
          on conflict (room_id, identity, user_id) do update set device_id = excluded.device_id, expires_at = excluded.expires_at`,
        [request.roomId, request.identity, request.deviceId, request.userId, request.leaseSeconds],
      );
    return { answer: seated, verdict };
  });

/**
 * Takes or keeps a duty that only one process may have (the sweep, the relay). A holder that does not renew loses it
 * after `seconds`.
 */
export const holdDuty = async (pool: Pool, name: string, holder: string, seconds: number): Promise<boolean> => {
  const { rowCount } = await pool.query(
    `insert into duties (name, holder, held_until) values ($1, $2, clock_timestamp() + make_interval(secs => $3))
      on conflict (name) do update set holder = excluded.holder, held_until = excluded.held_until
        where duties.holder = excluded.holder or duties.held_until < clock_timestamp()`,
    [name, holder, seconds],
  );
  return rowCount === 1;
};

/** Gives a duty back, so that another takes it at once. */
export const releaseDuty = async (pool: Pool, name: string, holder: string): Promise<void> => {
  await pool.query('delete from duties where name = $1 and holder = $2', [name, holder]);
};
