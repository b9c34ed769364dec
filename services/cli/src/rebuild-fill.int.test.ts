import { setTimeout as delay } from 'node:timers/promises';
import { type LogPosition, topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { type BatchOutcome, createEmbeddedLog } from '@realtime-service/event-log';
import {
  activeProjection,
  createPool,
  createRebuildStore,
  type Pool,
  preparePositions,
  prepareRebuild,
  purgeFacts,
  readNextOffsets,
  rebuildProjection,
  rebuildUrlOf,
} from '@realtime-service/room-store';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  appendHistory,
  binary,
  partitionCount,
  type RebuiltDatabase,
  startRebuiltDatabase,
} from '../test/rebuilt-database.ts';
import { runRealtime } from '../test/run-realtime.ts';
import { createFiller } from './rebuild-fill.ts';

const topic = topics.roomEvents;

const rowsOf = async (pool: Pool, schema: string): Promise<string[]> => {
  await purgeFacts(pool, { projection: schema === 'public' ? activeProjection : rebuildProjection });
  const lines: string[] = [];
  for (const name of ['rooms', 'members', 'bans', 'users', 'ended_logins', 'applied_facts']) {
    const isFact = name === 'applied_facts' ? '' : 'where event_id is not null';
    const { rows } = await pool.query<{ line: string }>(
      `select each::text as line from ${schema}.${name} as each ${isFact} order by 1`,
    );
    lines.push(...rows.map(({ line }) => `${name} ${line}`));
  }
  return lines;
};

const dependenciesOn = (pool: Pool) => ({
  pool,
  partitionCount,
  acceptsMisplaced: false,
  readLimits: () => readNextOffsets(pool, activeProjection, topic),
  purge: (partition: number) => purgeFacts(pool, { projection: rebuildProjection, topic, partition }),
});

/** Fills in batches of a few records, each of which rests on what those before it have written. */
const fill = async (
  pool: Pool,
  isEmpty: boolean,
  isOurs: (partition: number) => boolean = () => true,
): Promise<void> => {
  const log = createEmbeddedLog({ pool, writeLog: () => undefined });
  const consumer = log.consume({
    group: 'test',
    topics: [topic],
    onBatch: createFiller({ ...dependenciesOn(pool), store: createRebuildStore(pool, isEmpty), isOurs }),
    startAt: async () =>
      [...(await readNextOffsets(pool, rebuildProjection, topic))].map(([partition, offset]) => ({
        topic,
        partition,
        offset,
      })),
    maxBatchRecords: 11,
  });
  const isFilled = async (): Promise<boolean> => {
    const ends = await readNextOffsets(pool, activeProjection, topic);
    const next = await readNextOffsets(pool, rebuildProjection, topic);
    return [...ends].every(([partition, end]) => !isOurs(partition) || next.get(partition) === end);
  };
  while (!(await isFilled())) await Promise.race([consumer.done, delay(20)]);
  await consumer.stop(5_000);
  await log.close();
};

