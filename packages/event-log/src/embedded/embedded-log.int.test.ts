import {
  createDatabase,
  type FaultProxy,
  type Postgres,
  startFaultProxy,
  startPostgres,
} from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import pg from 'pg';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { createRecorder, describeEventLog, recordOf } from '../../test/log-contract.ts';
import { LogUnavailableError } from '../event-log.ts';
import { createEmbeddedLog } from './embedded-log.ts';
import { prepareEmbeddedLog } from './schema.ts';

const silent = (): void => undefined;
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const patience = { timeout: 20_000, interval: 20 };

function createPool(url: string): pg.Pool {
  return new pg.Pool({ connectionString: url, max: 60, connectionTimeoutMillis: 5_000 });
}

describeWith(['postgres'], 'the embedded log', ({ postgres }) => {
  describeEventLog(async () => {
    const proxy: FaultProxy = await startFaultProxy(postgres.port);
    const url = new URL(await createDatabase(postgres.url));
    url.port = String(proxy.port);
    const pool = createPool(url.href);
    let topics = 0;
    return {
      openLog: () => createEmbeddedLog({ pool, writeLog: silent }),
      createTopic: async (partitions) => {
        topics += 1;
        await prepareEmbeddedLog(pool, [`topic-${topics}`], partitions);
        return `topic-${topics}`;
      },
      appendForeign: async (topic, partition, { key, value }) => {
        await pool.query(
          `with head as (
             update log_heads set next_offset = next_offset + 1
              where topic = $1 and partition = $2 returning next_offset
           )
           insert into log_records select $1, $2, next_offset - 1, now(), $3, $4, '{}' from head`,
          [topic, partition, key, value],
        );
      },
      stall: proxy.stall,
      heal: proxy.heal,
      close: async () => {
        await pool.end();
        await proxy.stop();
      },
    };
  });
});

