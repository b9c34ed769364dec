import type { ConsumeOptions, LogConsumer } from '../event-log.ts';
import { rest, within } from '../within.ts';
import { BatchesInHand } from './batches-in-hand.ts';
import { isPassing } from './is-passing.ts';
import { createMember, type MemberDependencies } from './kafka-member.ts';

export type KafkaConsumerDependencies = Pick<
  MemberDependencies,
  'bounds' | 'createClient' | 'sessionTimeoutMs' | 'writeLog'
>;

const defaultConcurrency = 32;
const restartAfterMs = 1_000;
const defaultCloseWithinMs = 5_000;

/**
 * Consumes with a succession of kafkajs consumers: each lives until it crashes, and after an error that passes a new
 * one takes its place. The handler's outcome alone decides where to go on; Kafka's committed offset is a mirror of it
 * for ops, written after the fact.
 */
export function consumeKafka(dependencies: KafkaConsumerDependencies, options: ConsumeOptions): LogConsumer {
  const { writeLog } = dependencies;
  const done = Promise.withResolvers<void>();
  const ending = new AbortController();
  const { signal } = ending;
  const inHand = new BatchesInHand(options.concurrency ?? defaultConcurrency);
  const context = { ...dependencies, options, inHand, signal, end };
  let member = createMember(context);
  let closeWithinMs = defaultCloseWithinMs;

  function end(error?: Error): void {
    if (error !== undefined && !signal.aborted) done.reject(error);
    ending.abort();
  }

  async function supervise(): Promise<void> {
    while (!signal.aborted) {
      const crash = await member.live();
      await within(closeWithinMs, member.leave());
      if (crash === undefined || signal.aborted) return;
      if (!isPassing(crash))
        return end(new Error(`The Kafka consumer cannot go on: ${crash.message}`, { cause: crash }));
      writeLog('warn', 'the Kafka consumer starts anew', { error: crash });
      await rest(restartAfterMs, signal);
      member = createMember(context);
    }
  }

  const supervised = supervise();
  return {
    done: done.promise,
    isReady: () => !signal.aborted && member.isReady(),
    heldBack: () => member.heldBack(),
    reposition: () => member.reposition(),
    stop: async (deadlineMs) => {
      closeWithinMs = deadlineMs;
      end();
      await within(deadlineMs, supervised);
      done.resolve();
    },
  };
}
