import type { LogPartition } from '@realtime-service/contracts';
import { type Suspect, WorkingSet } from '@realtime-service/room-model';
import { factIdentityMs } from '../apply/repeats.ts';
import { type Client, unlimitedTransactionSql } from '../database/database.ts';
import {
  banTable,
  endedLoginTable,
  memberTable,
  roomTable,
  suspectTable,
  type Table,
  userTable,
} from '../database/rows.ts';
import { activeProjection } from '../positions.ts';
import { transactionOf } from '../postgres-store.ts';
import type { ChunkStore, ProjectedPosition } from '../store.ts';
import { rebuiltTables } from './rebuild-set.ts';

/** What a partition of the log says, folded in memory by the pure model. */
export interface Model {
  readonly set: WorkingSet;
  readonly store: ChunkStore;
  readonly nextOffset: () => bigint;
  readonly newestRecordedAtMs: () => number;
  /** Record times of the facts that still count as applied. */
  readonly facts: ReadonlyMap<string, number>;
}

const factsPerPurge = 100_000;

/**
 * A model to apply chunks to, from the beginning of a partition: no table is read for it or written by it, but for dead
 * letters that an operator had read again.
 */
export const createModel = (client: Client): Model => {
  const set = new WorkingSet();
  const facts = new Map<string, number>();
  let position: ProjectedPosition = { nextOffset: 0n, newestRecordedAtMs: 0, last: null };
  let purgedAt = 0;
  const purge = (): void => {
    if (facts.size < purgedAt + factsPerPurge) return;
    for (const [key, recordedAtMs] of facts)
      if (recordedAtMs < position.newestRecordedAtMs - factIdentityMs) facts.delete(key);
    purgedAt = facts.size;
  };
  const store: ChunkStore = {
    transaction: (work) =>
      work({
        ...transactionOf(client),
        lockPosition: async () => ({ ...position, nowMs: Date.now() }),
        knownFacts: async (_, factKeys) =>
          factKeys.flatMap((factKey) => {
            const recordedAtMs = facts.get(factKey);
            return recordedAtMs === undefined ? [] : [{ factKey, recordedAtMs }];
          }),
        lock: async () => {},
        // The set itself: what is folded into it stays.
        load: async () => set,
        write: async (_, { records }) => {
          for (const { factKey, recordedAtMs } of records) if (factKey !== null) facts.set(factKey, recordedAtMs);
          return 0;
        },
        advance: async (_, next) => {
          position = next;
          purge();
        },
      }),
    notifyMarks: async () => {},
  };
  return {
    set,
    store,
    facts,
    nextOffset: () => position.nextOffset,
    newestRecordedAtMs: () => position.newestRecordedAtMs,
  };
};

/** A place where tables and log differ. Values are as the columns have them. */
export interface Difference {
  /** `missing`: by the log there should be such a row. `extra`: there should not. */
  readonly kind: 'missing' | 'extra' | 'differs';
  readonly table: string;
  readonly key: readonly string[];
  /** What differs of a row that is on both sides. */
  readonly field: string | null;
  readonly stored: string | null;
  readonly folded: string | null;
  /** The fact that each side was last changed by: event id, and topic/partition/offset. */
  readonly storedBy: string | null;
  readonly foldedBy: string | null;
}

type Row = Record<string, unknown>;
type Fields = ReadonlyMap<string, string | null>;

const sorted = (_: string, value: unknown): unknown =>
  value === null || typeof value !== 'object' || Array.isArray(value)
    ? value
    : Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));

const fieldsOf = <T>({ columns }: Table<T>, row: T): Fields =>
  new Map(
    columns.map(({ name, type, value }): [string, string | null] => {
      const written = value(row) ?? null;
      const text = type === 'jsonb' && written !== null ? JSON.stringify(JSON.parse(String(written)), sorted) : written;
      return [name.replaceAll('"', ''), text === null ? null : String(text)];
    }),
  );

const factOf = (fields: Fields): string | null => {
  const id = fields.get('event_id');
  return id == null ? null : `${id} ${fields.get('topic')}/${fields.get('partition')}/${fields.get('offset')}`;
};

const keyOfFields = ({ key }: { readonly key: readonly string[] }, fields: Fields): string[] =>
  key.map((name) => fields.get(name) ?? '');

