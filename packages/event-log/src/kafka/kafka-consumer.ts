import { partitionName } from '@realtime-service/contracts';
import type { Consumer, EachBatchPayload, Kafka, TopicPartitions } from 'kafkajs';
import { beginningsOf } from '../beginnings.ts';
import type {
  BatchOutcome,
  ConsumeOptions,
  LogBatch,
  LogConsumer,
  LogPartition,
  PartitionBounds,
  WriteLog,
} from '../event-log.ts';
import { assertInside, LogUnavailableError, OffsetOutOfRangeError } from '../event-log.ts';
import { within } from '../within.ts';
import { isPassing } from './is-passing.ts';
import { isHeldBack, toLogBatch } from './kafka-batch.ts';
import { createMirror, type Mirror } from './kafka-mirror.ts';

export interface KafkaConsumerDependencies {
  /** A new client for each life of the consumer: kafkajs keeps offsets of a group in the client. */
  readonly createClient: () => Kafka;
  readonly bounds: (topic: string) => Promise<PartitionBounds[]>;
  readonly sessionTimeoutMs: number;
  readonly writeLog: WriteLog;
}

const defaultConcurrency = 32;
const maxFetchWaitMs = 500;
const restartAfterMs = 1_000;
const askAgainAfterMs = 1_000;
const defaultCloseWithinMs = 5_000;
const silentSessions = 3;
/** A batch that takes longer is finished aside. Longer than a full one of a busy partition takes. */
const asideAfterMs = 250;
const heldBackAfterMs = 5_000;
/** Answers to these show that the broker serves this member, not merely that it is there. */
const signsOfLife = new Set(['Fetch', 'Heartbeat', 'JoinGroup', 'SyncGroup']);

/** A batch in the handler's hands. */
interface Work extends LogPartition {
  readonly done: Promise<void>;
  /** When its handler was last heard of. */
  aliveAtMs: number;
  /** Where kafkajs was told to leave the partition alone until this is done. */
  aside?: { readonly consumer: Consumer; readonly assignment: number };
}

/**
 * Consumes with a succession of kafkajs consumers: each lives until it crashes, and after an error that passes a new
 * one takes its place. The handler's outcome alone decides where to go on; Kafka's committed offset is a mirror of it
 * for ops, written after the fact.
 */
