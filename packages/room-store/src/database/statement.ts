import type pg from 'pg';
import { type Client, preparedAs, statementTimeoutMs } from './database.ts';

/** Names of statements by their text: texts are constants, so there are few. */
const names = new Map<string, string>();

const nameOf = (text: string): string => {
  let name = names.get(text);
  if (name === undefined) {
    name = `projection_${names.size}`;
    names.set(text, name);
  }
  return name;
};

const quoted = (text: string): string => `"${text.replace(/["\\]/g, '\\$&')}"`;

/** JSON and PostgreSQL's arrays write the same, but for the brackets and for what JSON escapes by a letter. */
const isEscapedByLetter = /\\[^"\\]/;

const toArrayText = (items: readonly unknown[]): string => {
  const json = JSON.stringify(items);
  if (!isEscapedByLetter.test(json)) return `{${json.slice(1, -1)}}`;
  return `{${items.map((item) => (typeof item === 'string' ? quoted(item) : JSON.stringify(item))).join(',')}}`;
};

/** Bytes in hex as PostgreSQL reads them. */
export const toBytea = (hex: string): string => `\\x${hex}`;

/**
 * A column of values as PostgreSQL's array text. The driver's own writing of arrays took a third of a record's time.
 */
export class ArrayParameter {
  readonly items: readonly unknown[];

  constructor(items: readonly unknown[]) {
    this.items = items;
  }

  /** Asked for by the driver. */
  toPostgres(): string {
    return toArrayText(this.items.map((item) => (Buffer.isBuffer(item) ? toBytea(item.toString('hex')) : item)));
  }
}

/** Statements wait for those that were sent before them; each of those has the server's own limit. */
const answerTimeoutMs = 6 * statementTimeoutMs;

/**
 * Sends a statement, kept prepared where that is safe. Columns are given as arrays. The text must be a constant, or one
 * of few.
 */
export const send = <R extends pg.QueryResultRow>(
  client: Client,
  text: string,
  values: readonly unknown[],
): Promise<pg.QueryResult<R>> => {
  const query: pg.QueryConfig & pg.ClientConfig = {
    ...preparedAs(nameOf(text), client),
    text,
    values: values.map((value) => (Array.isArray(value) ? new ArrayParameter(value) : value)),
    query_timeout: answerTimeoutMs,
  };
  return client.query<R>(query);
};
