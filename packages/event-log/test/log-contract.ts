/** What every event log promises, as tests that each adapter runs against the real thing. */

import type { LogPartition, LogPosition } from '@realtime-service/contracts';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { BatchOutcome, EventLog, LogBatch, LogConsumer, NewRecord, StoredRecord } from '../src/event-log.ts';
import { LogUnavailableError, maxRecordBytes, OffsetOutOfRangeError, RecordTooLargeError } from '../src/event-log.ts';
import { partitionOf } from '../src/partitioner.ts';

export interface EventLogFixture {
  /** A log with connections of its own, as another process would have. */
  readonly openLog: () => EventLog;
  /** A new, empty topic; resolves with its name. */
  readonly createTopic: (partitions: number) => Promise<string>;
  /** Writes what our own port never would, as other producers can. */
  readonly appendForeign: (
    topic: string,
    partition: number,
    record: { readonly key: Buffer | null; readonly value: Buffer | null },
  ) => Promise<void>;
  /** The network between the log and its real part: connections stay open, nothing passes. */
  readonly stall: () => void;
  readonly heal: () => Promise<void>;
  readonly close: () => Promise<void>;
}

const patience = { timeout: 20_000, interval: 20 };
const appendWithinMs = 10_000;
const stopWithinMs = 10_000;

export const recordOf = (topic: string, key: string, value = key): NewRecord => ({
  topic,
  key,
  value: Buffer.from(value),
  headers: {},
});

/** A handler with a database in memory: it applies what is new, and its own offset is the truth. */
export function createRecorder() {
  const applied: StoredRecord[] = [];
  const batches: LogBatch[] = [];
  const nextOffsets = new Map<number, bigint>();

  async function onBatch(batch: LogBatch): Promise<BatchOutcome> {
    batches.push(batch);
    const expected = nextOffsets.get(batch.partition) ?? 0n;
    if (batch.fetchedOffset > expected) return { kind: 'advance', nextOffset: expected };
    applied.push(...batch.records.filter(({ offset }) => offset >= expected));
    const nextOffset = batch.nextOffset > expected ? batch.nextOffset : expected;
    nextOffsets.set(batch.partition, nextOffset);
    return { kind: 'advance', nextOffset };
  }

  return {
    applied,
    batches,
    nextOffsets,
    onBatch,
    keys: () => applied.map(({ key }) => String(key)),
    untilApplied: (count: number) => vi.waitFor(() => expect(applied).toHaveLength(count), patience),
  };
}

