import type { LogPosition } from '@realtime-service/contracts';
import type { DeadLetter } from '../apply/chunk.ts';
import type { Pool } from '../database/database.ts';
import { isAtPlacesSql, placeColumns, toDeadLetter } from './dead-letters.ts';

export const deadLetterStatuses = ['open', 'retried', 'discarded'] as const;
export type DeadLetterStatus = (typeof deadLetterStatuses)[number];

/** Which letters: of each list any value, of the lists all; what is absent leaves out nothing. */
export interface DeadLetterFilter {
  readonly status?: readonly string[];
  readonly reason?: readonly string[];
  readonly topic?: readonly string[];
  readonly type?: readonly string[];
  readonly key?: readonly string[];
  /** The room (or user) that a letter is about; its key where that is not known. */
  readonly room?: readonly string[];
  /** Bounds of the record time: from this one on, and before that one. */
  readonly sinceMs?: number;
  readonly untilMs?: number;
}

/** A letter without its content. */
export interface DeadLetterSummary extends Omit<DeadLetter, 'value' | 'headers'> {
  /** Null where it could not be read. */
  readonly type: string | null;
  readonly subject: string | null;
  readonly status: DeadLetterStatus;
  readonly isRelayed: boolean;
  /** The log record that settled it. */
  readonly settledBy: (LogPosition & { readonly atMs: number }) | null;
}
export type KeptDeadLetter = DeadLetterSummary & DeadLetter;

export interface DeadLetterPage {
  /** The place that the last page ended at. */
  readonly after: LogPosition | null;
  readonly limit: number;
}

type Row = Record<string, unknown>;

const summaryColumns = `topic, "partition", "offset", recorded_at, key, reason, message, type, subject, status, is_relayed,
  settled_topic, settled_partition, settled_offset, settled_at`;

const toKept = (row: Row): KeptDeadLetter => ({
  ...toDeadLetter(row),
  type: row.type as string | null,
  subject: row.subject as string | null,
  status: row.status as DeadLetterStatus,
  isRelayed: row.is_relayed as boolean,
  settledBy:
    row.settled_topic === null
      ? null
      : {
          topic: row.settled_topic as string,
          partition: row.settled_partition as number,
          offset: BigInt(row.settled_offset as string),
          atMs: (row.settled_at as Date).getTime(),
        },
});

const toSummary = (row: Row): DeadLetterSummary => {
  const { value: _, headers: __, ...summary } = toKept({ ...row, value: null, headers: {} });
  return summary;
};

const bytesOf = (texts: readonly string[] | undefined): Buffer[] | null =>
  texts?.map((text) => Buffer.from(text)) ?? null;
const dateOf = (ms: number | undefined): Date | null => (ms === undefined ? null : new Date(ms));

/** In the order of places, which is each room's own order. */
export const findDeadLetters = async (
  pool: Pool,
  filter: DeadLetterFilter,
  { after, limit }: DeadLetterPage,
): Promise<DeadLetterSummary[]> => {
  const { rows } = await pool.query(
    `select ${summaryColumns} from dead_letters
      where ($1::text[] is null or status = any($1)) and ($2::text[] is null or reason = any($2))
        and ($3::text[] is null or topic = any($3)) and ($4::text[] is null or type = any($4))
        and ($5::bytea[] is null or key = any($5))
        and ($6::opaque_id[] is null or subject = any($6) or (subject is null and key = any($7::bytea[])))
        and ($8::timestamptz is null or recorded_at >= $8) and ($9::timestamptz is null or recorded_at < $9)
        and ($10::text is null or (topic, "partition", "offset") > ($10, $11::int, $12::bigint))
      order by topic, "partition", "offset" limit $13`,
    [
      filter.status ?? null,
      filter.reason ?? null,
      filter.topic ?? null,
      filter.type ?? null,
      bytesOf(filter.key),
      filter.room ?? null,
      bytesOf(filter.room),
      dateOf(filter.sinceMs),
      dateOf(filter.untilMs),
      after?.topic ?? null,
      after?.partition ?? null,
      after?.offset.toString() ?? null,
      limit,
    ],
  );
  return rows.map(toSummary);
};

/** Those of one partition from a place on to an offset, both included. */
export const findDeadLettersBetween = async (
  client: Pick<Pool, 'query'>,
  { topic, partition, offset }: LogPosition,
  lastOffset: bigint,
): Promise<DeadLetterSummary[]> => {
  const { rows } = await client.query(
    `select ${summaryColumns} from dead_letters
      where topic = $1 and "partition" = $2 and "offset" between $3 and $4`,
    [topic, partition, offset.toString(), lastOffset.toString()],
  );
  return rows.map(toSummary);
};

/** Those of these letters that there are, in the order of places. */
export const summariseDeadLetters = async (
  client: Pick<Pool, 'query'>,
  places: readonly LogPosition[],
): Promise<DeadLetterSummary[]> => {
  const { rows } = await client.query(
    `select ${summaryColumns} from dead_letters where ${isAtPlacesSql} order by topic, "partition", "offset"`,
    placeColumns(places),
  );
  return rows.map(toSummary);
};

export const readDeadLetter = async (pool: Pool, place: LogPosition): Promise<KeptDeadLetter | undefined> => {
  const { rows } = await pool.query(`select * from dead_letters where ${isAtPlacesSql}`, placeColumns([place]));
  return rows[0] === undefined ? undefined : toKept(rows[0]);
};

/** How many letters nobody has settled yet. */
export const countOpenDeadLetters = async (pool: Pool): Promise<number> => {
  const { rows } = await pool.query<{ open: number }>(
    `select count(*)::int as open from dead_letters where status = 'open'`,
  );
  return rows[0]?.open ?? 0;
};
