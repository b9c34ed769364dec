import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startDatabase } from '../../test/given.ts';
import { inTransaction, type Pool } from '../index.ts';
import { send } from './statement.ts';

describeWith(['postgres'], 'statements', () => {
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());

  describe('columns arrive as they were given', () => {
    test.each([
      ['text', ['plain', '', 'NULL', null, 'a,b', '{c}', 'two words', "o'clock", '"quoted"', 'back\\slash', '\\"']],
      [
        'text',
        ['line\nbreak', 'tab\t', 'bell\u0007', 'delete\u007f', '\\n', '\\\\n', '\\u0041', 'é', '👩‍🚀', '\u2028'],
      ],
      ['int', [1, -1, null, 0]],
      ['boolean', [true, false, null]],
      ['jsonb', ['{"a": "b\\n\\"c\\""}', null, '[]']],
      ['bytea', [Buffer.from([0, 255, 92, 34]), Buffer.alloc(0), null]],
      ['timestamptz', [new Date(0), new Date('9999-12-31T23:59:59.999Z'), null]],
      ['text', []],
    ])('%s[] %j', async (type, items) => {
      const { rows } = await inTransaction(pool, (client) =>
        send<{ value: unknown }>(
          client,
          `select value from unnest($1::${type}[]) with ordinality as c (value, at) order by at`,
          [items],
        ),
      );
      const wanted = type === 'jsonb' ? items.map((item) => (item === null ? null : JSON.parse(String(item)))) : items;
      expect(rows.map(({ value }) => value)).toEqual(wanted);
    });
  });

  test('are kept prepared', async () => {
    const count = await inTransaction(pool, async (client) => {
      await send(client, 'select $1::int', [1]);
      const { rows } = await client.query('select 1 from pg_prepared_statements');
      return rows.length;
    });
    expect(count).toBeGreaterThan(0);
  });

  test('that are sent together are carried out in order, and none counts when one fails', async () => {
    const order = inTransaction(pool, async (client) => {
      await Promise.all([
        send(client, `insert into duties values ($1, 'first', now())`, ['duty']),
        send(client, `update duties set holder = 'second' where name = $1 and holder = 'first'`, ['duty']),
      ]);
      const { rows } = await client.query(`select holder from duties where name = 'duty'`);
      expect(rows).toEqual([{ holder: 'second' }]);
      await Promise.all([send(client, 'select 1 / $1::int', [0]), send(client, 'delete from duties', [])]);
    });
    await expect(order).rejects.toThrow('division by zero');
    expect((await pool.query('select * from duties')).rows).toEqual([]);
  });
});
