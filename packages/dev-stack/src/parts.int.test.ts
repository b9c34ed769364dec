import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createDatabase, type Postgres, startPostgres } from './postgres.ts';
import { describeWith } from './vitest.ts';

async function valueOf(url: string, sql: string): Promise<unknown> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query({ text: sql, rowMode: 'array' });
    return rows[0]?.[0];
  } finally {
    await client.end();
  }
}

describeWith(['postgres'], 'PostgreSQL', () => {
  let postgres: Postgres;

  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres.stop());

  test('keeps committed rows over a crash', async () => {
    const url = await createDatabase(postgres.url);
    await valueOf(url, 'create table kept as select 42 as answer');
    await postgres.kill();
    await expect(valueOf(url, 'select 1')).rejects.toThrow('ECONNREFUSED');
    await postgres.start();
    expect(await valueOf(url, 'select answer from kept')).toBe(42);
  });
});
