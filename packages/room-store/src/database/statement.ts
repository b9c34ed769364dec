import type pg from 'pg';
import { ArrayParameter } from './array-parameter.ts';
import { type Client, preparedAs, statementTimeoutMs } from './database.ts';

/** A statement's text as it is sent, its name where it is kept, and what those of its values are that are columns. */
interface Statement {
  readonly name: string;
  readonly text: string;
  readonly columnTypes: readonly (string | undefined)[];
}

/** By their texts: these are constants, so there are few. */
const statements = new Map<string, Statement>();

/**
 * A domain over text travels as text: binary arrays name the type of their items, and a domain's oid is another in each
 * database.
 */
const asText = (text: string): string => text.replaceAll(/(\$\d+)::opaque_id\[\]/g, '$1::text[]::opaque_id[]');

const statementOf = (given: string): Statement => {
  let statement = statements.get(given);
  if (statement === undefined) {
    const text = asText(given);
    const columnTypes: string[] = [];
    for (const [, place, type = ''] of text.matchAll(/\$(\d+)::(\w+)\[\]/g)) columnTypes[Number(place) - 1] = type;
    statement = { name: `statement_${statements.size}`, text, columnTypes };
    statements.set(given, statement);
  }
  return statement;
};

/**
 * What is sent for a statement, kept prepared where that is safe. Columns are given as arrays. The text must be a
 * constant, or one of few, and says of each column's parameter what it is (`$1::text[]`).
 */
export const toQuery = (given: string, values: readonly unknown[], database: object): pg.QueryConfig => {
  const { name, text, columnTypes } = statementOf(given);
  const toParameter = (value: unknown, at: number): unknown =>
    Array.isArray(value) ? new ArrayParameter(value, columnTypes[at] ?? '') : value;
  return { ...preparedAs(name, database), text, values: values.map(toParameter) };
};

/**
 * Statements wait for those that were sent before them; each of those has the server's own limit. Where the server has
 * vanished nobody keeps it: a consumer takes who applies a batch for dead after 30 s, and ends the process.
 */
const answerTimeoutMs = 3 * statementTimeoutMs;

/** Sends a statement by {@link toQuery}. */
export const send = <R extends pg.QueryResultRow>(
  client: Client,
  text: string,
  values: readonly unknown[],
): Promise<pg.QueryResult<R>> => {
  const query: pg.QueryConfig & pg.ClientConfig = { ...toQuery(text, values, client), query_timeout: answerTimeoutMs };
  return client.query<R>(query);
};
