import type { ProjectionPartition } from './apply/chunk.ts';
import { factIdentityMs } from './apply/repeats.ts';
import type { Pool } from './database/database.ts';
import { activeProjection } from './positions.ts';

/** Longer than the webhooks' topic keeps anything: no late fact can find an ended session gone and open it again. */
const endedSessionDays = 8;

export interface Purged {
  readonly facts: number;
  readonly leases: number;
  readonly sessions: number;
}

/** Drops the identities of facts that can never count as repeated again (`repeats.ts`); of all partitions, or of one. */
export const purgeFacts = async (
  pool: Pool,
  at: Pick<ProjectionPartition, 'projection'> & Partial<ProjectionPartition>,
): Promise<number> => {
  const { rowCount } = await pool.query(
    `delete from applied_facts as fact using log_positions as position
      where position.projection = $1 and position.topic = coalesce($2, position.topic)
        and position."partition" = coalesce($3, position."partition")
        and fact.topic = position.topic and fact."partition" = position."partition"
        and fact.recorded_at < position.newest_recorded_at - make_interval(secs => $4::float8 / 1000)`,
    [at.projection, at.topic ?? null, at.partition ?? null, factIdentityMs],
  );
  return rowCount ?? 0;
};

/** Drops what no decision can rest on any more: identities of facts, ended sessions, and expired leases. */
export const purge = async (pool: Pool): Promise<Purged> => {
  const facts = await purgeFacts(pool, { projection: activeProjection });
  const leases = await pool.query('delete from seat_leases where expires_at < clock_timestamp()');
  const sessions = await pool.query(
    'delete from sessions where not is_live and last_fact_at < clock_timestamp() - make_interval(days => $1)',
    [endedSessionDays],
  );
  return { sessions: sessions.rowCount ?? 0, facts, leases: leases.rowCount ?? 0 };
};
