import { ArrayParameter, type Client, type Pool } from '@realtime-service/room-store';

/** A statement as it was sent, with its values. */
export interface Statement {
  readonly text: string;
  readonly values: readonly unknown[];
}

/** The writes and locks of one chunk, in their order. */
export type ChunkStatements = readonly Statement[];

const isLock = (text: string): boolean => /\bfor (?:update|no key update|share)\b/.test(text);
const isWrite = (text: string): boolean => /^\s*(?:insert|update|delete|with)\b/.test(text);

/** Marks are selected by joining; what was written is written by itself. */
const marksInsert = /insert into marks\b/;
const returnedMark = 'room_id, identity, cause, caused_at, trace, due_at';
const writeMarks = `insert into marks (${returnedMark})
  select * from unnest($1::opaque_id[], $2::opaque_id[], $3::text[], $4::timestamptz[], $5::text[], $6::timestamptz[])
  on conflict (room_id, identity) do update set generation = marks.generation + 1, cause = excluded.cause,
    caused_at = least(marks.caused_at, excluded.caused_at), trace = excluded.trace, due_at = excluded.due_at, attempts = 0`;

type MarkRow = Readonly<Record<string, unknown>>;

const markStatement = (rows: readonly MarkRow[]): Statement => ({
  text: writeMarks,
  values: returnedMark.split(', ').map((name) => rows.map((row) => row[name])),
});

/**
 * Records what is sent through a pool, transaction by transaction. What only reads, and every other way of finding out
 * what to write, is left out: the rest is the least that a program which already knew the answer would have to send.
 */
export const recordingOf = (pool: Pool): { readonly pool: Pool; readonly chunks: ChunkStatements[] } => {
  const chunks: ChunkStatements[] = [];

  const record = (client: Client): Client => {
    let statements: Statement[] = [];
    const query = async (given: string | Statement, givenValues: readonly unknown[] = []) => {
      const { text, values: sent = [] } = typeof given === 'string' ? { text: given, values: givenValues } : given;
      const values = sent.map((value) => (value instanceof ArrayParameter ? asDriverTakes(value) : value));
      if (marksInsert.test(text)) {
        const result = await client.query<MarkRow>(`${text} returning ${returnedMark}`, [...values]);
        if (result.rows.length > 0) statements.push(markStatement(result.rows));
        return result;
      }
      const result = await client.query(text, [...values]);
      if (text.startsWith('begin')) statements = [];
      else if (text === 'commit') chunks.push(statements);
      else if (isLock(text) || isWrite(text)) statements.push({ text, values });
      return result;
    };
    return new Proxy(client, { get: (target, name) => (name === 'query' ? query : bound(target, name)) });
  };

  const connect = async (): Promise<Client> => record(await pool.connect());
  return {
    pool: new Proxy(pool, { get: (target, name) => (name === 'connect' ? connect : bound(target, name)) }),
    chunks,
  };
};

/** As the driver, which writes them as text, takes them most cheaply. */
const asDriverTakes = ({ items, type }: ArrayParameter): readonly unknown[] =>
  items.map((item) => toCheapest(item, type));

const toCheapest = (item: unknown, type: string): unknown => {
  if (type === 'bytea' && typeof item === 'string') return Buffer.from(item, 'hex');
  if (item instanceof Date) return item.toISOString();
  return typeof item === 'bigint' ? item.toString() : item;
};

const bound = <T extends object>(target: T, name: string | symbol): unknown => {
  const value: unknown = Reflect.get(target, name);
  return typeof value === 'function' ? value.bind(target) : value;
};
