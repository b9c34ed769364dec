import { createRequire } from 'node:module';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Consumer, ConsumerRunConfig } from 'kafkajs';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  type BatchOutcome,
  type ConsumeOptions,
  type LogBatch,
  type LogConsumer,
  LogUnavailableError,
} from '../event-log.ts';
import { consumeKafka } from './kafka-consumer.ts';
import { kafkajs } from './kafkajs.ts';

const Batch = createRequire(import.meta.url)('kafkajs/src/consumer/batch.js');
const patience = { timeout: 5_000, interval: 5 };

/**
 * A kafkajs consumer whose broker is the test. As the real one, it refuses all but `disconnect` when it has stopped.
 */
function createFakeMember() {
  const real = new kafkajs.Kafka({ brokers: ['nowhere:1'], logLevel: kafkajs.logLevel.NOTHING });
  const { events, ...rest } = real.consumer({ groupId: 'g' });
  const listeners = new Map<string, (event: never) => void>();
  const paused = new Set<number>();
  const seeks: string[] = [];
  const lastCalls: string[] = [];
  const group = { answers: Promise.resolve(), connects: Promise.resolve(), isLeft: Promise.resolve() };
  let heartbeat = async (): Promise<void> => undefined;
  let running: ConsumerRunConfig | undefined;

  const whileRunning = (act: () => void): void => {
    if (running === undefined) throw new kafkajs.KafkaJSNonRetriableError('Consumer group was not initialized');
    act();
  };
  const partitionsOf = (topics: readonly { readonly partitions?: number[] }[]): number[] =>
    topics.flatMap(({ partitions = [] }) => partitions);
  const tell = (name: string, payload: unknown = {}): void => listeners.get(name)?.({ payload } as never);
  const stop = (): void => {
    running = undefined;
    tell(events.STOP);
  };

  const consumer: Consumer = {
    ...rest,
    events,
    on: (name: string, listener: (event: never) => void) => {
      listeners.set(name, listener);
      return () => undefined;
    },
    connect: () => group.connects,
    subscribe: async () => undefined,
    run: async (config) => {
      running = config;
    },
    pause: (topics) => whileRunning(() => partitionsOf(topics).forEach((each) => void paused.add(each))),
    resume: (topics) => whileRunning(() => partitionsOf(topics).forEach((each) => void paused.delete(each))),
    seek: ({ offset }) => whileRunning(() => void seeks.push(offset)),
    commitOffsets: async () => {
      await group.answers;
      lastCalls.push('shown');
    },
    disconnect: async () => {
      lastCalls.push('gone');
      stop();
      await group.isLeft;
    },
  };

  const fetched = async (partition: number, offset: string, messages: object[]): Promise<void> => {
    const answer = { partition, highWatermark: '9', abortedTransactions: [], messages };
    const payload = { batch: new Batch('t', offset, answer), heartbeat: () => heartbeat() };
    await running?.eachBatch?.(payload as unknown as Parameters<NonNullable<ConsumerRunConfig['eachBatch']>>[0]);
  };

  return {
    consumer,
    stop,
    crash: () => tell(events.CRASH, { error: new kafkajs.KafkaJSConnectionError('Connection error: ECONNREFUSED') }),
    join: (...partitions: number[]) => tell(events.GROUP_JOIN, { memberAssignment: { t: partitions } }),
    answer: (apiName = 'Heartbeat') => tell(events.REQUEST, { apiName }),
    answerNothing: () => tell(events.REQUEST_TIMEOUT),
    seeks,
    isPaused: (partition: number) => paused.has(partition),
    isRunning: () => running !== undefined,
    lastCalls,
    group,
    refuseHeartbeats: () => {
      heartbeat = () => Promise.reject(new kafkajs.KafkaJSError('The group is rebalancing'));
    },
    /** Resolves when kafkajs would ask for more. */
    bring: (partition: number, offset: string) =>
      fetched(partition, offset, [{ offset, timestamp: '0', key: null, value: null, headers: {} }]),
    /** By an open transaction. */
    holdBack: (partition: number) => fetched(partition, '0', []),
  };
}

