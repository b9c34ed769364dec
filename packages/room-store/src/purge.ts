import type { ProjectionPartition } from './apply/chunk.ts';
import { factIdentityMs } from './apply/repeats.ts';
import { allInOrder, type Client, type Pool } from './database/database.ts';
import { activeProjection } from './positions.ts';

/** Longer than the webhooks' topic keeps anything: no late fact can find an ended session gone and open it again. */
const endedSessionDays = 8;

export interface Purged {
  readonly facts: number;
  readonly leases: number;
  readonly sessions: number;
}

/** So many go within a statement's time. */
const rowsAtOnce = 20_000;

/** From when on identities count, of each partition that is asked for. */
const standingSql = `
  select topic, "partition", newest_recorded_at - make_interval(secs => $4::float8 / 1000) as oldest from log_positions
    where projection = $1 and topic = coalesce($2, topic) and "partition" = coalesce($3, "partition")`;

/**
 * $5, the newest of the partitions' bounds, is a plain value, so that the index by age is used; joined with each
 * partition's own bound first, PostgreSQL may read the whole week. That one is asked for each row, which keeps the
 * order of age: by partitions, what waits to go would be read as many times. $6 is where the statement before ended.
 */
const purgeFactsSql = `
  with past as materialized (
      select topic, "partition", fact_key, recorded_at from applied_facts as fact
        where recorded_at >= $6 and recorded_at < $5
          and recorded_at < (select oldest from (${standingSql}) as standing
            where standing.topic = fact.topic and standing."partition" = fact."partition")
        order by recorded_at limit $7),
    dropped as (
      delete from applied_facts as fact using past
        where fact.topic = past.topic and fact."partition" = past."partition" and fact.fact_key = past.fact_key
          and fact.recorded_at = past.recorded_at returning 1)
  select (select count(*)::int from dropped) as dropped, count(*)::int as found, max(recorded_at)::text as until from past`;

interface PurgedFacts {
  readonly dropped: number;
  readonly found: number;
  /** When the newest of them was recorded. */
  readonly until: string;
}

/** Some at a time, so that whoever wants one of them waits for no more than these. Answers how many went. */
const untilFewAreLeft = async (dropSome: () => Promise<{ readonly rowCount: number | null }>): Promise<number> => {
  let dropped = 0;
  for (;;) {
    const { rowCount } = await dropSome();
    dropped += rowCount ?? 0;
    if ((rowCount ?? 0) < rowsAtOnce) return dropped;
  }
};

/**
 * Drops the identities of facts that can never count as repeated again (`repeats.ts`); of all partitions, or of one.
 */
export const purgeFacts = async (
  pool: Pool | Client,
  at: Pick<ProjectionPartition, 'projection'> & Partial<ProjectionPartition>,
): Promise<number> => {
  const asked = [at.projection, at.topic ?? null, at.partition ?? null, factIdentityMs];
  const { rows } = await pool.query<{ oldest: string | null }>(
    `select max(oldest)::text as oldest from (${standingSql}) as standing`,
    asked,
  );
  let from = '-infinity';
  let facts = 0;
  for (;;) {
    const answer = await pool.query<PurgedFacts>(purgeFactsSql, [...asked, rows[0]?.oldest, from, rowsAtOnce]);
    const { dropped, found, until } = answer.rows[0] as PurgedFacts;
    facts += dropped;
    if (found < rowsAtOnce) return facts;
    from = until;
  }
};

/** Waits for no lease: who takes several seats again renews them in an order of their own, and would wait in turn. */
const purgeLeasesSql = `
  delete from seat_leases as lease using (
      select room_id, identity, user_id from seat_leases
        where expires_at < clock_timestamp() limit $1 for update skip locked) as past
    where lease.room_id = past.room_id and lease.identity = past.identity and lease.user_id = past.user_id`;

/** By an index: a table may hold millions that ended within the days. */
const purgeSessionsSql = `
  with past as materialized (
      select room_id, room_sid, participant_sid from sessions
        where not is_live and last_fact_at < statement_timestamp() - make_interval(days => $1) limit $2)
  delete from sessions as session using past
    where session.room_id = past.room_id and session.room_sid = past.room_sid
      and session.participant_sid = past.participant_sid and not session.is_live`;

/** Drops what no decision can rest on any more: identities of facts, ended sessions, and expired leases. */
export const purge = async (pool: Pool | Client): Promise<Purged> => {
  // Each by itself: one that fails keeps nothing else from being dropped.
  const [facts, leases, sessions] = await allInOrder([
    purgeFacts(pool, { projection: activeProjection }),
    untilFewAreLeft(() => pool.query(purgeLeasesSql, [rowsAtOnce])),
    untilFewAreLeft(() => pool.query(purgeSessionsSql, [endedSessionDays, rowsAtOnce])),
  ]);
  return { sessions, facts, leases };
};
