import type { WorkingSet } from '../src/working-set.ts';

const withBigInts = (_: string, value: unknown): unknown => {
  if (typeof value === 'bigint') return `${value}n`;
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
};

/** Everything that folds from room events as sorted lines, one an entity: two states are equal when their lines are. */
export const snapshotOf = (set: WorkingSet): string[] => {
  const { rooms, members, bans, users, logins, suspects } = set;
  const tables = { rooms, members, bans, users, logins, suspects };
  return Object.entries(tables)
    .flatMap(([name, table]) => [...table.values()].map((row) => `${name} ${JSON.stringify(row, withBigInts)}`))
    .sort();
};
