import type { Pool } from './database/database.ts';

/**
 * Takes or keeps a duty that only one process may have (the sweep, the relay, a rebuild). A holder that does not renew
 * loses it after `seconds`. One that is held for more than twice as long was taken before the clock was set back: its
 * holder may be gone, and it is free. A smaller step takes it from nobody. All who ask for one duty must ask for the
 * same seconds: who asks for less than half would take it from its holder, which learns of that only when it renews.
 */
export const holdDuty = async (pool: Pool, name: string, holder: string, seconds: number): Promise<boolean> => {
  const { rowCount } = await pool.query(
    `insert into duties (name, holder, held_until) values ($1, $2, clock_timestamp() + make_interval(secs => $3))
      on conflict (name) do update set holder = excluded.holder, held_until = excluded.held_until
        where duties.holder = excluded.holder
          or duties.held_until not between clock_timestamp() and clock_timestamp() + 2 * make_interval(secs => $3)`,
    [name, holder, seconds],
  );
  return rowCount === 1;
};

/** Gives a duty back, so that another takes it at once. */
export const releaseDuty = async (pool: Pool, name: string, holder: string): Promise<void> => {
  await pool.query('delete from duties where name = $1 and holder = $2', [name, holder]);
};

export interface Duty {
  /** Takes or keeps it: whether it is had now. */
  readonly hold: () => Promise<boolean>;
  readonly release: () => Promise<void>;
}

/** A duty that is given back only once nobody is keeping it any more, which could take it once more. */
export const createDuty = (ask: () => Promise<boolean>, giveBack: () => Promise<void>): Duty => {
  const underWay = new Set<Promise<boolean>>();
  return {
    hold: () => {
      const held = ask();
      underWay.add(held);
      const end = (): void => void underWay.delete(held);
      held.then(end, end);
      return held;
    },
    release: async () => {
      await Promise.allSettled(underWay);
      await giveBack();
    },
  };
};
