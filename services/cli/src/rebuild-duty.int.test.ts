import { createDatabase } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { createPool, migrate } from '@realtime-service/room-store';
import { expect, test } from 'vitest';
import { notingTerminal } from '../test/noting-terminal.ts';
import { takeDuty } from './rebuild-duty.ts';

describeWith(['postgres'], 'the right to rebuild', ({ postgres }) => {
  test('is given back, also where it is being kept at that moment', async () => {
    const url = await createDatabase(postgres.url);
    await migrate(url);
    const pool = createPool({ url, maxConnections: 2, applicationName: 'x', onError: () => undefined });
    const { terminal } = notingTerminal();
    const { keep, release } = await takeDuty({ pool, terminal, ending: new AbortController().signal });
    await pool.query(`create function linger() returns trigger language plpgsql as 'begin perform pg_sleep(0.3); return new; end';
      create trigger linger before insert on duties for each row execute function linger()`);
    await Promise.all([keep(), release()]);
    expect((await pool.query('select from duties')).rowCount).toBe(0);
    await pool.end();
  });
});