const oneSided = (kind: 'missing' | 'extra', table: string, fields: Fields, key: readonly string[]): Difference => {
  const by = factOf(fields);
  const sides = kind === 'missing' ? { storedBy: null, foldedBy: by } : { storedBy: by, foldedBy: null };
  return { kind, table, key, field: null, stored: null, folded: null, ...sides };
};

const rowsPerFetch = 2_000;
/** A whole table may have to be read to find the rows of a partition. */
const fetchNext = { text: `fetch ${rowsPerFetch} from verified`, query_timeout: 600_000 };

async function* scan(client: Client, sql: string, values: readonly unknown[]): AsyncIterable<Row> {
  await client.query(`declare verified no scroll cursor for ${sql}`, [...values]);
  for (;;) {
    const { rows } = await client.query(fetchNext);
    yield* rows;
    if (rows.length < rowsPerFetch) break;
  }
  await client.query('close verified');
}

/**
 * Compares tables with models of the log, one partition after the other, in one REPEATABLE READ transaction of
 * `client`. Memory is that of one partition's model and of the differences found.
 */
export class Comparison {
  readonly #client: Client;
  readonly #partitionOf: (key: string) => number;
  readonly #report: (difference: Difference) => void;
  /**
   * Rows that the model of their provenance's partition does not hold. Reported only at the end: a retried letter's
   * provenance is the letter's place, and another partition's model may hold the row.
   */
  readonly #unclaimed = new Map<string, Difference>();
  readonly #claimed = new Set<string>();

  constructor(
    client: Client,
    { partitionOf, report }: { partitionOf: (key: string) => number; report: (difference: Difference) => void },
  ) {
    this.#client = client;
    this.#partitionOf = partitionOf;
    this.#report = report;
  }

  async compare(model: Model, at: LogPartition): Promise<void> {
    const { rooms, members, bans, users, logins, suspects } = model.set;
    await this.#compareTable(roomTable, rooms.values(), at);
    await this.#compareTable(memberTable, members.values(), at);
    await this.#compareTable(banTable, bans.values(), at);
    await this.#compareTable(userTable, users.values(), at);
    await this.#compareTable(endedLoginTable, logins.values(), at);
    // A record under a wrong key leaves a doubt that facts of another partition settle: nothing says in which order.
    const isOfLane = ({ roomId, userId, cause }: Suspect): boolean =>
      cause.partition === at.partition && this.#partitionOf(roomId || userId) === at.partition;
    await this.#compareTable(suspectTable, [...suspects.values()].filter(isOfLane), at, isOfLane);
    await this.#compareFacts(model, at);
    await this.#comparePosition(model, at);
  }