/** Keys of which each falls into the partition of its index. */
export function keysPerPartition(partitions: number): string[] {
  const keys: string[] = [];
  for (let i = 0; Object.keys(keys).length < partitions; i += 1)
    keys[partitionOf(`key-${i}`, partitions)] ??= `key-${i}`;
  return keys;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** To be called inside a suite. */
export function describeEventLog(start: () => Promise<EventLogFixture>): void {
  let fixture: EventLogFixture;
  let log: EventLog;
  const consumers: LogConsumer[] = [];
  let groups = 0;
  const newGroup = (): string => {
    groups += 1;
    return `group-${groups}`;
  };

  beforeAll(async () => {
    fixture = await start();
    log = fixture.openLog();
  });
  afterAll(async () => {
    await Promise.all(consumers.map((consumer) => consumer.stop(stopWithinMs)));
    await log?.close();
    await fixture?.close();
  });

  const append = (records: readonly NewRecord[]): Promise<LogPosition[]> => log.append(records, appendWithinMs);

  function consume(options: Partial<Parameters<EventLog['consume']>[0]> & { topics: string[] }): LogConsumer {
    const consumer = log.consume({ group: newGroup(), onBatch: createRecorder().onBatch, ...options });
    consumers.push(consumer);
    return consumer;
  }

  describe('append', () => {
    it('answers with one position per record, in the order given, in the partition of its key', async () => {
      const topic = await fixture.createTopic(5);
      const records = range(40).map((i) => recordOf(topic, `room-${i % 13}`, String(i)));
      const positions = await append(records);
      const counts = new Map<number, bigint>();
      for (const [i, { key }] of records.entries()) {
        const partition = partitionOf(key, 5);
        const offset = counts.get(partition) ?? 0n;
        counts.set(partition, offset + 1n);
        expect(positions[i]).toEqual({ topic, partition, offset });
      }
    });

    it('appends to several topics at once', async () => {
      const topics = [await fixture.createTopic(1), await fixture.createTopic(1)];
      const positions = await append([...topics, ...topics].map((topic) => recordOf(topic, 'k')));
      expect(positions).toEqual([0n, 0n, 1n, 1n].map((offset, i) => ({ topic: topics[i % 2], partition: 0, offset })));
    });

    it('keeps the order of calls for a key, however many are under way', async () => {
      const topic = await fixture.createTopic(3);
      const keys = range(7).map((i) => `key-${i}`);
      const calls = range(700).map((i) => append([recordOf(topic, keys[i % 7] ?? '', String(i))]));
      const recorder = createRecorder();
      consume({ topics: [topic], onBatch: recorder.onBatch });
      await Promise.all(calls);
      await recorder.untilApplied(700);
      for (const key of keys) {
        const values = recorder.applied
          .filter((record) => String(record.key) === key)
          .map(({ value }) => Number(value));
        expect(values).toEqual(range(100).map((i) => i * 7 + keys.indexOf(key)));
      }
    });

    it('takes more records at once than one batch of it holds', async () => {
      const topic = await fixture.createTopic(2);
      const recorder = createRecorder();
      const positions = await append(range(1_700).map((i) => recordOf(topic, 'k', String(i))));
      consume({ topics: [topic], onBatch: recorder.onBatch });
      await recorder.untilApplied(1_700);
      expect(positions.map(({ offset }) => Number(offset))).toEqual(range(1_700));
      expect(recorder.applied.map(({ value }) => Number(value))).toEqual(range(1_700));
    });

    it('takes a record up to the limit and refuses one above it', async () => {
      const topic = await fixture.createTopic(1);
      const sized = (bytes: number): NewRecord => ({ topic, key: 'k', value: Buffer.alloc(bytes, 7), headers: {} });
      await expect(append([sized(maxRecordBytes)])).rejects.toThrow(RecordTooLargeError);
      await append([sized(maxRecordBytes - 100)]);
      expect(await log.bounds(topic)).toEqual([{ partition: 0, low: 0n, high: 1n }]);
    });

    it('is unavailable for a topic that does not exist', async () => {
      await expect(log.append([recordOf('no-such-topic', 'k')], 500)).rejects.toThrow(LogUnavailableError);
      const topic = await fixture.createTopic(1);
      await append([recordOf(topic, 'k')]);
    });

    it('refuses after close', async () => {
      const closed = fixture.openLog();
      await closed.close();
      await expect(closed.append([recordOf('any', 'k')], 500)).rejects.toThrow(LogUnavailableError);
    });
  });

  describe('bytes', () => {
    it('come back exactly, in value, key and headers', async () => {
      const topic = await fixture.createTopic(1);
      const everyByte = Buffer.from(range(256));
      const headers = { text: 'ü🎥', 'name with ö': 'x', raw: everyByte, empty: '', ['__proto__']: 'own' };
      const before = Date.now();
      await append([
        { topic, key: 'Raum 🎥', value: everyByte, headers },
        { topic, key: 'k', value: Buffer.alloc(0), headers: {} },
      ]);
      const recorder = createRecorder();
      consume({ topics: [topic], onBatch: recorder.onBatch });
      await recorder.untilApplied(2);
      const [first, second] = recorder.applied;
      expect(first?.key).toEqual(Buffer.from('Raum 🎥'));
      expect(first?.value).toEqual(everyByte);
      expect(Object.entries(first?.headers ?? {})).toEqual(
        Object.entries(headers).map(([header, value]) => [header, Buffer.from(value)]),
      );
      expect(second).toMatchObject({ topic, partition: 0, offset: 1n, value: Buffer.alloc(0), headers: {} });
      expect(Math.abs((first?.timestampMs ?? 0) - before)).toBeLessThan(10_000);
    });

    it('may be missing: null keys and values of other producers', async () => {
      const topic = await fixture.createTopic(1);
      await fixture.appendForeign(topic, 0, { key: Buffer.from('k'), value: null });
      await fixture.appendForeign(topic, 0, { key: null, value: Buffer.from('v') });
      await fixture.appendForeign(topic, 0, { key: null, value: null });
      const recorder = createRecorder();
      consume({ topics: [topic], onBatch: recorder.onBatch });
      await recorder.untilApplied(3);
      expect(recorder.applied.map(({ key, value }) => [key, value])).toEqual([
        [Buffer.from('k'), null],
        [null, Buffer.from('v')],
        [null, null],
      ]);
    });
  });

  describe('bounds', () => {
    it('are the first kept and the next offset of every partition', async () => {
      const topic = await fixture.createTopic(3);
      const [key = ''] = keysPerPartition(3);
      await append([recordOf(topic, key), recordOf(topic, key)]);
      expect(await log.bounds(topic)).toEqual([
        { partition: 0, low: 0n, high: 2n },
        { partition: 1, low: 0n, high: 0n },
        { partition: 2, low: 0n, high: 0n },
      ]);
    });

    it('are unavailable for a topic that does not exist', async () => {
      await expect(log.bounds('no-such-topic')).rejects.toThrow(LogUnavailableError);
    });
  });

  describe('consume', () => {
    it('asks where to go on in what is assigned, and becomes ready', async () => {
      const two = await fixture.createTopic(2);
      const one = await fixture.createTopic(1);
      const startAt = vi.fn(async (_assigned: readonly LogPartition[]) => []);
      const consumer = consume({ topics: [two, one], startAt });
      expect(consumer.isReady()).toBe(false);
      await vi.waitFor(() => expect(consumer.isReady()).toBe(true), patience);
      const asked = startAt.mock.lastCall?.[0].map(({ topic, partition }) => [topic, partition]);
      expect(asked).toHaveLength(3);
      expect(asked).toEqual(
        expect.arrayContaining([
          [two, 0],
          [two, 1],
          [one, 0],
        ]),
      );
    });

    it('hands out each batch with its range, and goes on where the outcome says', async () => {
      const topic = await fixture.createTopic(1);
      const recorder = createRecorder();
      await append([recordOf(topic, 'a'), recordOf(topic, 'b')]);
      consume({ topics: [topic], onBatch: recorder.onBatch });
      await recorder.untilApplied(2);
      await append([recordOf(topic, 'c')]);
      await recorder.untilApplied(3);
      expect(recorder.batches).toMatchObject([
        { topic, partition: 0, fetchedOffset: 0n, nextOffset: 2n },
        { topic, partition: 0, fetchedOffset: 2n, nextOffset: 3n },
      ]);
      expect(await recorder.batches[0]?.heartbeat()).toBe(true);
    });

    it('waits with the rest of a partition on retry, hands it out again from there, and lets others go on', async () => {
      const topic = await fixture.createTopic(2);
      const [slow = '', quick = ''] = keysPerPartition(2);
      await append([recordOf(topic, slow, '0'), recordOf(topic, slow, '1'), recordOf(topic, quick, '0')]);
      const attempts: { offset: bigint; atMs: number }[] = [];
      const recorder = createRecorder();
      const onBatch = async (batch: LogBatch): Promise<BatchOutcome> => {
        if (batch.partition === 0 && (attempts.length < 3 || recorder.applied.length < 2)) {
          attempts.push({ offset: batch.fetchedOffset, atMs: performance.now() });
          return { kind: 'retry', nextOffset: 1n, afterMs: 700 };
        }
        return recorder.onBatch(batch);
      };
      recorder.nextOffsets.set(0, 1n);
      consume({ topics: [topic], onBatch });
      await vi.waitFor(() => expect(attempts).toHaveLength(1), patience);
      await append([recordOf(topic, quick, '1')]);
      await recorder.untilApplied(3);
      expect(recorder.keys()).toEqual([quick, quick, slow]);
      expect(attempts.map(({ offset }) => offset)).toEqual([0n, ...Array(attempts.length - 1).fill(1n)]);
      expect(recorder.applied.at(-1)).toMatchObject({ partition: 0, offset: 1n });
      const [first, second] = attempts;
      expect((second?.atMs ?? 0) - (first?.atMs ?? 0)).toBeGreaterThanOrEqual(690);
    });

    it('handles the partitions at once, but no more than concurrency', async () => {
      const topic = await fixture.createTopic(3);
      await append(keysPerPartition(3).map((key) => recordOf(topic, key)));
      const inside = new Set<number>();
      const allInside = Promise.withResolvers<void>();
      consume({
        topics: [topic],
        onBatch: async ({ partition, nextOffset }) => {
          inside.add(partition);
          if (inside.size === 3) allInside.resolve();
          await allInside.promise;
          return { kind: 'advance', nextOffset };
        },
      });
      await allInside.promise;

      const recorder = createRecorder();
      let atOnce = 0;
      const onBatch = async (batch: LogBatch): Promise<BatchOutcome> => {
        atOnce += 1;
        // As long as it takes to read another partition.
        await log.bounds(topic);
        expect(atOnce).toBe(1);
        atOnce -= 1;
        return recorder.onBatch(batch);
      };
      const consumer = consume({ topics: [topic], concurrency: 1, onBatch });
      await Promise.race([recorder.untilApplied(3), consumer.done]);
    });

    it('keeps no partition waiting for one whose handler takes long, and hands out the rest of that one in order', async () => {
      const topic = await fixture.createTopic(2);
      const [slow = '', quick = ''] = keysPerPartition(2);
      await append([recordOf(topic, slow, '0'), recordOf(topic, quick, '0')]);
      const recorder = createRecorder();
      const release = Promise.withResolvers<void>();
      let inSlow = 0;
      const onBatch = async (batch: LogBatch): Promise<BatchOutcome> => {
        if (batch.partition === 1) return recorder.onBatch(batch);
        inSlow += 1;
        expect(inSlow).toBe(1);
        await release.promise;
        inSlow -= 1;
        return recorder.onBatch(batch);
      };
      const consumer = consume({ topics: [topic], onBatch });
      for (const value of ['1', '2', '3']) {
        await vi.waitFor(() => expect(recorder.keys()).toHaveLength(Number(value)), patience);
        await append([recordOf(topic, quick, value), recordOf(topic, slow, value)]);
      }
      await recorder.untilApplied(4);
      expect(new Set(recorder.keys())).toEqual(new Set([quick]));
      release.resolve();
      await Promise.race([recorder.untilApplied(8), consumer.done]);
      expect(recorder.applied.slice(4).map(({ value }) => String(value))).toEqual(['0', '1', '2', '3']);
    });

    it('seeks back and forward as the outcome says', async () => {
      const topic = await fixture.createTopic(1);
      await append(range(10).map((i) => recordOf(topic, 'k', String(i))));
      const seen: bigint[] = [];
      const jumps = [3n, 8n];
      const onBatch = async (batch: LogBatch): Promise<BatchOutcome> => {
        seen.push(batch.fetchedOffset);
        return { kind: 'advance', nextOffset: jumps.shift() ?? batch.nextOffset };
      };
      const consumer = consume({ topics: [topic], onBatch });
      await vi.waitFor(() => expect(seen).toEqual([0n, 3n, 8n]), patience);
      await append([recordOf(topic, 'k')]);
      await vi.waitFor(() => expect(seen).toEqual([0n, 3n, 8n, 10n]), patience);
      expect(consumer.isReady()).toBe(true);
    });

    it('starts where startAt says, at once, also behind what the group has committed', async () => {
      const topic = await fixture.createTopic(2);
      const [zero = '', one = ''] = keysPerPartition(2);
      await append([recordOf(topic, zero), recordOf(topic, one), recordOf(topic, one), recordOf(topic, one)]);
      const group = newGroup();
      const before = createRecorder();
      const consumer = consume({ group, topics: [topic], onBatch: before.onBatch });
      await before.untilApplied(4);
      await consumer.stop(stopWithinMs);

      const after = createRecorder();
      after.nextOffsets.set(0, 1n).set(1, 1n);
      consume({
        group,
        topics: [topic],
        onBatch: after.onBatch,
        startAt: async (assigned) => assigned.map(({ partition }) => ({ topic, partition, offset: 1n })),
      });
      await after.untilApplied(2);
      expect(after.batches.map(({ partition, fetchedOffset }) => [partition, fetchedOffset])).toEqual([[1, 1n]]);
    });

    it('begins at the last record that was read, where startAt names it', async () => {
      const topic = await fixture.createTopic(1);
      await append(range(5).map((i) => recordOf(topic, 'k', String(i))));
      const recorder = createRecorder();
      recorder.nextOffsets.set(0, 4n);
      consume({
        topics: [topic],
        onBatch: recorder.onBatch,
        startAt: async () => [{ topic, partition: 0, offset: 4n, lastRead: 2n }],
      });
      await recorder.untilApplied(1);
      expect(recorder.batches[0]?.fetchedOffset).toBe(2n);
    });

    it('starts where another consumer has come while startAt was asked', async () => {
      const topic = await fixture.createTopic(1);
      const recorder = createRecorder();
      recorder.nextOffsets.set(0, 1n);
      const startAt = async () => {
        await append([recordOf(topic, 'a'), recordOf(topic, 'b')]);
        return [{ topic, partition: 0, offset: 1n }];
      };
      consume({ topics: [topic], onBatch: recorder.onBatch, startAt });
      await recorder.untilApplied(1);
      expect(recorder.keys()).toEqual(['b']);
    });

    it('asks startAt again when told to, and goes on from there without a new record', async () => {
      const topic = await fixture.createTopic(1);
      await append([recordOf(topic, 'a'), recordOf(topic, 'b'), recordOf(topic, 'c')]);
      const recorder = createRecorder();
      const consumer = consume({
        topics: [topic],
        onBatch: recorder.onBatch,
        startAt: async () => [{ topic, partition: 0, offset: recorder.nextOffsets.get(0) ?? 0n }],
      });
      await recorder.untilApplied(3);
      recorder.nextOffsets.set(0, 1n);
      consumer.reposition();
      await recorder.untilApplied(5);
      expect(recorder.keys()).toEqual(['a', 'b', 'c', 'b', 'c']);
      await append([recordOf(topic, 'd')]);
      await recorder.untilApplied(6);
    });

    it('hands out one batch of a partition at a time, also when told meanwhile to ask startAt again', async () => {
      const topic = await fixture.createTopic(1);
      await append([recordOf(topic, 'k')]);
      const recorder = createRecorder();
      const reached = Promise.withResolvers<void>();
      const release = Promise.withResolvers<void>();
      let inHand = 0;
      const onBatch = async (batch: LogBatch): Promise<BatchOutcome> => {
        inHand += 1;
        expect(inHand).toBe(1);
        reached.resolve();
        await release.promise;
        inHand -= 1;
        return recorder.onBatch(batch);
      };
      const consumer = consume({
        topics: [topic],
        onBatch,
        startAt: async () => [{ topic, partition: 0, offset: recorder.nextOffsets.get(0) ?? 0n }],
      });
      await reached.promise;
      consumer.reposition();
      // Longer than to ask and to read again takes.
      for (const _ of range(10)) await append([recordOf(topic, 'k')]);
      release.resolve();
      await Promise.race([recorder.untilApplied(11), consumer.done]);
      expect(recorder.applied.map(({ offset }) => Number(offset))).toEqual(range(11));
    });

    it('asks startAt again when told to while it is asked', async () => {
      const topic = await fixture.createTopic(1);
      const startAt = vi.fn(async () => {
        if (startAt.mock.calls.length === 1) consumer.reposition();
        return [];
      });
      const consumer = consume({ topics: [topic], startAt });
      await vi.waitFor(() => expect(startAt).toHaveBeenCalledTimes(2), patience);
    });

    it('asks again when startAt throws, and hands out nothing meanwhile', async () => {
      const topic = await fixture.createTopic(1);
      await append([recordOf(topic, 'k')]);
      const recorder = createRecorder();
      const startAt = vi.fn(async () => {
        if (startAt.mock.calls.length < 2) throw new Error('the database is away');
        expect(recorder.batches).toHaveLength(0);
        return [];
      });
      consume({ topics: [topic], onBatch: recorder.onBatch, startAt });
      await recorder.untilApplied(1);
      expect(startAt).toHaveBeenCalledTimes(2);
    });

    it('resumes after stop where the handler is', async () => {
      const topic = await fixture.createTopic(3);
      const group = newGroup();
      const recorder = createRecorder();
      await append(range(30).map((i) => recordOf(topic, `k${i}`)));
      const first = consume({ group, topics: [topic], onBatch: recorder.onBatch });
      await recorder.untilApplied(30);
      await first.stop(stopWithinMs);
      await first.done;
      expect(first.isReady()).toBe(false);

      await append(range(30).map((i) => recordOf(topic, `k${i}`)));
      consume({ group, topics: [topic], onBatch: recorder.onBatch });
      await recorder.untilApplied(60);
      const byPartition = Map.groupBy(recorder.applied, ({ partition }) => partition);
      for (const records of byPartition.values()) {
        expect(records.map(({ offset }) => Number(offset))).toEqual(range(records.length));
      }
    });

    it.each<[string, () => Promise<BatchOutcome>]>([
      ['stop', async () => ({ kind: 'stop', error: new Error('enough') })],
      ['a throw', () => Promise.reject(new Error('enough'))],
    ])('ends with the error on %s, and calls the handler no more', async (_, outcome) => {
      const topic = await fixture.createTopic(1);
      await append([recordOf(topic, 'a')]);
      const onBatch = vi.fn(outcome);
      const consumer = consume({ topics: [topic], onBatch });
      await expect(consumer.done).rejects.toThrow('enough');
      expect(consumer.isReady()).toBe(false);
      await append([recordOf(topic, 'b')]);
      await consumer.stop(stopWithinMs);
      expect(onBatch).toHaveBeenCalledTimes(1);
    });

    it('ends when it shall go on beyond the end of the log', async () => {
      const topic = await fixture.createTopic(1);
      await append([recordOf(topic, 'a')]);
      const byOutcome = consume({ topics: [topic], onBatch: async () => ({ kind: 'advance', nextOffset: 2n }) });
      await expect(byOutcome.done).rejects.toThrow(OffsetOutOfRangeError);
      const byStart = consume({ topics: [topic], startAt: async () => [{ topic, partition: 0, offset: 2n }] });
      await expect(byStart.done).rejects.toThrow(OffsetOutOfRangeError);
    });

    it('has stopped when the handler has done what it has in hand, which is the last that it gets', async () => {
      const topic = await fixture.createTopic(1);
      await append([recordOf(topic, 'a')]);
      const taken = Promise.withResolvers<LogBatch>();
      const release = Promise.withResolvers<BatchOutcome>();
      const onBatch = vi.fn((batch: LogBatch): Promise<BatchOutcome> => {
        taken.resolve(batch);
        return release.promise;
      });
      const consumer = consume({ topics: [topic], onBatch });
      const { heartbeat } = await taken.promise;
      await append([recordOf(topic, 'b')]);
      const hasStopped = vi.fn();
      const stopped = consumer.stop(stopWithinMs).then(hasStopped);
      expect(await heartbeat()).toBe(false);
      await log.bounds(topic);
      expect(hasStopped).not.toHaveBeenCalled();
      release.resolve({ kind: 'advance', nextOffset: 1n });
      await stopped;
      expect(onBatch).toHaveBeenCalledTimes(1);
    });

    it('stops within its deadline although the handler hangs', async () => {
      const topic = await fixture.createTopic(1);
      await append([recordOf(topic, 'a')]);
      const reached = Promise.withResolvers<void>();
      const release = Promise.withResolvers<BatchOutcome>();
      const onBatch = (): Promise<BatchOutcome> => {
        reached.resolve();
        return release.promise;
      };
      const consumer = log.consume({ group: newGroup(), topics: [topic], onBatch });
      await reached.promise;
      const before = performance.now();
      await consumer.stop(300);
      await consumer.done;
      expect(performance.now() - before).toBeLessThan(2_000);
      release.resolve({ kind: 'advance', nextOffset: 1n });
    });
  });

  describe('while the log does not answer', () => {
    it('append and bounds are unavailable, the consumer is not ready, and all of it heals', async () => {
      const topic = await fixture.createTopic(1);
      const recorder = createRecorder();
      const consumer = consume({ topics: [topic], onBatch: recorder.onBatch });
      await append([recordOf(topic, 'before')]);
      await recorder.untilApplied(1);
      await log.bounds(topic);

      fixture.stall();
      try {
        const before = performance.now();
        const refused = log.append([recordOf(topic, 'lost?')], 500);
        const unknown = expect(log.bounds(topic)).rejects.toThrow(LogUnavailableError);
        await expect(refused).rejects.toThrow(LogUnavailableError);
        expect(performance.now() - before).toBeGreaterThan(490);
        expect(performance.now() - before).toBeLessThan(1_500);
        await vi.waitFor(() => expect(consumer.isReady()).toBe(false), patience);
        await unknown;
      } finally {
        await fixture.heal();
      }

      await append([recordOf(topic, 'after')]);
      await vi.waitFor(() => expect(recorder.keys()).toContain('after'), patience);
      await vi.waitFor(() => expect(consumer.isReady()).toBe(true), patience);
      expect(recorder.keys().filter((key) => key !== 'lost?')).toEqual(['before', 'after']);
      expect((await log.bounds(topic))[0]?.high).toBe(BigInt(recorder.applied.length));
    });
  });
}