describeWith(['postgres'], 'filling the second set', () => {
  let database: RebuiltDatabase;
  let pool: Pool;

  beforeEach(async () => {
    database = await startRebuiltDatabase();
    pool = createPool({
      url: rebuildUrlOf(database.url),
      maxConnections: 10,
      applicationName: 'test',
      onError: () => undefined,
    });
  });
  afterEach(async () => {
    await pool.end();
    await database.stop();
  });

  const writeHistory = async (): Promise<void> => {
    await appendHistory(database, { seed: 31, count: 1_500 });
    await tellAgainLater(40);
    await database.caughtUp();
    await prepareRebuild(pool);
    await preparePositions(pool, rebuildProjection, topic, partitionCount);
  };

  /** The first facts of a partition once more, by when their ids count for new facts. */
  const tellAgainLater = async (count: number): Promise<void> => {
    await database.pool.query(
      `with head as (
          update log_heads set next_offset = next_offset + $1 where topic = $2 and partition = 0 returning next_offset)
        insert into log_records (topic, partition, "offset", appended_at, key, value, headers)
          select topic, partition, next_offset - $1 + "offset", appended_at + interval '8 days', key, value, headers
            from log_records, head where topic = $2 and partition = 0 and "offset" < $1`,
      [count, topic],
    );
  };

  test.each([true, false])('batch by batch comes to the same rows; from an empty set: %s', async (isEmpty) => {
    await writeHistory();
    await fill(pool, isEmpty, (partition) => partition < 2);
    const half = await readNextOffsets(pool, rebuildProjection, topic);
    expect([half.get(2), half.get(3)]).toEqual([0n, 0n]);
    await fill(pool, isEmpty, (partition) => partition >= 2);
    expect(await rowsOf(pool, 'realtime_rebuild')).toEqual(await rowsOf(database.pool, 'public'));
  });

  test('goes no further than tables that have gone back meanwhile, as where a standby took over', async () => {
    await writeHistory();
    await database.stopApplying();
    const filler = createFiller({
      ...dependenciesOn(pool),
      store: createRebuildStore(pool, true),
      isOurs: (at) => at === 0,
    });
    const outcomes: BatchOutcome[] = [];
    const log = createEmbeddedLog({ pool, writeLog: () => undefined });
    const consumer = log.consume({
      group: 'test',
      topics: [topic],
      onBatch: async (batch) => {
        const outcome = await filler(batch);
        if (batch.partition === 0) outcomes.push(outcome);
        if (outcomes.length === 1)
          await pool.query(
            `update log_positions as active set next_offset = rebuilt.next_offset from log_positions as rebuilt
              where active.projection = $1 and rebuilt.projection = $2 and active.topic = $3 and rebuilt.topic = $3
                and active."partition" = 0 and rebuilt."partition" = 0`,
            [activeProjection, rebuildProjection, topic],
          );
        return outcome;
      },
      maxBatchRecords: 11,
    });
    await until('the next batch was tried', () => outcomes.length >= 3);
    await consumer.stop(5_000);
    await log.close();
    expect(outcomes.slice(0, 3).map(({ kind }) => kind)).toEqual(['advance', 'retry', 'retry']);
    expect((await readNextOffsets(pool, rebuildProjection, topic)).get(0)).toBe(11n);
  });

  test('tries again what the database did not answer in time', async () => {
    const filler = createFiller({
      ...dependenciesOn(pool),
      store: { transaction: () => Promise.reject(new Error('Query read timeout')), notifyMarks: async () => {} },
      isOurs: () => true,
      readLimits: async () => new Map([[0, 1n]]),
    });
    const batch = { topic, partition: 0, fetchedOffset: 0n, nextOffset: 1n, records: [], heartbeat: async () => true };
    expect(await filler(batch)).toEqual({ kind: 'retry', nextOffset: 0n, afterMs: 500 });
  });

  test('leaves out what the database refuses, and nothing else', async () => {
    await database.pool.query(`alter table bans add check (user_id <> 'user/3')`);
    await writeHistory();
    const { rows } = await pool.query(`select from dead_letters where reason = 'unstorable'`);
    expect(rows.length).toBeGreaterThan(5);
    await fill(pool, true);
    expect(await rowsOf(pool, 'realtime_rebuild')).toEqual(await rowsOf(database.pool, 'public'));
  });

  test('leaves dead letters what they became, whatever a later release reads in them', async () => {
    const room = 'room 1 ✓';
    let told = 0;
    const tell = async (type: string, data: object): Promise<LogPosition> => {
      told += 1;
      const [position] = await database.append([binary({ id: `told-${told}`, type, subject: room, data })]);
      await database.caughtUp();
      return position as LogPosition;
    };
    const settle = (how: 'retried' | 'discarded', { partition, offset }: LogPosition) =>
      tell(`dead_letter.${how}`, { topic, partition, offset: `${offset}` });
    const unreadable = (userId: string) => tell('member.added', { userId, role: 7 });
    const mend = async ({ partition, offset }: LogPosition, userId: string): Promise<void> => {
      for (const table of ['log_records', 'dead_letters'])
        await database.pool.query(
          `update ${table} set value = $1 where topic = $2 and "partition" = $3 and "offset" = $4`,
          [JSON.stringify({ userId, role: 'host' }), topic, partition, `${offset}`],
        );
    };

    await tell('room.created', { members: [] });
    const open = await unreadable('open');
    const discarded = await unreadable('discarded');
    await settle('retried', discarded);
    await settle('discarded', discarded);
    const late = await unreadable('late');
    await settle('retried', late);
    await tell('member.updated', { userId: 'late', displayName: 'Late' });
    const early = await unreadable('early');
    await mend(early, 'early');
    await tell('member.updated', { userId: 'early', displayName: 'Early' });
    await settle('discarded', early);
    await settle('retried', early);
    await tell('member.added', { userId: 'gone', role: 'host' });
    await database.pool.query('alter table members add constraint refused check (not is_removed)');
    const removal = await tell('member.removed', { userId: 'gone' });
    await database.pool.query('alter table members drop constraint refused');
    await tell('member.updated', { userId: 'gone', displayName: 'Gone' });
    await settle('retried', removal);
    await mend(open, 'open');
    await mend(discarded, 'discarded');
    await mend(late, 'late');
    await settle('retried', late);
    await tell('member.updated', { userId: 'late', role: 'listener' });

    await prepareRebuild(pool);
    await preparePositions(pool, rebuildProjection, topic, partitionCount);
    await fill(pool, true);
    const rows = await rowsOf(database.pool, 'public');
    expect(await rowsOf(pool, 'realtime_rebuild')).toEqual(rows);
    const members = rows.filter((line) => line.startsWith('members'));
    expect(members.map((line) => /early|gone|late/.exec(line)?.[0])).toEqual(['early', 'gone', 'late']);
    const { rows: gone } = await pool.query(`select is_removed, display_name from members where user_id = 'gone'`);
    expect(gone).toEqual([{ is_removed: true, display_name: 'Gone' }]);
    expect(await runRealtime({ DATABASE_URL: database.url }, 'verify')).toMatchObject({ code: 0 });
  });

  test.each([true, false])('by two at once comes to the same rows; from an empty set: %s', async (isEmpty) => {
    await writeHistory();
    await Promise.all([fill(pool, isEmpty), fill(pool, isEmpty)]);
    expect(await rowsOf(pool, 'realtime_rebuild')).toEqual(await rowsOf(database.pool, 'public'));
  });
});
