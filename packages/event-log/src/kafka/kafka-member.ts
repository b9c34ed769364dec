import { type LogPartition, partitionName } from '@realtime-service/contracts';
import type { EachBatchPayload, Kafka } from 'kafkajs';
import type { LogConsumer } from '../event-log.ts';
import { toError } from '../to-error.ts';
import type { BatchesInHand } from './batches-in-hand.ts';
import { type Assignment, type ConsumerContext, createAssignment } from './kafka-assignment.ts';
import { isHeldBack } from './kafka-batch.ts';
import { createMirror } from './kafka-mirror.ts';

export interface MemberDependencies extends ConsumerContext {
  /** A new client for each member: kafkajs keeps offsets of a group in the client. */
  readonly createClient: () => Pick<Kafka, 'consumer'>;
  readonly sessionTimeoutMs: number;
  /** Those of all members: a handler may outlive the one that gave it a batch. */
  readonly inHand: BatchesInHand;
}

/** One life of a kafkajs consumer in its group. */
export interface Member extends Pick<LogConsumer, 'isReady' | 'heldBack' | 'reposition'> {
  /** From connecting to the crash (returned) or to the end of all (undefined). */
  readonly live: () => Promise<Error | undefined>;
  /** Never from inside `eachBatch`, which this waits for. */
  readonly leave: () => Promise<void>;
}

const maxFetchWaitMs = 500;
/** kafkajs unpacks and parses all of it at once: ten times as much takes a quarter more memory, for no more speed. */
const defaultFetchBytes = 1024 * 1024;
const maxPartitionBytes = 256 * 1024;
const silentSessions = 3;
const watchEveryMs = 1_000;
const heldBackAfterMs = 5_000;
/** Answers to these show that the broker serves this member, not merely that it is there. */
const signsOfLife = new Set(['Fetch', 'Heartbeat', 'JoinGroup', 'SyncGroup']);

export function createMember(dependencies: MemberDependencies): Member {
  const { options, writeLog, end, signal, createClient, sessionTimeoutMs, inHand } = dependencies;
  const { maxFetchBytes = defaultFetchBytes } = options;
  const consumer = createClient().consumer({
    groupId: options.group,
    sessionTimeout: sessionTimeoutMs,
    rebalanceTimeout: sessionTimeoutMs,
    heartbeatInterval: sessionTimeoutMs / 5,
    maxWaitTimeInMs: maxFetchWaitMs,
    maxBytes: maxFetchBytes,
    maxBytesPerPartition: Math.min(maxPartitionBytes, maxFetchBytes / 2),
    metadataMaxAge: 60_000,
    allowAutoTopicCreation: false,
    retry: { restartOnFailure: async () => false },
  });
  const mirror = createMirror(consumer, writeLog);
  const over = Promise.withResolvers<Error | undefined>();
  const heldBack = new Map<string, LogPartition & { readonly sinceMs: number }>();
  let assignment: Assignment | undefined;
  let isPositioned = false;
  let answeredAtMs = Number.NEGATIVE_INFINITY;
  let activeAtMs = performance.now();
  let watchedAtMs = activeAtMs;
  let stoodStillUntilMs = Number.NEGATIVE_INFINITY;

  const { events } = consumer;
  consumer.on(events.CRASH, ({ payload }) => over.resolve(payload.error));
  consumer.on(events.GROUP_JOIN, ({ payload }) => enter(payload.memberAssignment));
  // From here on kafkajs throws at whoever seeks, pauses or resumes.
  consumer.on(events.STOP, () => {
    assignment = undefined;
  });
  consumer.on(events.REQUEST, ({ payload }) => {
    if (signsOfLife.has(payload.apiName)) answeredAtMs = activeAtMs = performance.now();
  });
  // A broker that is away is not what the watchdog is for.
  consumer.on(events.REQUEST_TIMEOUT, () => {
    activeAtMs = performance.now();
  });

  async function live(): Promise<Error | undefined> {
    const watchdog = setInterval(watch, watchEveryMs);
    const endWithAll = (): void => over.resolve(undefined);
    signal.addEventListener('abort', endWithAll);
    try {
      await consumer.connect();
      // Also governs offsets that are out of range: with false, retained records would be skipped.
      await consumer.subscribe({ topics: [...options.topics], fromBeginning: true });
      await consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        partitionsConsumedConcurrently: inHand.concurrency,
        eachBatch: handle,
      });
      return await over.promise;
    } catch (error) {
      return toError(error);
    } finally {
      clearInterval(watchdog);
      // What outlives this member must not keep it.
      signal.removeEventListener('abort', endWithAll);
    }
  }

  function watch(): void {
    const nowMs = performance.now();
    if (nowMs - watchedAtMs > watchEveryMs + sessionTimeoutMs) stoodStillUntilMs = nowMs;
    watchedAtMs = nowMs;
    const heardBeforeMs = nowMs - silentSessions * sessionTimeoutMs;
    // A process that stood still has heard nobody: they have as long again.
    if (stoodStillUntilMs > heardBeforeMs) return;
    if (activeAtMs < heardBeforeMs) end(new Error('The Kafka consumer has been silent for three session timeouts'));
    const silent = inHand.silentSince(heardBeforeMs);
    if (silent === undefined) return;
    const { topic, partition } = silent;
    end(new Error(`The handler of partition ${partition} of ${topic} has been silent for three session timeouts`));
  }

  async function leave(): Promise<void> {
    if (signal.aborted) {
      await inHand.allDone();
      await mirror.settled();
    }
    await consumer.disconnect();
  }

  function enter(memberAssignment: Readonly<Record<string, number[]>>): void {
    heldBack.clear();
    void assign(
      Object.entries(memberAssignment).flatMap(([topic, of]) => of.map((partition) => ({ topic, partition }))),
    );
  }

  async function assign(partitions: readonly LogPartition[]): Promise<void> {
    const isCurrent = (): boolean => assignment === entered && !signal.aborted;
    const entered = createAssignment({ ...dependencies, consumer, mirror, partitions, isCurrent });
    assignment = entered;
    if (await entered.position()) isPositioned = true;
  }

  /**
   * kafkajs asks a broker again only when every batch of its last answer was handled, so that one which takes long
   * would keep all other partitions waiting. Its partition is paused then, and it is finished aside.
   */
  async function handle(payload: EachBatchPayload): Promise<void> {
    if (signal.aborted) return;
    const { batch } = payload;
    const name = partitionName(batch);
    if (isHeldBack(batch)) {
      const { topic, partition } = batch;
      if (!heldBack.has(name)) heldBack.set(name, { topic, partition, sinceMs: performance.now() });
      return;
    }
    heldBack.delete(name);
    await inHand.take(
      batch,
      async (showLife) => assignment?.carryOut(payload, showLife),
      (done) => assignment?.hold(batch, done),
    );
  }

  return {
    live,
    leave,
    isReady: () => isPositioned && assignment !== undefined && performance.now() - answeredAtMs < sessionTimeoutMs,
    heldBack: () => [...heldBack.values()].filter(({ sinceMs }) => performance.now() - sinceMs > heldBackAfterMs),
    reposition: () => {
      if (assignment !== undefined && !signal.aborted) void assign(assignment.partitions);
    },
  };
}
