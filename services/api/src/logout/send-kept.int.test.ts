import { createDatabase } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { LogUnavailableError, type NewRecord } from '@realtime-service/event-log';
import {
  createPool,
  type KeptRecord,
  keepRecords,
  migrate,
  type Pool,
  releaseRecords,
} from '@realtime-service/room-store';
import { createLogger } from '@realtime-service/telemetry';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { createApiMetrics } from '../metrics.ts';
import { startKeptSender } from './send-kept.ts';

const told: string[] = [];
const logger = createLogger({ service: 'api', destination: { write: (line) => void told.push(JSON.parse(line).msg) } });
const polling = { timeout: 10_000, interval: 20 };

const recordOf = (id: string): KeptRecord => ({
  topic: 'realtime.room-events.v1',
  key: 'u-7 é',
  value: Buffer.from(JSON.stringify({ userId: 'u-7 é', sid: id })),
  headers: { ce_id: id, ce_type: 'login.ended' },
});
const idOf = ({ headers }: Pick<NewRecord, 'headers'>): string => String(headers['ce_id']);
const many = Array.from({ length: 250 }, (_, at) => `l-${at}`);

describeWith(['postgres'], 'records that the log did not take', ({ postgres }) => {
  let pool: Pool;

  beforeAll(async () => {
    const url = await createDatabase(postgres.url);
    await migrate(url);
    pool = createPool({ url, maxConnections: 6, applicationName: 'test', onError: () => undefined });
  });
  afterAll(() => pool.end());
  beforeEach(async () => {
    await pool.query('truncate kept_records');
  });

  const keep = async (ids: readonly string[]): Promise<void> => {
    for (const id of ids) await keepRecords(pool, [recordOf(id)]);
  };
  const countKept = async (): Promise<number> =>
    (await pool.query<{ n: number }>('select count(*)::int as n from kept_records')).rows[0]?.n ?? -1;

  test('wait, and are appended byte for byte, in their order, once the log is back', async () => {
    let isAway = true;
    let refused = 0;
    const appended: NewRecord[] = [];
    const append = async (records: readonly NewRecord[]) => {
      if (isAway) {
        refused += 1;
        throw new LogUnavailableError('the log is away');
      }
      appended.push(...records);
      return [];
    };
    await keepRecords(pool, many.slice(0, 3).map(recordOf));
    const metrics = createApiMetrics();
    const waiting = async () => (await metrics.keptRecordsWaiting.get()).values[0]?.value;
    const first = startKeptSender({ pool, append, metrics, logger });
    await vi.waitFor(() => expect(refused).toBe(1), polling);
    await first.stop();
    expect([await countKept(), await waiting()]).toEqual([3, 3]);
    expect(told).toEqual(['kept records could not be appended yet']);

    // The next start of the service.
    isAway = false;
    await keep(many.slice(3));
    const second = startKeptSender({ pool, append, metrics, logger });
    await vi.waitFor(async () => expect(await waiting()).toBe(0), polling);
    await second.stop();
    expect(await countKept()).toBe(0);
    expect(appended.map(idOf)).toEqual(many);
    const counted = { labels: { outcome: 'appended' }, value: many.length };
    expect((await metrics.keptRecords.get()).values).toContainEqual(counted);
    expect(appended[0]).toEqual(recordOf('l-0'));
  });

  test('are told by no number while nobody can count them', async () => {
    await keep(['l-1']);
    const metrics = createApiMetrics();
    const append = async () => Promise.reject(new LogUnavailableError('the log is away'));
    const values = async () => (await metrics.keptRecordsWaiting.get()).values.map(({ value }) => value);
    let isAway = false;
    const unreachable = Object.assign(Object.create(pool) as Pool, {
      query: (...args: Parameters<Pool['query']>) => {
        if (isAway) throw new Error('the database is away');
        return pool.query(...args);
      },
    });
    const sender = startKeptSender({ pool: unreachable, append, metrics, logger });
    await vi.waitFor(async () => expect(await values()).toEqual([1]), polling);
    isAway = true;
    await vi.waitFor(async () => expect(await values()).toEqual([]), polling);
    isAway = false;
    await vi.waitFor(async () => expect(await values()).toEqual([1]), polling);
    await sender.stop();
  });

  test('are sent again when the process dies between the append and the commit', async () => {
    await keep(['l-1', 'l-2']);
    const appended: string[] = [];
    const dying = releaseRecords(pool, 1, async (records) => {
      appended.push(...records.map(idOf));
      throw new Error('the process dies here');
    });
    await expect(dying).rejects.toThrow('dies here');
    expect(await releaseRecords(pool, 10, async (records) => void appended.push(...records.map(idOf)))).toBe(2);
    expect(appended).toEqual(['l-1', 'l-1', 'l-2']);
  });

  test('are sent by one process at a time, so that their order holds', async () => {
    await keep(['l-1', 'l-2']);
    // Behind the other, where the table is read as it lies.
    await pool.query(
      'update kept_records set kept_at = kept_at where kept_id = (select min(kept_id) from kept_records)',
    );
    const appended: string[] = [];
    const isThere = Promise.withResolvers<void>();
    const mayEnd = Promise.withResolvers<void>();
    const slow = releaseRecords(pool, 1, async (records) => {
      isThere.resolve();
      await mayEnd.promise;
      appended.push(...records.map(idOf));
    });
    await isThere.promise;
    expect(await releaseRecords(pool, 10, async (records) => void appended.push(...records.map(idOf)))).toBe(0);
    mayEnd.resolve();
    expect(await slow).toBe(1);
    expect(await releaseRecords(pool, 10, async (records) => void appended.push(...records.map(idOf)))).toBe(1);
    expect(appended).toEqual(['l-1', 'l-2']);
  });
});