export function consumeKafka(dependencies: KafkaConsumerDependencies, options: ConsumeOptions): LogConsumer {
  const { createClient, bounds, sessionTimeoutMs, writeLog } = dependencies;
  const done = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  const timers = new Set<NodeJS.Timeout>();
  const { concurrency = defaultConcurrency } = options;
  const works = new Map<string, Work>();
  const retries = new Set<string>();
  const heldBack = new Map<string, LogPartition & { readonly sinceMs: number }>();
  let isEnded = false;
  let isAssigned = false;
  let assignments = 0;
  let assigned: { readonly consumer: Consumer; readonly partitions: TopicPartitions[] } | undefined;
  let closeWithinMs = defaultCloseWithinMs;
  let answeredAtMs = Number.NEGATIVE_INFINITY;
  let activeAtMs = performance.now();

  function end(error?: Error): void {
    if (isEnded) return;
    isEnded = true;
    if (error !== undefined) done.reject(error);
    for (const timer of timers) clearTimeout(timer);
    clearInterval(watchdog);
    ended.resolve();
  }

  function later(delayMs: number, action: () => void): void {
    if (isEnded) return;
    const timer = setTimeout(() => {
      timers.delete(timer);
      action();
    }, delayMs);
    timers.add(timer);
  }

  const watchdog = setInterval(() => {
    const heardBeforeMs = performance.now() - silentSessions * sessionTimeoutMs;
    if (activeAtMs < heardBeforeMs) end(new Error('The Kafka consumer has been silent for three session timeouts'));
    for (const { topic, partition, aliveAtMs } of works.values())
      if (aliveAtMs < heardBeforeMs)
        end(new Error(`The handler of partition ${partition} of ${topic} has been silent for three session timeouts`));
  }, 1_000);

  async function supervise(): Promise<void> {
    while (!isEnded) {
      const crash = await live();
      if (crash === undefined || isEnded) return;
      if (!isPassing(crash))
        return end(new Error(`The Kafka consumer cannot go on: ${crash.message}`, { cause: crash }));
      activeAtMs = performance.now();
      writeLog('warn', 'the Kafka consumer starts anew', { error: crash });
      await Promise.race([ended.promise, new Promise<void>((resolve) => later(restartAfterMs, resolve))]);
    }
  }

  /** One kafkajs consumer, from connecting to its crash (returned) or to the end of all (undefined). */
  async function live(): Promise<Error | undefined> {
    const consumer = createClient().consumer({
      groupId: options.group,
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: sessionTimeoutMs,
      heartbeatInterval: sessionTimeoutMs / 5,
      maxWaitTimeInMs: maxFetchWaitMs,
      metadataMaxAge: 60_000,
      allowAutoTopicCreation: false,
      retry: { restartOnFailure: async () => false },
    });
    const member: Member = { consumer, mirror: createMirror(consumer, writeLog) };
    const crashed = Promise.withResolvers<Error>();
    const { events } = consumer;
    consumer.on(events.CRASH, ({ payload }) => crashed.resolve(payload.error));
    consumer.on(events.GROUP_JOIN, ({ payload }) => enter(consumer, payload.memberAssignment));
    consumer.on(events.REQUEST, ({ payload }) => {
      if (signsOfLife.has(payload.apiName)) answeredAtMs = activeAtMs = performance.now();
    });
    // A broker that is away is not what the watchdog is for.
    consumer.on(events.REQUEST_TIMEOUT, () => {
      activeAtMs = performance.now();
    });
    try {
      await consumer.connect();
      // Also governs offsets that are out of range: with false, retained records would be skipped.
      await consumer.subscribe({ topics: [...options.topics], fromBeginning: true });
      await consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        partitionsConsumedConcurrently: concurrency,
        eachBatch: (payload) => handle(member, payload),
      });
      return await Promise.race([crashed.promise, ended.promise.then(() => undefined)]);
    } catch (error) {
      return toError(error);
    } finally {
      isAssigned = false;
      assigned = undefined;
      assignments += 1;
      await within(closeWithinMs, leave(member));
    }
  }

  /** Never from inside `eachBatch`, which this waits for. */
  async function leave({ consumer, mirror }: Member): Promise<void> {
    if (isEnded) {
      await Promise.all([...works.values()].map(({ done: finished }) => finished));
      await mirror.settled();
    }
    await consumer.disconnect();
  }

  function enter(consumer: Consumer, assignment: Readonly<Record<string, number[]>>): void {
    const topics = Object.entries(assignment);
    options.onAssigned?.(new Map(topics));
    heldBack.clear();
    assigned = { consumer, partitions: topics.map(([topic, ofTopic]) => ({ topic, partitions: ofTopic })) };
    reposition();
  }

  function reposition(): void {
    if (isEnded || assigned === undefined) return;
    assignments += 1;
    const { consumer, partitions } = assigned;
    if (options.startAt === undefined || partitions.length === 0) {
      isAssigned = true;
      return;
    }
    consumer.pause(partitions);
    void position(consumer, partitions, assignments);
  }

  async function position(consumer: Consumer, partitions: TopicPartitions[], assignment: number): Promise<void> {
    const each = partitions.flatMap(({ topic, partitions: of }) => of.map((partition) => ({ topic, partition })));
    try {
      const beginnings = await beginningsOf((await options.startAt?.(each)) ?? [], bounds);
      if (isEnded || assignment !== assignments) return;
      for (const beginning of beginnings) consumer.seek({ ...beginning, offset: String(beginning.offset) });
      consumer.resume(partitions);
      isAssigned = true;
    } catch (error) {
      if (assignment !== assignments) return;
      if (error instanceof OffsetOutOfRangeError) return end(error);
      writeLog('warn', 'where to go on is not known yet', { error });
      later(askAgainAfterMs, () => {
        if (assignment === assignments) void position(consumer, partitions, assignment);
      });
    }
  }

  /**
   * kafkajs asks a broker again only when every batch of its last answer was handled, so that one which takes long
   * would keep all other partitions waiting. Its partition is paused then, and it is finished aside.
   */
  async function handle(member: Member, { batch, heartbeat }: EachBatchPayload): Promise<void> {
    const { consumer } = member;
    const { topic, partition } = batch;
    const name = partitionName({ topic, partition });
    while (!isEnded && !works.has(name) && works.size >= concurrency)
      await Promise.race([...works.values()].map(({ done: finished }) => finished));
    if (isEnded) return;
    const unfinished = works.get(name);
    // It came back by a rebalance.
    if (unfinished !== undefined) return setAside(unfinished, consumer);
    if (isHeldBack(batch)) {
      if (!heldBack.has(name)) heldBack.set(name, { topic, partition, sinceMs: performance.now() });
      return;
    }
    heldBack.delete(name);
    const finished = Promise.withResolvers<void>();
    const work: Work = { topic, partition, done: finished.promise, aliveAtMs: performance.now() };
    works.set(name, work);
    const assignment = assignments;
    // kafkajs repeats a heartbeat that failed, and then joins the group again.
    const isMember = (): Promise<boolean> => {
      work.aliveAtMs = performance.now();
      return heartbeat().then(
        () => !isEnded && assignment === assignments,
        () => false,
      );
    };
    void carryOut(member, toLogBatch(batch, isMember)).then(() => {
      works.delete(name);
      finished.resolve();
      takeUp(work);
    });
    await within(asideAfterMs, work.done);
    if (works.get(name) === work && works.size < concurrency) setAside(work, consumer);
    else await work.done;
  }

  async function carryOut(member: Member, batch: LogBatch): Promise<void> {
    const assignment = assignments;
    try {
      const outcome = await options.onBatch(batch);
      if (outcome.kind === 'stop') throw outcome.error;
      // After a rebalance it is no longer this batch that decides where to go on.
      if (assignment === assignments) await obey(member, batch, outcome);
    } catch (error) {
      end(toError(error));
    }
  }

  function setAside(work: Work, consumer: Consumer): void {
    work.aside = { consumer, assignment: assignments };
    consumer.pause([{ topic: work.topic, partitions: [work.partition] }]);
  }

  function takeUp({ topic, partition, aside }: Work): void {
    const isWaited = retries.has(partitionName({ topic, partition }));
    if (isEnded || isWaited || aside?.assignment !== assignments) return;
    aside.consumer.resume([{ topic, partitions: [partition] }]);
  }

  async function obey({ consumer, mirror }: Member, batch: LogBatch, outcome: Progress): Promise<void> {
    const next = { topic: batch.topic, partition: batch.partition, offset: outcome.nextOffset };
    if (next.offset < batch.fetchedOffset || next.offset > batch.nextOffset) {
      // Beyond what was fetched may be beyond the log, where kafkajs would quietly go on at its start.
      try {
        assertInside(next, await bounds(next.topic));
      } catch (error) {
        if (!(error instanceof LogUnavailableError)) throw error;
        writeLog('warn', 'a seek cannot be checked yet', { error, ...next });
        return pause(consumer, batch, askAgainAfterMs);
      }
    }
    if (isEnded) return;
    consumer.seek({ ...next, offset: String(next.offset) });
    if (outcome.kind === 'retry') pause(consumer, batch, outcome.afterMs);
    if (next.offset !== batch.fetchedOffset) mirror.show(next);
  }

  function pause(consumer: Consumer, { topic, partition }: LogPartition, afterMs: number): void {
    if (isEnded) return;
    const partitions = [{ topic, partitions: [partition] }];
    consumer.pause(partitions);
    retries.add(partitionName({ topic, partition }));
    later(afterMs, () => {
      retries.delete(partitionName({ topic, partition }));
      try {
        consumer.resume(partitions);
      } catch (error) {
        writeLog('debug', 'the consumer that had paused is gone', { error, topic, partition });
      }
    });
  }

  const supervised = supervise();
  return {
    done: done.promise,
    isReady: () => !isEnded && isAssigned && performance.now() - answeredAtMs < sessionTimeoutMs,
    heldBack: () => [...heldBack.values()].filter(({ sinceMs }) => performance.now() - sinceMs > heldBackAfterMs),
    reposition,
    stop: async (deadlineMs) => {
      closeWithinMs = deadlineMs;
      end();
      await within(deadlineMs, supervised);
      done.resolve();
    },
  };
}

/** One life of a kafkajs consumer in its group. */
interface Member {
  readonly consumer: Consumer;
  readonly mirror: Mirror;
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

type Progress = Exclude<BatchOutcome, { readonly kind: 'stop' }>;
