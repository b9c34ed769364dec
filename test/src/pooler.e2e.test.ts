import { startPgbouncer, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { snapshotOf } from '@realtime-service/room-model/snapshot';
import { createPool, inTransaction } from '@realtime-service/room-store';
import { readProjection } from '@realtime-service/room-store/read-projection';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Identity, startDevIdentity } from './identity.ts';
import { foldLog, isCaughtUp } from './log-reader.ts';
import { connect } from './participant.ts';
import { type Service, type System, startSystem } from './system.ts';

const poolSize = 2;

describeWith(['postgres', 'kafka', 'livekit', 'pgbouncer'], 'C30: behind PgBouncer in transaction mode', () => {
  let identity: Identity;
  let system: System;
  let other: Service;
  let pooler: Awaited<ReturnType<typeof startPgbouncer>>;

  beforeAll(async () => {
    identity = await startDevIdentity();
    // All goes through it, migrations and LISTEN too.
    const databaseThrough = async (databaseUrl: string): Promise<string> => {
      pooler = await startPgbouncer({ databaseUrl, poolSize });
      return pooler.url;
    };
    system = await startSystem({ identity, databaseThrough, env: { SWEEP_INTERVAL_SECONDS: '1' } });
    other = await system.startWorker();
  });
  afterAll(async () => {
    await other?.stop();
    await system?.stop();
    await pooler?.stop();
    await identity?.stop();
  }, 60_000);

  test('1,000 facts and 200 joins work as without, a removal too, and nothing is left behind', async () => {
    const brokers = system.kafka?.brokers ?? [];
    const ann = identity.subjectOf('ann');
    const rooms = Array.from({ length: 20 }, (_, at) => `room-${at}`);
    for (const subject of rooms)
      await system.publish({ type: 'room.created', subject, data: { members: [{ userId: ann, role: 'host' }] } });
    for (const subject of rooms)
      await system.publish(
        ...Array.from({ length: 49 }, (_, at) => ({
          type: 'member.added' as const,
          subject,
          data: { userId: `u-${at}`, role: 'listener' as const },
        })),
      );
    await until('all is applied', () => isCaughtUp(system.pool, brokers), 30_000);
    expect(snapshotOf(await readProjection(system.pool))).toEqual(snapshotOf(await foldLog(brokers)));

    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, at) => system.join('ann', rooms[at % rooms.length] ?? '')),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));

    const { server_url, participant_token } = await system.enter('ann', 'room-0');
    const participant = await connect(server_url, participant_token);
    const removedAtMs = performance.now();
    await system.publish({ type: 'member.removed', subject: 'room-0', data: { userId: ann } });
    await participant.out;
    expect(performance.now() - removedAtMs).toBeLessThan(5_000);

    const { rows: locks } = await system.pool.query(
      `select pid from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
    );
    expect(locks).toEqual([]);
    const { rows: duties } = await system.pool.query(`select holder from duties where name = 'sweep'`);
    expect(duties).toHaveLength(1);
  }, 120_000);

  test('the times that statements and transactions may take are in force, and end with their transaction', async () => {
    const pool = createPool({ url: pooler.url, maxConnections: 1, applicationName: 'x', onError: () => undefined });
    const bounds = ['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'];
    const shown = `select ${bounds.map((name) => `current_setting('${name}') as ${name}`).join(', ')}`;
    const { rows: inside } = await inTransaction(pool, (client) => client.query(shown));
    expect(inside).toEqual([
      { statement_timeout: '5s', lock_timeout: '2500ms', idle_in_transaction_session_timeout: '5s' },
    ]);
    // The next one to have this session is not bound by them.
    const { rows: after } = await pool.query(shown);
    expect(after).toEqual([{ statement_timeout: '0', lock_timeout: '0', idle_in_transaction_session_timeout: '0' }]);
    await pool.end();
  });
});
