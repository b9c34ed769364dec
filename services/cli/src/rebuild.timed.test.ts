import { setTimeout as delay } from 'node:timers/promises';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { createFactsReader, createPool, type FactsAnswer, readFacts } from '@realtime-service/room-store';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { holdTables, startRebuild } from '../test/rebuilding.ts';
import { appendHistory, binary, type RebuiltDatabase, startRebuiltDatabase } from '../test/rebuilt-database.ts';
import { runRealtime } from '../test/run-realtime.ts';

describeWith(['postgres'], 'realtime rebuild', () => {
  let database: RebuiltDatabase;

  beforeEach(async () => {
    database = await startRebuiltDatabase();
  });
  afterEach(() => database.stop());

  test('serves joins meanwhile: none waits longer than 300 ms for the swap, none gets a wrong answer', async () => {
    await database.append([
      binary({ id: 'c', type: 'room.created', subject: 'room', data: {} }),
      binary({ id: 'm', type: 'member.added', subject: 'room', data: { userId: 'ann', role: 'host' } }),
    ]);
    await appendHistory(database, { seed: 10, count: 2_000 });
    await database.caughtUp();
    // As the api has it: prepared statements on connections that live on.
    const pool = createPool({
      url: database.url,
      maxConnections: 4,
      applicationName: 'api',
      onError: () => undefined,
    });
    const askFacts = createFactsReader((queries) => readFacts(pool, queries), { deadlineMs: 10_000 });
    const ending = new AbortController();
    const answers: Promise<FactsAnswer>[] = [];
    let longestWaitMs = 0;
    const join = async (): Promise<void> => {
      while (!ending.signal.aborted) {
        answers.push(askFacts({ roomId: 'room', userId: 'ann', loginId: null }));
        await delay(5);
      }
    };
    // What a join waits for the swap is what it waits for the tables' locks; its other time belongs to the machine.
    const watch = async (): Promise<void> => {
      while (!ending.signal.aborted) {
        const { rows } = await database.pool.query<{ ms: number | null }>(
          `select extract(epoch from max(clock_timestamp() - waitstart))::float8 * 1000 as ms from pg_locks
              join pg_stat_activity using (pid)
              where not granted and application_name = 'api' and datname = current_database()`,
        );
        longestWaitMs = Math.max(longestWaitMs, rows[0]?.ms ?? 0);
        await delay(5);
      }
    };
    const produce = async (): Promise<void> => {
      for (let seed = 100; !ending.signal.aborted; seed += 1) await appendHistory(database, { seed, count: 20 });
    };
    const work = [join(), watch(), produce()];
    const held = await holdTables(database.pool);
    const running = startRebuild(database.url);
    const timesTried = (): number => running.told().split('trying again').length - 1;
    await until('joins have waited for three tries', () => timesTried() >= 3 && longestWaitMs > 0, 60_000);
    await held.release();
    const inProgress = `select from log_positions where projection = 'rebuild'`;
    await until('the set is in place', async () => (await database.pool.query(inProgress)).rowCount === 0, 60_000);
    const askedBefore = answers.length;
    await until('joins go on', () => answers.length > askedBefore + 50);
    ending.abort();
    await Promise.all(work);
    for (const { facts } of await Promise.all(answers))
      expect({ state: facts.room?.state, role: facts.member?.role }).toEqual({ state: 'open', role: 'host' });
    expect(answers.length).toBeGreaterThan(200);
    expect(longestWaitMs).toBeLessThan(300);
    await pool.end();
    await running.end('SIGTERM');
    await database.caughtUp();
    expect(await runRealtime({ DATABASE_URL: database.url }, 'verify')).toMatchObject({ code: 0 });
  }, 120_000);
});
