import type { Pool } from './database.ts';

/** How long the identity of a fact is kept, by record time: a producer that repeats later than this is a new fact. */
const factIdentityDays = 7;

/** Longer than the webhooks' topic keeps anything: no late fact can find an ended session gone and open it again. */
const endedSessionDays = 8;

export interface Purged {
  readonly facts: number;
  readonly leases: number;
  readonly sessions: number;
}

/**
 * Drops what no decision can rest on any more: identities of facts that are older than the newest one of their partition
 * by a week (by record time, so that reading an old log again keeps what it needs), ended sessions, and expired leases.
 */
export const purge = async (pool: Pool): Promise<Purged> => {
  const facts = await pool.query(
    `delete from applied_facts as fact
      using (select topic, "partition", max(recorded_at) - make_interval(days => $1) as before
        from applied_facts group by topic, "partition") as kept
      where fact.topic = kept.topic and fact."partition" = kept."partition" and fact.recorded_at < kept.before`,
    [factIdentityDays],
  );
  const leases = await pool.query('delete from seat_leases where expires_at < clock_timestamp()');
  const sessions = await pool.query(
    'delete from sessions where not is_live and last_fact_at < clock_timestamp() - make_interval(days => $1)',
    [endedSessionDays],
  );
  return { sessions: sessions.rowCount ?? 0, facts: facts.rowCount ?? 0, leases: leases.rowCount ?? 0 };
};