describe('consumeKafka', () => {
  let consumer: LogConsumer;
  afterEach(() => consumer.stop(1_000));

  const untilPaused = (member: ReturnType<typeof createFakeMember>, isPaused: boolean) =>
    vi.waitFor(() => expect(member.isPaused(0)).toBe(isPaused), patience);

  const boundsOfAll = async () => [{ partition: 0, low: 0n, high: 9n }];

  function given(options: Partial<ConsumeOptions>, { sessionTimeoutMs = 10_000, bounds = boundsOfAll } = {}) {
    const members: ReturnType<typeof createFakeMember>[] = [];
    const handed: PromiseWithResolvers<BatchOutcome>[] = [];
    const createClient = () => ({
      consumer: () => {
        const member = createFakeMember();
        members.push(member);
        return member.consumer;
      },
    });
    const onBatch = (): Promise<BatchOutcome> => {
      const outcome = Promise.withResolvers<BatchOutcome>();
      handed.push(outcome);
      return outcome.promise;
    };
    const dependencies = { createClient, bounds, sessionTimeoutMs, writeLog: () => undefined };
    consumer = consumeKafka(dependencies, { group: 'g', topics: ['t'], onBatch, ...options });
    const running = (nth: number) =>
      vi.waitFor(() => {
        const member = members[nth];
        if (member?.isRunning() !== true) throw new Error(`member ${nth} does not run`);
        return member;
      }, patience);
    /** Has joined, and reads from where it is to begin. */
    const assigned = async (nth: number) => {
      const member = await running(nth);
      member.join(0);
      await untilPaused(member, false);
      return member;
    };
    const finish = (nth: number, nextOffset = 1n) => handed[nth]?.resolve({ kind: 'advance', nextOffset });
    return { running, assigned, handed, finish };
  }

  const startAt = async () => [{ topic: 't', partition: 0, offset: 0n }];

  /** Deadlines that come when the test says. */
  function givenTimeouts() {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => {
      vi.useRealTimers();
    });
    return (ms: number) => vi.advanceTimersByTimeAsync(ms);
  }

  it('asks startAt also where nothing is assigned, which tells that others may have taken partitions over', async () => {
    const asked: unknown[] = [];
    // No `vi.fn`, which would look after its rejection.
    const startAtNone = (assigned: unknown) => {
      asked.push(assigned);
      return Promise.reject(new Error('the database is away'));
    };
    const { running } = given({ startAt: startAtNone });
    const member = await running(0);
    member.join();
    member.answer();
    await vi.waitFor(() => expect(consumer.isReady()).toBe(true), patience);
    expect(asked).toEqual([[]]);
  });

  it('begins where the newest assignment is told to, whatever older ones hear later', async () => {
    const answers = [99n, 5n, 7n].map((offset) => ({ offset, ...Promise.withResolvers<void>() }));
    const asked = answers.values();
    const { running } = given({
      startAt: async () => {
        const { offset, promise } = asked.next().value ?? { offset: 0n };
        await promise;
        return [{ topic: 't', partition: 0, offset }];
      },
    });
    const member = await running(0);
    for (const { resolve } of answers) {
      member.join(0);
      resolve();
    }
    await untilPaused(member, false);
    expect(member.seeks).toEqual(['7']);
  });

  it('goes on with a partition that another assignment had left alone', async () => {
    const { assigned, handed, finish } = given({ startAt });
    const member = await assigned(0);
    const first = member.bring(0, '0');
    handed[0]?.resolve({ kind: 'retry', nextOffset: 0n, afterMs: 3_600_000 });
    await first;
    expect(member.isPaused(0)).toBe(true);

    member.join(0);
    await untilPaused(member, false);
    await member.bring(0, '0');
    expect(member.isPaused(0)).toBe(true);
    finish(1);
    await untilPaused(member, false);
  });

  it.each<[string, Partial<ConsumeOptions>]>([
    ['from where startAt says', { startAt }],
    ['from where the group was', {}],
  ])('goes on with a partition whose batch outlived its assignment, %s', async (_, options) => {
    const { assigned, handed, finish } = given(options);
    const member = await assigned(0);
    await member.bring(0, '0');
    expect(member.isPaused(0)).toBe(true);

    member.join(0);
    await untilPaused(member, false);
    await member.bring(0, '0');
    expect(member.isPaused(0)).toBe(true);
    expect(handed).toHaveLength(1);
    finish(0);
    await untilPaused(member, false);
  });

  it('goes on beyond what was fetched only where the log is known to go so far: else the batch comes again', async () => {
    let isAway = true;
    const bounds = () => (isAway ? Promise.reject(new LogUnavailableError('The broker is away')) : boundsOfAll());
    const { assigned, finish } = given({}, { bounds });
    const member = await assigned(0);
    const first = member.bring(0, '0');
    finish(0, 7n);
    await first;
    expect(member.seeks).toEqual([]);
    expect(member.isPaused(0)).toBe(true);
    isAway = false;
    await untilPaused(member, false);
    const again = member.bring(0, '0');
    finish(1, 7n);
    await again;
    expect(member.seeks).toEqual(['7']);
  });

  it('goes on nowhere by an outcome that was still to be checked when another assignment came', async () => {
    const answer = Promise.withResolvers<void>();
    const { assigned, finish } = given({}, { bounds: () => answer.promise.then(boundsOfAll) });
    const member = await assigned(0);
    const brought = member.bring(0, '0');
    finish(0, 7n);
    await new Promise((resolve) => setImmediate(resolve));
    member.join(0);
    answer.resolve();
    await brought;
    expect(member.seeks).toEqual([]);
  });

  it('outlives a batch that ends between the stop of its member and the crash', async () => {
    const { running, assigned, finish } = given({ startAt });
    const member = await assigned(0);
    await member.bring(0, '0');
    member.stop();
    finish(0);
    await new Promise((resolve) => setImmediate(resolve));
    member.crash();
    await Promise.race([running(1), consumer.done]);
  });

  it('hands a partition to one member at a time, and the next one goes on after the one before', async () => {
    const { assigned, handed, finish } = given({ startAt });
    const before = await assigned(0);
    await before.bring(0, '0');
    before.stop();
    before.crash();

    const member = await assigned(1);
    await member.bring(0, '0');
    expect(member.isPaused(0)).toBe(true);
    expect(handed).toHaveLength(1);
    finish(0);
    await untilPaused(member, false);
    const next = member.bring(0, '0');
    finish(1);
    await next;
    expect(handed).toHaveLength(2);
  });

  it('has no more in hand than concurrency, and leaves a hand to others before it sets one aside', async () => {
    const passTime = givenTimeouts();
    const { running, handed, finish } = given({ concurrency: 2 });
    const member = await running(0);
    member.join(0, 1, 2, 3);
    await untilPaused(member, false);
    const first = member.bring(0, '0');
    await passTime(250);
    await first;
    expect(member.isPaused(0)).toBe(true);
    const others = [1, 2, 3].map((partition) => member.bring(partition, '0'));
    await member.bring(0, '0');
    await passTime(250);
    expect(handed).toHaveLength(2);
    finish(0);
    await passTime(250);
    expect(handed).toHaveLength(3);
    expect([1, 2, 3].filter(member.isPaused)).toEqual([]);
    finish(1);
    await vi.waitFor(() => expect(handed).toHaveLength(4), patience);
    finish(2);
    finish(3);
    await Promise.all(others);
  });

  it('hands out nothing that waited for a hand when it was to stop, and leaves when all hands are free', async () => {
    const { running, handed, finish } = given({ concurrency: 2 });
    const member = await running(0);
    member.join(0, 1, 2);
    await untilPaused(member, false);
    const brought = [0, 1, 2].map((partition) => member.bring(partition, '0'));
    const stopped = consumer.stop(5_000);
    finish(0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(member.lastCalls).toEqual([]);
    finish(1);
    await Promise.all([...brought, stopped]);
    expect(handed).toHaveLength(2);
    expect(member.lastCalls).toEqual(['gone']);
  });

  it('is not ready once it is to stop, and gives what is in hand all the time that it may take to', async () => {
    const passTime = givenTimeouts();
    const { assigned, finish } = given({ startAt });
    const member = await assigned(0);
    member.answer();
    expect(consumer.isReady()).toBe(true);
    void member.bring(0, '0');
    const hasStopped = vi.fn();
    void consumer.stop(10_000).then(hasStopped);
    expect(consumer.isReady()).toBe(false);
    await passTime(9_000);
    expect(hasStopped).not.toHaveBeenCalled();
    finish(0);
    await vi.waitFor(() => expect(hasStopped).toHaveBeenCalled(), patience);
  });

  it('has stopped in order, whatever becomes of what was in hand', async () => {
    const { assigned, handed } = given({ startAt });
    const member = await assigned(0);
    void member.bring(0, '0');
    const stopped = consumer.stop(5_000);
    handed[0]?.resolve({ kind: 'stop', error: new Error('the database is away') });
    await stopped;
    await consumer.done;
  });

  it('ends when the handler of a batch says so, also of one that outlived its assignment', async () => {
    const { assigned, handed } = given({ startAt });
    const member = await assigned(0);
    await member.bring(0, '0');
    member.join(0);
    handed[0]?.resolve({ kind: 'stop', error: new Error('this is another log') });
    await expect(consumer.done).rejects.toThrow('this is another log');
  });

  it.each<[string, (member: ReturnType<typeof createFakeMember>) => void]>([
    ['another assignment has come', (member) => member.join(0)],
    ['the broker refuses the heartbeat', (member) => member.refuseHeartbeats()],
  ])('tells a handler by its heartbeat that the partition may have gone: %s', async (_, happens) => {
    const taken = Promise.withResolvers<LogBatch>();
    const outcome = Promise.withResolvers<BatchOutcome>();
    const onBatch = (batch: LogBatch): Promise<BatchOutcome> => {
      taken.resolve(batch);
      return outcome.promise;
    };
    const { assigned } = given({ startAt, onBatch });
    const member = await assigned(0);
    const brought = member.bring(0, '0');
    const { heartbeat } = await taken.promise;
    expect(await heartbeat()).toBe(true);
    happens(member);
    expect(await heartbeat()).toBe(false);
    outcome.resolve({ kind: 'advance', nextOffset: 1n });
    await brought;
  });

  it('starts anew a second after a crash, also where the member that crashed cannot leave', async () => {
    const passTime = givenTimeouts();
    const { assigned, running } = given({ startAt });
    const member = await assigned(0);
    member.group.isLeft = new Promise(() => {});
    const crashedAtMs = performance.now();
    member.crash();
    await vi.waitFor(() => expect(member.lastCalls).toEqual(['gone']), patience);
    await passTime(5_000);
    await running(1);
    expect(performance.now() - crashedAtMs).toBeGreaterThan(990);
  });

  it('stops within its deadline, also while no broker takes its connection', async () => {
    const member = createFakeMember();
    member.group.connects = new Promise(() => {});
    const createClient = () => ({ consumer: () => member.consumer });
    const dependencies = { createClient, bounds: async () => [], sessionTimeoutMs: 10_000, writeLog: () => undefined };
    const onBatch = () => Promise.reject(new Error('nothing is consumed here'));
    consumer = consumeKafka(dependencies, { group: 'g', topics: ['t'], onBatch });
    await consumer.stop(50);
    await consumer.done;
  });

  it('keeps a partition paused until everything is over that it waits for', async () => {
    const { assigned, handed } = given({ startAt });
    const member = await assigned(0);
    await member.bring(0, '0');
    handed[0]?.resolve({ kind: 'retry', nextOffset: 0n, afterMs: 100 });
    await new Promise((resolve) => setImmediate(resolve));
    expect(member.isPaused(0)).toBe(true);
    await untilPaused(member, false);
  });

  it('keeps nothing of members that have crashed', async () => {
    let member = createFakeMember();
    const createClient = () => ({ consumer: () => member.consumer });
    const dependencies = { createClient, bounds: async () => [], sessionTimeoutMs: 10_000, writeLog: () => undefined };
    const onBatch = async (): Promise<BatchOutcome> => ({ kind: 'advance', nextOffset: 1n });
    consumer = consumeKafka(dependencies, { group: 'g', topics: ['t'], onBatch });
    const untilRunning = () => vi.waitFor(() => expect(member.isRunning()).toBe(true), patience);
    const crash = (): WeakRef<object> => {
      const before = member;
      member = createFakeMember();
      before.crash();
      return new WeakRef(before.consumer);
    };
    await untilRunning();
    const crashed = crash();
    // Of the last crash the error is still at hand, and what threw it.
    await untilRunning();
    crash();
    await untilRunning();
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc') as () => void;
    await vi.waitFor(() => {
      collectGarbage();
      expect(crashed.deref()).toBeUndefined();
    }, patience);
  }, 10_000);

  it('ends when the broker has answered nothing for three session timeouts', async () => {
    given({ startAt }, { sessionTimeoutMs: 100 });
    await expect(consumer.done).rejects.toThrow('The Kafka consumer has been silent for three session timeouts');
  });

  /** Time that passes as the test says. */
  function givenTime() {
    let nowMs = 0;
    vi.spyOn(performance, 'now').mockImplementation(() => nowMs);
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    onTestFinished(() => {
      vi.restoreAllMocks();
      vi.useRealTimers();
    });
    const standStill = (seconds: number): void => {
      nowMs += seconds * 1_000;
    };
    const goOn = async (seconds: number, eachSecond = () => {}): Promise<void> => {
      for (let second = 0; second < seconds; second += 1) {
        standStill(1);
        eachSecond();
        await vi.advanceTimersByTimeAsync(1_000);
      }
    };
    return { goOn, standStill };
  }

  it('is ready once it knows where to begin, while the broker answers it', async () => {
    const { goOn } = givenTime();
    const began = Promise.withResolvers<void>();
    const { running } = given({ startAt: () => began.promise.then(startAt) });
    const member = await running(0);
    member.answer();
    expect(consumer.isReady()).toBe(false);
    member.join(0);
    await goOn(1);
    expect(consumer.isReady()).toBe(false);
    began.resolve();
    await untilPaused(member, false);
    expect(consumer.isReady()).toBe(true);
    await goOn(10);
    member.answer('Metadata');
    expect(consumer.isReady()).toBe(false);
    member.answer();
    expect(consumer.isReady()).toBe(true);
    member.stop();
    expect(consumer.isReady()).toBe(false);
  });

  it.each([
    ['before', [0, 1]],
    ['after', [1, 0]],
  ])('is ready by its newest assignment alone, where an older one hears where to begin %s it', async (_, order) => {
    const answers = [0, 1].map(() => Promise.withResolvers<void>());
    const asked = answers.values();
    const { running } = given({ startAt: () => Promise.resolve(asked.next().value?.promise).then(startAt) });
    const member = await running(0);
    member.answer();
    member.join(0);
    member.join(0);
    for (const at of order) {
      const wasReady = consumer.isReady();
      answers[at]?.resolve();
      await new Promise((resolve) => setImmediate(resolve));
      expect(consumer.isReady()).toBe(wasReady || at === 1);
    }
    expect(member.isPaused(0)).toBe(false);
  });

  it('tells what an open transaction has held back for 5 s, until it goes on or is assigned anew', async () => {
    const { goOn } = givenTime();
    const { assigned, finish } = given({ startAt });
    const member = await assigned(0);
    const heldBackFor = async (seconds: number) => {
      for (let second = 0; second < seconds; second += 1) {
        await member.holdBack(0);
        await goOn(1, () => member.answer());
      }
      return consumer.heldBack();
    };
    expect(await heldBackFor(5)).toEqual([]);
    expect(await heldBackFor(1)).toMatchObject([{ topic: 't', partition: 0 }]);
    const brought = member.bring(0, '0');
    expect(consumer.heldBack()).toEqual([]);
    finish(0);
    await brought;
    expect(await heldBackFor(6)).toHaveLength(1);
    member.join(0);
    expect(consumer.heldBack()).toEqual([]);
  });

  it.each([
    ['what is in hand is done, and what was done is shown', false],
    ['what was done is shown, and what is in hand is done', true],
  ])('takes no more once it is to stop, and leaves when %s', async (_, isShownFirst) => {
    const { assigned, handed, finish } = given({ startAt });
    const member = await assigned(0);
    const answer = Promise.withResolvers<void>();
    member.group.answers = answer.promise;
    const first = member.bring(0, '0');
    finish(0);
    await first;
    await member.bring(0, '1');
    const stopped = consumer.stop(5_000);
    await member.bring(1, '0');
    expect(handed).toHaveLength(2);
    const endings = [() => finish(1), answer.resolve];
    for (const end of isShownFirst ? endings.toReversed() : endings) {
      await new Promise((resolve) => setImmediate(resolve));
      expect(member.lastCalls).not.toContain('gone');
      end();
    }
    await stopped;
    expect(member.lastCalls).toEqual(['shown', 'gone']);
  });

  it('does not end because this process stood still, but when it has then heard nothing for as long', async () => {
    const { goOn, standStill } = givenTime();
    const { assigned } = given({ startAt });
    const member = await assigned(0);
    const ended = vi.fn();
    consumer.done.catch(ended);
    await member.bring(0, '0');
    await goOn(3);
    standStill(60);
    await goOn(29);
    expect(ended).not.toHaveBeenCalled();
    await goOn(3);
    expect(ended).toHaveBeenCalled();
  });

  it('does not end while the broker is away, but when nothing is asked any more, also where the looks at it are late', async () => {
    const { goOn, standStill } = givenTime();
    const { assigned } = given({ startAt });
    const member = await assigned(0);
    const ended = vi.fn();
    consumer.done.catch(ended);
    await goOn(40, member.answerNothing);
    expect(ended).not.toHaveBeenCalled();
    await goOn(16, () => standStill(1));
    expect(ended).toHaveBeenCalled();
  });

  it('does not end while a handler that takes long shows that it lives, but when it no longer does', async () => {
    const { goOn } = givenTime();
    let batch: LogBatch | undefined;
    const onBatch = (taken: LogBatch): Promise<BatchOutcome> => {
      batch = taken;
      return new Promise(() => {});
    };
    const { assigned } = given({ startAt, onBatch });
    const member = await assigned(0);
    const ended = vi.fn();
    consumer.done.catch(ended);
    await member.bring(0, '0');
    await goOn(40, () => {
      member.answer();
      void batch?.heartbeat();
    });
    expect(ended).not.toHaveBeenCalled();
    await goOn(32, () => member.answer());
    expect(ended).toHaveBeenCalledWith(
      expect.objectContaining({ message: expect.stringContaining('partition 0 of t') }),
    );
  });
});
