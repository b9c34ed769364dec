import { createDatabase, startFaultProxy } from '@realtime-service/dev-stack';
import { describeWith, realParts } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startDatabase } from '../../test/given.ts';
import { createPool, inTransaction, isUnstorable, type Pool } from '../index.ts';
import { send } from './statement.ts';

const toDate = (text: string): Date => new Date(text);

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
      ['text', ['x'.repeat(50_000), 'é'.repeat(50_000), '👩‍🚀'.repeat(20_000)]],
      ['opaque_id', ['room', null, '', 'é', '👩‍🚀']],
      ['int', [1, -1, null, 0, 2 ** 31 - 1, -(2 ** 31)]],
      ['bigint', ['0', '-1', null, '9223372036854775807', '-9223372036854775808']],
      ['numeric', ['9'.repeat(39), null, '0']],
      ['boolean', [true, false, null]],
      ['jsonb', ['{"a": "b\\n\\"c\\""}', null, '[]', '"é"']],
      ['bytea', [Buffer.from([0, 255, 92, 34]), Buffer.alloc(0), null, Buffer.alloc(3_000_000, 1)]],
      ['timestamptz', [new Date(0), null, ...['0001-01-01T00:00:00.000Z', '1999-12-31T23:59:59.999Z'].map(toDate)]],
      ['timestamptz', ['2026-02-03T04:05:06.789Z', '9999-12-31T23:59:59.999Z'].map(toDate)],
      ['text', [null, null]],
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

  test('columns of bytes and of numbers of 64 bits may be given in other ways, too', async () => {
    const { rows } = await inTransaction(pool, (client) =>
      send(client, 'select * from unnest($1::bytea[], $2::bigint[]) as c (bytes, number)', [
        ['00ff5c22', ''],
        [2n ** 63n - 1n, -1],
      ]),
    );
    expect(rows).toEqual([
      { bytes: Buffer.from([0, 255, 92, 34]), number: '9223372036854775807' },
      { bytes: Buffer.alloc(0), number: '-1' },
    ]);
  });

  test.each([
    ['text', 'a\0b'],
    ['jsonb', '"\\u0000"'],
    ['jsonb', '{'],
    ['int', 2 ** 31],
    ['bigint', '9223372036854775808'],
  ])(
    'a column of %s with %j is refused as what can never be stored, and the connection goes on',
    async (type, item) => {
      const column = (items: readonly unknown[]) =>
        inTransaction(pool, (client) => send(client, `select $1::${type}[]`, [items]));
      const sent = column([item]);
      expect(isUnstorable(await sent.catch((error: unknown) => error))).toBe(true);
      await expect(sent).rejects.toThrow();
      await expect(column([null])).resolves.toMatchObject({ rowCount: 1 });
    },
  );

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

  test('that nobody answers any more are given up long before a consumer takes whoever waits for dead, after 30 s', async () => {
    const { postgres } = realParts(['postgres']);
    const proxy = await startFaultProxy(postgres.port);
    const url = Object.assign(new URL(await createDatabase(postgres.url)), { port: String(proxy.port) }).href;
    const silent = createPool({ url, maxConnections: 1, applicationName: 'x', onError: () => undefined });
    let sentAtMs = 0;
    const given = inTransaction(silent, async (client) => {
      await send(client, 'select 1', []);
      proxy.stall();
      sentAtMs = performance.now();
      await send(client, 'select 2', []);
    });
    await expect(given).rejects.toThrow('Query read timeout');
    expect(performance.now() - sentAtMs).toBeLessThan(18_000);
    await Promise.all([silent.end(), proxy.stop()]);
  }, 40_000);
});