describeWith(['postgres'], 'the embedded log in its tables', () => {
  let postgres: Postgres;
  let pool: pg.Pool;

  beforeAll(async () => {
    postgres = await startPostgres();
    pool = createPool(await createDatabase(postgres.url));
  });
  afterAll(async () => {
    await pool?.end();
    await postgres?.stop();
  });

  it('is prepared by several at once, and keeps the partition count that a topic has', async () => {
    await Promise.all(range(8).map(() => prepareEmbeddedLog(pool, ['prepared', 'twice'])));
    await prepareEmbeddedLog(pool, ['prepared', 'later'], 3);
    const { rows } = await pool.query('select topic, count(*)::int from log_heads group by topic order by topic');
    expect(rows).toEqual([
      { topic: 'later', count: 3 },
      { topic: 'prepared', count: 12 },
      { topic: 'twice', count: 12 },
    ]);
  });

  it('takes appends of several processes over the same partitions, and a reader sees each offset once', async () => {
    const topics = ['shared-a', 'shared-b'];
    await prepareEmbeddedLog(pool, topics, 3);
    const logs = range(4).map(() => createEmbeddedLog({ pool, writeLog: silent }));
    const recorders = topics.map(createRecorder);
    const readers = topics.map((topic, i) =>
      logs[0]?.consume({ group: 'g', topics: [topic], onBatch: recorders[i]?.onBatch ?? createRecorder().onBatch }),
    );
    const batches = range(200).map((n) => {
      const records = range(10).map((k) => recordOf(topics[k % 2] ?? '', `key-${(n * 7 + k) % 11}`));
      return logs[n % 4]?.append(n % 2 === 0 ? records : records.toReversed(), 20_000);
    });
    await Promise.all(batches);
    for (const recorder of recorders) {
      await recorder.untilApplied(1_000);
      for (const records of Map.groupBy(recorder.applied, ({ partition }) => partition).values()) {
        expect(records.map(({ offset }) => Number(offset))).toEqual(range(records.length));
      }
    }
    await Promise.all(readers.map((reader) => reader?.stop(5_000)));
    await Promise.all(logs.map((log) => log.close()));
  });

  it('wakes its readers by a notification, and survives the loss of every connection', async () => {
    await prepareEmbeddedLog(pool, ['woken'], 1);
    const log = createEmbeddedLog({ pool, writeLog: silent });
    const recorder = createRecorder();
    const consumer = log.consume({ group: 'g', topics: ['woken'], onBatch: recorder.onBatch });
    const tenTurns = async (): Promise<number> => {
      const before = performance.now();
      const applied = recorder.applied.length;
      for (const turn of range(10)) {
        await log.append([recordOf('woken', 'k')], 5_000);
        await recorder.untilApplied(applied + turn + 1);
      }
      return performance.now() - before;
    };
    await vi.waitFor(() => expect(consumer.isReady()).toBe(true), patience);
    // By polling alone each turn would wait for the next look, half a second later.
    expect(await tenTurns()).toBeLessThan(2_500);

    const client = new pg.Client({ connectionString: postgres.url });
    await client.connect();
    await client.query('select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()');
    await client.end();
    await vi.waitFor(() => log.append([recordOf('woken', 'k')], 5_000), patience);
    await vi.waitFor(() => expect(recorder.applied.length).toBeGreaterThan(10), patience);
    expect(await tenTurns()).toBeLessThan(2_500);
    await consumer.stop(5_000);
    await log.close();
  });

  it('hands out nothing that was still being read when it was to stop', async () => {
    await prepareEmbeddedLog(pool, ['stopped'], 1);
    const log = createEmbeddedLog({ pool, writeLog: silent });
    await log.append([recordOf('stopped', 'k')], 5_000);
    const holder = await pool.connect();
    await holder.query('begin; lock table log_records');
    const onBatch = vi.fn(createRecorder().onBatch);
    const consumer = log.consume({ group: 'g', topics: ['stopped'], onBatch });
    await vi.waitFor(async () => {
      const waiting = "select from pg_locks where relation = 'log_records'::regclass and not granted";
      expect((await pool.query(waiting)).rowCount).toBe(1);
    }, patience);
    const stopped = consumer.stop(5_000);
    await holder.query('rollback');
    holder.release();
    await stopped;
    expect(onBatch).not.toHaveBeenCalled();
    await log.close();
  });

  it('goes on where records could be neither written nor read for a while', async () => {
    await prepareEmbeddedLog(pool, ['hidden'], 1);
    const isRefused = Promise.withResolvers<void>();
    const log = createEmbeddedLog({ pool, writeLog: () => isRefused.resolve() });
    await log.append([recordOf('hidden', 'k')], 5_000);
    await pool.query('alter table log_records rename to hidden_records');
    const recorder = createRecorder();
    const consumer = log.consume({ group: 'g', topics: ['hidden'], onBatch: recorder.onBatch });
    await Promise.race([isRefused.promise, consumer.done]);
    await expect(log.append([recordOf('hidden', 'refused')], 300)).rejects.toThrow(LogUnavailableError);
    await pool.query('alter table hidden_records rename to log_records');
    await log.append([recordOf('hidden', 'k')], 5_000);
    await recorder.untilApplied(2);
    expect(recorder.keys()).toEqual(['k', 'k']);
    await consumer.stop(5_000);
    await log.close();
  });

  it('goes on after the database was killed', async () => {
    await prepareEmbeddedLog(pool, ['killed'], 1);
    const log = createEmbeddedLog({ pool, writeLog: silent });
    const recorder = createRecorder();
    const consumer = log.consume({ group: 'g', topics: ['killed'], onBatch: recorder.onBatch });
    await log.append([recordOf('killed', 'before')], 5_000);
    await recorder.untilApplied(1);

    await postgres.kill();
    await expect(log.append([recordOf('killed', 'refused')], 300)).rejects.toThrow(LogUnavailableError);
    await vi.waitFor(() => expect(consumer.isReady()).toBe(false), patience);
    await postgres.start();

    await log.append([recordOf('killed', 'after')], 20_000);
    await vi.waitFor(() => expect(recorder.keys()).toEqual(['before', 'after']), patience);
    await vi.waitFor(() => expect(consumer.isReady()).toBe(true), patience);
    await consumer.stop(5_000);
    await log.close();
  });
});