  /**
   * Call after all partitions. Also gathers rows whose provenance names another topic or a partition that does not
   * exist, then reports what no model has claimed.
   */
  async finish(topic: string, partitionCount: number): Promise<void> {
    const topicHasIt = `topic = $1 and "partition" < $2`;
    const gatherStrays = async <T>(table: Table<T>): Promise<void> => {
      // Without an event a row is only a lock.
      const sql = `${table.selectSql} where event_id is not null and not (${topicHasIt})`;
      for await (const row of scan(this.#client, sql, [topic, partitionCount]))
        this.#leaveUnclaimed(table, fieldsOf(table, table.read(row)));
    };
    await gatherStrays(roomTable);
    await gatherStrays(memberTable);
    await gatherStrays(banTable);
    await gatherStrays(userTable);
    await gatherStrays(endedLoginTable);
    await gatherStrays(suspectTable);
    for (const [id, difference] of this.#unclaimed) if (!this.#claimed.has(id)) this.#report(difference);
  }

  #compareFields(table: string, key: readonly string[], stored: Fields, folded: Fields): void {
    const by = { storedBy: factOf(stored), foldedBy: factOf(folded) };
    for (const [field, value] of folded) {
      const found = stored.get(field) ?? null;
      if (found !== value) this.#report({ kind: 'differs', table, key, field, stored: found, folded: value, ...by });
    }
  }

  #leaveUnclaimed<T>(table: Table<T>, stored: Fields): void {
    const key = keyOfFields(table, stored);
    this.#unclaimed.set(`${table.name} ${JSON.stringify(key)}`, oneSided('extra', table.name, stored, key));
  }

  async #compareTable<T>(
    table: Table<T>,
    rows: Iterable<T>,
    { topic, partition }: LogPartition,
    isCompared: (row: T) => boolean = () => true,
  ): Promise<void> {
    const folded = new Map<string, Fields>();
    for (const row of rows) {
      const fields = fieldsOf(table, row);
      folded.set(JSON.stringify(keyOfFields(table, fields)), fields);
    }
    const sql = `${table.selectSql} where topic = $1 and "partition" = $2`;
    for await (const row of scan(this.#client, sql, [topic, partition])) {
      const read = table.read(row);
      if (!isCompared(read)) continue;
      const stored = fieldsOf(table, read);
      const key = keyOfFields(table, stored);
      const id = JSON.stringify(key);
      const expected = folded.get(id);
      if (expected === undefined) this.#leaveUnclaimed(table, stored);
      else this.#compareFields(table.name, key, stored, expected);
      folded.delete(id);
    }
    // Not found by their provenance: it differs, at least, or there is no such row.
    for (const [id, expected] of folded) {
      const key = keyOfFields(table, expected);
      const where = table.key.map((name, place) => `${name} = $${place + 1}`).join(' and ');
      const { rows: found } = await this.#client.query(
        `${table.selectSql} where ${where} and event_id is not null`,
        key,
      );
      this.#claimed.add(`${table.name} ${id}`);
      if (found[0] === undefined) this.#report(oneSided('missing', table.name, expected, key));
      else this.#compareFields(table.name, key, fieldsOf(table, table.read(found[0])), expected);
    }
  }

  async #compareFacts(model: Model, { topic, partition }: LogPartition): Promise<void> {
    const oldestMs = model.newestRecordedAtMs() - factIdentityMs;
    const left = new Map([...model.facts].filter(([, recordedAtMs]) => recordedAtMs >= oldestMs));
    const fieldsAt = (recordedAtMs: number): Fields => new Map([['recorded_at', new Date(recordedAtMs).toISOString()]]);
    const keyOf = (factKey: string): string[] => [topic, `${partition}`, factKey];
    const sql =
      'select fact_key, recorded_at from applied_facts where topic = $1 and "partition" = $2 and recorded_at >= $3';
    for await (const row of scan(this.#client, sql, [topic, partition, new Date(oldestMs)])) {
      const factKey = (row.fact_key as Buffer).toString('hex');
      const stored = fieldsAt((row.recorded_at as Date).getTime());
      const recordedAtMs = left.get(factKey);
      const key = keyOf(factKey);
      if (recordedAtMs === undefined) this.#report(oneSided('extra', 'applied_facts', stored, key));
      else this.#compareFields('applied_facts', key, stored, fieldsAt(recordedAtMs));
      left.delete(factKey);
    }
    for (const [factKey, recordedAtMs] of left)
      this.#report(oneSided('missing', 'applied_facts', fieldsAt(recordedAtMs), keyOf(factKey)));
  }

  async #comparePosition(model: Model, { topic, partition }: LogPartition): Promise<void> {
    const { rows } = await this.#client.query<{ newest_recorded_at: Date }>(
      `select newest_recorded_at from log_positions where projection = $1 and topic = $2 and "partition" = $3`,
      [activeProjection, topic, partition],
    );
    const stored: Fields = new Map([['newest_recorded_at', rows[0]?.newest_recorded_at.toISOString() ?? null]]);
    const folded: Fields = new Map([['newest_recorded_at', new Date(model.newestRecordedAtMs()).toISOString()]]);
    this.#compareFields('log_positions', [topic, `${partition}`], stored, folded);
  }
}

/**
 * A transaction that sees the database as it is now for as long as it lasts, and changes nothing. No rebuild can be put
 * in place meanwhile: its tables would have no rows for a snapshot that is older than they are in their place.
 */
export const beginSnapshot = async (client: Client): Promise<void> => {
  await client.query(
    'begin isolation level repeatable read read only; set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0; ' +
      // The snapshot is taken by the first query, when none can be replaced any more.
      `lock table ${rebuiltTables.join(', ')} in access share mode; ${unlimitedTransactionSql}`,
  );
};
