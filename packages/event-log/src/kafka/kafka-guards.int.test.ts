/** One test per behaviour of kafkajs or Kafka that the adapter guards against. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { runInNewContext } from 'node:vm';
import { decodeAtLeast, type LogPartition, RoomEventPublisher, topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import type { Admin } from 'kafkajs';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { createRecorder, keysPerPartition, recordOf } from '../../test/log-contract.ts';
import { startProxiedKafka } from '../../test/proxied-kafka.ts';
import type { BatchOutcome, ConsumeOptions, EventLog, LogBatch, LogConsumer } from '../event-log.ts';
import { LogUnavailableError, OffsetOutOfRangeError, RecordTooLargeError } from '../event-log.ts';
import { decompressZstd } from './codecs.ts';
import { createKafkaLog } from './kafka-log.ts';
import { kafkajs } from './kafkajs.ts';

const run = promisify(execFile);
const silent = (): void => undefined;
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const patience = { timeout: 20_000, interval: 20 };
const sessionTimeoutMs = 2_000;

describeWith(['kafka'], 'the Kafka adapter', () => {
  let broker: Awaited<ReturnType<typeof startProxiedKafka>>;
  let log: EventLog;
  let admin: Admin;
  let consumers: LogConsumer[] = [];
  let groups = 0;

  beforeAll(async () => {
    broker = await startProxiedKafka({
      'group.min.session.timeout.ms': '1000',
      'transaction.abort.timed.out.transaction.cleanup.interval.ms': '500',
      'log.cleaner.backoff.ms': '200',
    });
    log = openLog();
    admin = broker.client.admin();
    await admin.connect();
  });
  afterEach(async () => {
    await Promise.all(consumers.map((consumer) => consumer.stop(5_000)));
    consumers = [];
  });
  afterAll(async () => {
    await admin?.disconnect();
    await log?.close();
    await broker?.stop();
  });

  const openLog = (timeoutMs = sessionTimeoutMs): EventLog =>
    createKafkaLog({ brokers: broker.brokers, clientId: 'guards', sessionTimeoutMs: timeoutMs, writeLog: silent });

  function consume(options: Partial<ConsumeOptions> & { topics: string[] }): LogConsumer {
    groups += 1;
    const consumer = log.consume({ group: `group-${groups}`, onBatch: createRecorder().onBatch, ...options });
    consumers.push(consumer);
    return consumer;
  }

  const untilReady = (consumer: LogConsumer) => vi.waitFor(() => expect(consumer.isReady()).toBe(true), patience);
  const produceInJava = (topic: string, scenario: string) =>
    run('java', [
      ...['-cp', broker.kafka.javaClasspath, join(import.meta.dirname, '../../test/foreign-producer.java')],
      ...[String(broker.brokers), topic, scenario],
    ]);

  async function committed(group: string, topic: string): Promise<bigint> {
    const [offsets] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
    return BigInt(offsets?.partitions[0]?.offset ?? -1);
  }

  describe('reads what others write', () => {
    it('C13: in each codec of a Java producer, records of 200 KB too', async () => {
      const topic = await broker.createTopic(1);
      await produceInJava(topic, 'codecs');
      const recorder = createRecorder();
      consume({ topics: [topic], onBatch: recorder.onBatch });
      await recorder.untilApplied(10);
      const large = Buffer.from(range(200 * 1024).map((i) => (i * 31 + (i >> 8)) & 0xff));
      expect(recorder.applied.map(({ key, value }) => [String(key), value?.equals(large) || String(value)])).toEqual(
        ['none', 'gzip', 'snappy', 'lz4', 'zstd'].flatMap((codec) => [
          [codec, '{"a":1}'],
          [codec, true],
        ]),
      );
    });

    it('C14: without aborted records, and passes them and the markers by, so that no lag stays', async () => {
      const topic = await broker.createTopic(1);
      const group = 'transactions';
      const recorder = createRecorder();
      await untilReady(consume({ group, topics: [topic], onBatch: recorder.onBatch }));
      await produceInJava(topic, 'transactions');
      const [bounds] = await log.bounds(topic);
      await vi.waitFor(() => expect(recorder.nextOffsets.get(0)).toBe(bounds?.high), patience);
      expect(bounds?.high).toBeGreaterThan(5_000n);
      expect(recorder.keys()).toEqual(['committed']);
      expect(recorder.batches.at(-1)?.records).toEqual([]);
      await vi.waitFor(async () => expect(await committed(group, topic)).toBe(bounds?.high), patience);

      await log.append([recordOf(topic, 'good')], 5_000);
      await recorder.untilApplied(2);
      expect(recorder.applied[1]).toMatchObject({ offset: bounds?.high });
    });
  });

  it('C14: without any record of aborted transactions that overlap, wherever it begins', async () => {
    const topic = await broker.createTopic(1);
    const begin = async (transactionalId: string) => {
      const producer = broker.client.producer({
        transactionalId,
        createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
      });
      onTestFinished(() => producer.disconnect());
      await producer.connect();
      return producer.transaction();
    };
    const [early, late] = [await begin('early'), await begin('late')];
    for (const [at, transaction] of [early, late, early, late].entries())
      await transaction.send({ topic, messages: [{ key: `aborted ${at}`, value: '' }] });
    await late.abort();
    await early.abort();
    await log.append([recordOf(topic, 'good')], 5_000);
    for (const offset of [0n, 1n, 2n, 3n]) {
      const recorder = createRecorder();
      recorder.nextOffsets.set(0, offset);
      consume({ topics: [topic], onBatch: recorder.onBatch, startAt: async () => [{ topic, partition: 0, offset }] });
      await vi.waitFor(() => expect(recorder.nextOffsets.get(0)).toBe(7n), patience);
      expect(recorder.keys()).toEqual(['good']);
    }
  });

  it('C14: of a compacted topic on from an offset that was cleaned away, so that no lag stays', async () => {
    const config = { 'cleanup.policy': 'compact', 'segment.ms': '1', 'min.cleanable.dirty.ratio': '0.01' };
    const topic = await broker.createTopic(1, config);
    for (const key of ['a', 'b', 'a', 'a', 'b', 'c']) {
      await log.append([recordOf(topic, key)], 5_000);
      // A record is cleaned away once its segment is closed, which the next one does if it is younger.
      await delay(20);
    }
    const readFrom = async (offset: bigint) => {
      const recorder = createRecorder();
      recorder.nextOffsets.set(0, offset);
      const consumer = consume({
        topics: [topic],
        group: `compacted-${offset}`,
        onBatch: recorder.onBatch,
        startAt: async () => [{ topic, partition: 0, offset }],
      });
      await vi.waitFor(() => expect(recorder.nextOffsets.get(0)).toBe(6n), patience);
      await consumer.stop(5_000);
      return recorder.applied.map((record) => record.offset);
    };
    await vi.waitFor(async () => expect(await readFrom(0n)).toEqual([3n, 4n, 5n]), patience);

    expect(await readFrom(1n)).toEqual([3n, 4n, 5n]);
    expect(await committed('compacted-1', topic)).toBe(6n);
  }, 60_000);

  it('fetches no more at once than it is told to, but for what one batch of a producer holds', async () => {
    const topic = await broker.createTopic(2);
    const value = Buffer.alloc(100_000);
    for (const at of range(20)) await log.append([{ ...recordOf(topic, `key ${at}`), value }], 5_000);
    const recorder = createRecorder();
    consume({ topics: [topic], onBatch: recorder.onBatch, maxFetchBytes: 200_000 });
    await recorder.untilApplied(20);
    expect(Math.max(...recorder.batches.map(({ records }) => records.length))).toBe(1);
  });

  it('takes no partition for held back that only had no room in the answer', async () => {
    const topic = await broker.createTopic(2);
    const value = Buffer.alloc(100_000);
    for (const key of keysPerPartition(2)) await log.append([{ ...recordOf(topic, key), value }], 5_000);
    const consumer = broker.client.consumer({ groupId: 'no-room', maxBytes: 100_000, maxBytesPerPartition: 50_000 });
    onTestFinished(() => consumer.disconnect());
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    const sizes: number[] = [];
    await consumer.run({
      eachBatchAutoResolve: false,
      eachBatch: async ({ batch, resolveOffset }) => {
        sizes.push(batch.messages.length);
        for (const { offset } of batch.messages) resolveOffset(offset);
      },
    });
    await vi.waitFor(() => expect(sizes.filter((size) => size > 0)).toHaveLength(2), patience);
    expect(sizes).toEqual([1, 1]);
  });

  it('C14: tells which partition an open transaction holds back for 5 s, and goes on when the broker has ended it', async () => {
    const topic = await broker.createTopic(2);
    const recorder = createRecorder();
    const consumer = consume({ topics: [topic], onBatch: recorder.onBatch });
    await untilReady(consumer);
    const { stdout: openedAtMs } = await produceInJava(topic, 'left-open');
    const [zero = '', one = ''] = keysPerPartition(2);
    await log.append([recordOf(topic, zero), recordOf(topic, one)], 5_000);
    await recorder.untilApplied(1);
    expect(consumer.heldBack()).toEqual([]);
    expect(await log.bounds(topic)).toMatchObject([{ high: 2n }, { high: 1n }]);
    await vi.waitFor(() => expect(consumer.heldBack()).toMatchObject([{ topic, partition: 0 }]), patience);
    expect(Date.now() - Number(openedAtMs)).toBeGreaterThanOrEqual(5_000);
    await recorder.untilApplied(2);
    expect(recorder.keys()).toEqual([one, zero]);
    expect(consumer.heldBack()).toEqual([]);
  }, 60_000);

  describe('appending over a network that breaks', () => {
    it('loses nothing that was acknowledged, doubles nothing, and keeps the order of each key', async () => {
      const topic = await broker.createTopic(4);
      const acknowledged = new Map<string, number[]>();
      let isWriting = true;
      const writers = range(32).map(async (w) => {
        const key = `writer-${w}`;
        const own: number[] = [];
        acknowledged.set(key, own);
        for (let n = 0; isWriting; n += 1) {
          await log.append([recordOf(topic, key, String(n))], 20_000);
          own.push(n);
        }
      });
      const count = (): number => [...acknowledged.values()].flat().length;
      for (let cut = 0; cut < 15; cut += 1) {
        const before = count();
        await vi.waitFor(() => expect(count()).toBeGreaterThan(before + 200), { timeout: 20_000, interval: 1 });
        await broker.proxy.cut();
        await broker.proxy.heal();
      }
      isWriting = false;
      await Promise.all(writers);

      const recorder = createRecorder();
      consume({ topics: [topic], onBatch: recorder.onBatch });
      const high = (await log.bounds(topic)).reduce((sum, bounds) => sum + bounds.high, 0n);
      await recorder.untilApplied(Number(high));
      const written = Map.groupBy(recorder.applied, ({ key }) => String(key));
      for (const [key, numbers] of acknowledged) {
        expect(written.get(key)?.map(({ value }) => Number(value))).toEqual(numbers);
      }
    });

    it('goes on after the broker was killed', async () => {
      const topic = await broker.createTopic(1);
      const recorder = createRecorder();
      const consumer = consume({ topics: [topic], onBatch: recorder.onBatch });
      await log.append([recordOf(topic, 'before')], 5_000);
      await recorder.untilApplied(1);

      await broker.kafka.kill();
      await expect(log.append([recordOf(topic, 'refused')], 300)).rejects.toThrow('within 300 ms');
      await vi.waitFor(() => expect(consumer.isReady()).toBe(false), patience);
      await broker.kafka.start();

      await log.append([recordOf(topic, 'after')], 20_000);
      await vi.waitFor(() => expect(recorder.keys()).toContain('after'), patience);
      await untilReady(consumer);
    });

    it('reads on once a coordinator is there again, long before the session of who could not leave it has expired', async () => {
      const topic = await broker.createTopic(1);
      const anew = Promise.withResolvers<void>();
      const patient = createKafkaLog({
        brokers: broker.brokers,
        clientId: 'patient',
        sessionTimeoutMs: 120_000,
        writeLog: (_level, message) => {
          if (message === 'the Kafka consumer starts anew') anew.resolve();
        },
      });
      onTestFinished(() => patient.close());
      const recorder = createRecorder();
      const consumer = patient.consume({ group: 'patient', topics: [topic], onBatch: recorder.onBatch });
      consumers.push(consumer);
      await untilReady(consumer);
      await broker.kafka.kill();
      await anew.promise;
      await broker.kafka.start();
      await log.append([recordOf(topic, 'after')], 20_000);
      await vi.waitFor(() => expect(recorder.keys()).toEqual(['after']), patience);
    });

    it('consumes as soon as there is a broker and a topic', async () => {
      const recorder = createRecorder();
      await broker.proxy.cut();
      const consumer = consume({ topics: ['not-yet'], onBatch: recorder.onBatch });
      const refused = expect(log.bounds('not-yet')).rejects.toThrow('cannot be read');
      await refused;
      await broker.proxy.heal();
      expect(consumer.isReady()).toBe(false);
      await broker.kafka.createTopics([{ topic: 'not-yet', partitions: 1 }]);
      await log.append([recordOf('not-yet', 'k')], 10_000);
      await recorder.untilApplied(1);
      await untilReady(consumer);
    });
  });

  it('loses nothing that a publisher was acknowledged, over a producer as its README has it, when answers are lost', async () => {
    await broker.kafka.createTopics([{ topic: topics.roomEvents, partitions: 1 }]);
    const readme = readFileSync(join(import.meta.dirname, '../../../contracts/README.md'), 'utf8');
    const settings = /kafka\.producer\((\{.*?\})\)/s.exec(readme)?.[1] ?? 'none';
    const client = new kafkajs.Kafka({
      brokers: broker.brokers,
      requestTimeout: 300,
      retry: { retries: 3, initialRetryTime: 50 },
      logLevel: kafkajs.logLevel.NOTHING,
    });
    const producer = client.producer(runInNewContext(`(${settings})`, { Partitioners: kafkajs.Partitioners }));
    onTestFinished(() => producer.disconnect());
    await producer.connect();
    const publisher = new RoomEventPublisher({ producer, source: '/test' });
    const acknowledged: [subject: string, offset: bigint | undefined][] = [];
    const publish = async (subject: string): Promise<void> => {
      const { atLeast = '' } = await publisher.publish({ type: 'room.locked', subject, id: subject });
      acknowledged.push([subject, decodeAtLeast(atLeast)?.[0]?.offset]);
    };
    const breakAndHeal = async (): Promise<void> => {
      await broker.proxy.cut();
      await broker.proxy.heal();
    };
    await publish('before');

    const isUnanswered = new Promise((resolve) => producer.on(producer.events.REQUEST_TIMEOUT, resolve));
    broker.proxy.mute();
    const atOnce = Promise.all([publish('one'), publish('other')]);
    await isUnanswered;
    await breakAndHeal();
    await atOnce;

    broker.proxy.mute();
    await expect(publish('given up')).rejects.toThrow();
    await breakAndHeal();
    await publish('after');

    const recorder = createRecorder();
    consume({ topics: [topics.roomEvents], onBatch: recorder.onBatch });
    await recorder.untilApplied(Number((await log.bounds(topics.roomEvents))[0]?.high));
    expect(acknowledged.map(([subject]) => subject).sort()).toEqual(['after', 'before', 'one', 'other']);
    for (const [subject, offset] of acknowledged) expect(recorder.keys()[Number(offset)]).toBe(subject);
    expect(recorder.keys()).toContain('given up');
  });

  describe('a topic that refuses', () => {
    it('does so only what is too large for it, whatever came in the same batch', async () => {
      const topic = await broker.createTopic(1);
      const kind = kafkajs.ConfigResourceTypes.TOPIC;
      const configEntries = [{ name: 'max.message.bytes', value: '10000' }];
      await admin.alterConfigs({ validateOnly: false, resources: [{ type: kind, name: topic, configEntries }] });
      const bytes = [3_000, 3_000, 3_000, 3_000, 20_000, 3_000];
      const answers = await Promise.allSettled(
        bytes.map((size, at) =>
          log.append([{ ...recordOf(topic, 'k', String(at)), value: Buffer.alloc(size) }], 20_000),
        ),
      );
      expect(answers.map(({ status }) => status === 'fulfilled')).toEqual(bytes.map((size) => size < 10_000));
      expect(answers[4]).toMatchObject({ reason: expect.any(RecordTooLargeError) });
      expect(await log.bounds(topic)).toMatchObject([{ high: 5n }]);
    });

    it('keeps no other waiting', async () => {
      const topic = await broker.createTopic(1);
      await log.append([recordOf(topic, 'k')], 20_000);
      let isRefused = false;
      const refused = expect(log.append([recordOf('no-such-topic', 'k')], 20_000)).rejects.toThrow(LogUnavailableError);
      const ended = refused.then(() => {
        isRefused = true;
      });
      await log.append([recordOf(topic, 'k')], 20_000);
      expect(isRefused).toBe(false);
      await ended;
    });
  });

  describe('ends visibly', () => {
    it('C13: when a batch cannot be decoded, and says which, and where', async () => {
      const [good, bad] = [await broker.createTopic(1), await broker.createTopic(1)];
      await log.append([recordOf(good, 'k')], 5_000);
      await produceInJava(bad, 'codecs');
      const { CompressionCodecs, CompressionTypes } = kafkajs;
      const registered = CompressionCodecs[CompressionTypes.ZSTD];
      CompressionCodecs[CompressionTypes.ZSTD] = () => ({
        decompress: (batch: Buffer) => decompressZstd(batch.subarray(1)),
      });
      const startAt = async () => [
        { topic: good, partition: 0, offset: 0n },
        { topic: bad, partition: 0, offset: 4n },
      ];
      try {
        const consumer = consume({ topics: [good, bad], startAt });
        await expect(consumer.done).rejects.toThrow(
          new RegExp(
            `^The Kafka consumer cannot go on: A zstd batch of \\d+ bytes cannot be unpacked: partition 0 of ${bad}, at offset 4 or behind it$`,
          ),
        );
        expect(consumer.isReady()).toBe(false);
      } finally {
        CompressionCodecs[CompressionTypes.ZSTD] = registered;
      }
    });

    it('when nothing is heard for three session timeouts: here a handler that hangs', async () => {
      const topic = await broker.createTopic(1);
      await log.append([recordOf(topic, 'k')], 5_000);
      const never = Promise.withResolvers<BatchOutcome>();
      let before = Number.POSITIVE_INFINITY;
      const onBatch = (): Promise<BatchOutcome> => {
        before = performance.now();
        return never.promise;
      };
      const consumer = consume({ topics: [topic], onBatch });
      await expect(consumer.done).rejects.toThrow(
        `The handler of partition 0 of ${topic} has been silent for three session timeouts`,
      );
      const tookMs = performance.now() - before;
      expect(tookMs).toBeGreaterThan(3 * sessionTimeoutMs);
      expect(tookMs).toBeLessThan(4 * sessionTimeoutMs);
      never.resolve({ kind: 'advance', nextOffset: 1n });
    });

    it('when the log has dropped records that the handler has not seen', async () => {
      const topic = await broker.createTopic(1);
      await log.append(
        range(10).map((i) => recordOf(topic, 'k', String(i))),
        5_000,
      );
      await admin.fetchTopicOffsets(topic);
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '5' }] });
      expect(await log.bounds(topic)).toEqual([{ partition: 0, low: 5n, high: 10n }]);
      const byOutcome = consume({ topics: [topic], onBatch: createRecorder().onBatch });
      await expect(byOutcome.done).rejects.toThrow(OffsetOutOfRangeError);
      const startAt = async () => [{ topic, partition: 0, offset: 4n }];
      const byStart = consume({ topics: [topic], startAt });
      await expect(byStart.done).rejects.toThrow(OffsetOutOfRangeError);
    });
  });

  it('begins after the last record that was read where retention drops that while it starts', async () => {
    const topic = await broker.createTopic(1);
    await log.append(
      range(10).map((i) => recordOf(topic, 'k', String(i))),
      5_000,
    );
    const recorder = createRecorder();
    recorder.nextOffsets.set(0, 5n);
    const startAt = async () => {
      await admin.fetchTopicOffsets(topic);
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '5' }] });
      return [{ topic, partition: 0, offset: 5n, lastRead: 4n }];
    };
    consume({ topics: [topic], onBatch: recorder.onBatch, startAt });
    await recorder.untilApplied(5);
    expect(recorder.batches[0]?.fetchedOffset).toBe(5n);
  });

  describe('ends visibly when the topic was made again', () => {
    const makeAgain = async (topic: string, partitions: number): Promise<void> => {
      await admin.deleteTopics({ topics: [topic] });
      await vi.waitFor(
        () => broker.kafka.createTopics([{ topic, partitions }]).then(() => log.bounds(topic)),
        patience,
      );
    };

    it('under a consumer that had read more of it', async () => {
      const topic = await broker.createTopic(1);
      const recorder = createRecorder();
      const startAt = async () => [{ topic, partition: 0, offset: recorder.nextOffsets.get(0) ?? 0n }];
      const consumer = consume({ topics: [topic], onBatch: recorder.onBatch, startAt });
      const records = range(10).map((i) => recordOf(topic, 'k', String(i)));
      await log.append(records, 5_000);
      await recorder.untilApplied(10);
      const ended = expect(consumer.done).rejects.toThrow(OffsetOutOfRangeError);
      await makeAgain(topic, 1);
      await log.append(records.slice(0, 3), 10_000);
      await ended;
      expect(recorder.applied).toHaveLength(10);
    });
  });

  describe('the group', () => {
    it('has in Kafka what is durable, and only that', async () => {
      const topic = await broker.createTopic(1);
      await log.append(
        range(4).map((i) => recordOf(topic, 'k', String(i))),
        5_000,
      );
      const outcomes: BatchOutcome[] = [
        { kind: 'retry', nextOffset: 0n, afterMs: 200 },
        { kind: 'retry', nextOffset: 3n, afterMs: 60_000 },
      ];
      const seen: bigint[] = [];
      const group = 'mirror';
      const consumer = consume({
        group,
        topics: [topic],
        onBatch: async (batch) => {
          seen.push(batch.fetchedOffset);
          if (seen.length === 2) expect(await committed(group, topic)).toBe(-1n);
          return outcomes.shift() ?? { kind: 'advance', nextOffset: batch.nextOffset };
        },
      });
      await vi.waitFor(async () => expect(await committed(group, topic)).toBe(3n), patience);
      await consumer.stop(5_000);
      expect(await committed(group, topic)).toBe(3n);

      const next = createRecorder();
      next.nextOffsets.set(0, 3n);
      consume({ group, topics: [topic], onBatch: next.onBatch });
      await next.untilApplied(1);
      expect(next.batches[0]?.fetchedOffset).toBe(3n);
    });

    it('shares the partitions, and a member that stops hands its own over at once', async () => {
      const topic = await broker.createTopic(4);
      const shares: number[][] = [[], []];
      // Whoever vanishes is missed after so long.
      const longSessionMs = 10_000;
      const patientLog = openLog(longSessionMs);
      onTestFinished(() => patientLog.close());
      const members = shares.map((_, i) =>
        patientLog.consume({
          group: 'shared',
          topics: [topic],
          onBatch: createRecorder().onBatch,
          startAt: async (assigned) => {
            shares[i] = assigned.map(({ partition }) => partition);
            return [];
          },
        }),
      );
      consumers.push(...members);
      await vi.waitFor(() => expect(shares.map(({ length }) => length)).toEqual([2, 2]), patience);
      expect(shares.flat().sort()).toEqual([0, 1, 2, 3]);

      const before = performance.now();
      await members[0]?.stop(5_000);
      await vi.waitFor(() => expect(shares[1]).toHaveLength(4), patience);
      expect(performance.now() - before).toBeLessThan(longSessionMs / 2);
    });

    it('tells a handler by its heartbeat that the partition may have gone, and starts it where the next one says', async () => {
      const topic = await broker.createTopic(2);
      const [zero = '', one = ''] = keysPerPartition(2);
      await log.append([recordOf(topic, zero), recordOf(topic, one)], 5_000);
      const isShared = Promise.withResolvers<void>();
      const answers: boolean[] = [];
      const recorder = createRecorder();
      const begun = new Set<number>();
      const onBatch = async (batch: LogBatch): Promise<BatchOutcome> => {
        if (begun.has(batch.partition)) return recorder.onBatch(batch);
        begun.add(batch.partition);
        await isShared.promise;
        answers.push(await batch.heartbeat());
        // What it did last is not durable.
        return { kind: 'advance', nextOffset: batch.nextOffset };
      };
      const startAt = async (assigned: readonly LogPartition[]) => assigned.map((each) => ({ ...each, offset: 0n }));
      const slow = consume({ group: 'fenced', topics: [topic], startAt, onBatch });
      await vi.waitFor(() => expect(begun.size).toBe(2), patience);
      const startShare = (assigned: readonly LogPartition[]) => {
        if (assigned.length === 1) isShared.resolve();
        return startAt(assigned);
      };
      consume({ group: 'fenced', topics: [topic], startAt: startShare, onBatch: recorder.onBatch });
      await recorder.untilApplied(2);
      expect(answers).toEqual([false, false]);
      expect(new Set(recorder.keys())).toEqual(new Set([zero, one]));
      await untilReady(slow);
    });
  });
});
