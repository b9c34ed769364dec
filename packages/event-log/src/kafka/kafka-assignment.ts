import { type LogPartition, type LogPosition, partitionName } from '@realtime-service/contracts';
import type { Consumer, EachBatchPayload } from 'kafkajs';
import { beginningsOf } from '../beginnings.ts';
import type { BatchOutcome, ConsumeOptions, LogBatch, LogStart, PartitionBounds, WriteLog } from '../event-log.ts';
import { assertInside, LogUnavailableError, OffsetOutOfRangeError } from '../event-log.ts';
import { toError } from '../to-error.ts';
import { rest } from '../within.ts';
import { toLogBatch } from './kafka-batch.ts';
import type { Mirror } from './kafka-mirror.ts';

/** What all assignments of a consumer have in common. */
export interface ConsumerContext {
  readonly options: ConsumeOptions;
  readonly bounds: (topic: string) => Promise<PartitionBounds[]>;
  readonly writeLog: WriteLog;
  /** Ends all, which `signal` tells of. */
  readonly end: (error: Error) => void;
  readonly signal: AbortSignal;
}

export interface AssignmentDependencies extends ConsumerContext {
  readonly consumer: Pick<Consumer, 'pause' | 'resume' | 'seek'>;
  readonly mirror: Mirror;
  readonly partitions: readonly LogPartition[];
  /** False when another assignment has come, when the consumer has stopped, and after the end of all. */
  readonly isCurrent: () => boolean;
}

/**
 * What a kafkajs consumer has, from when it has joined its group or is repositioned to the next time. What was begun
 * under an older assignment no longer decides where to go on.
 */
export interface Assignment {
  readonly partitions: readonly LogPartition[];
  /** Goes on where `startAt` says, and reads nothing before. False where it is no longer current. */
  readonly position: () => Promise<boolean>;
  /** Has a batch handled and does what its outcome says. Never rejects. */
  readonly carryOut: (payload: EachBatchPayload, showLife: () => void) => Promise<void>;
  /** Pauses a partition until then; who holds it longer keeps it paused. */
  readonly hold: (partition: LogPartition, until: Promise<unknown>) => void;
}

const askAgainAfterMs = 1_000;

export function createAssignment(dependencies: AssignmentDependencies): Assignment {
  const { bounds, consumer, end, isCurrent, mirror, options, partitions, signal, writeLog } = dependencies;
  const holds = new Set<{ readonly name: string }>();

  function hold({ topic, partition }: LogPartition, until: Promise<unknown>): void {
    const mine = { name: partitionName({ topic, partition }) };
    holds.add(mine);
    consumer.pause([{ topic, partitions: [partition] }]);
    void until.then(() => {
      holds.delete(mine);
      const isHeld = [...holds].some(({ name }) => name === mine.name);
      if (isCurrent() && !isHeld) consumer.resume([{ topic, partitions: [partition] }]);
    });
  }

  function seek(position: LogPosition): void {
    consumer.seek({ ...position, offset: String(position.offset) });
  }

  function position(): Promise<boolean> {
    const positioned = seekBeginnings();
    for (const partition of partitions) hold(partition, positioned);
    return positioned;
  }

  /** Who has none is asked as well, to hear of the assignment, and is ready whatever keeps `startAt` from answering. */
  async function askStarts(): Promise<readonly LogStart[]> {
    const asked = options.startAt?.(partitions);
    if (partitions.length > 0) return (await asked) ?? [];
    asked?.catch(() => undefined);
    return [];
  }

  async function seekBeginnings(): Promise<boolean> {
    while (isCurrent()) {
      try {
        const beginnings = await beginningsOf(await askStarts(), bounds);
        if (!isCurrent()) break;
        beginnings.forEach(seek);
        return true;
      } catch (error) {
        if (!isCurrent()) break;
        if (error instanceof OffsetOutOfRangeError) end(error);
        else writeLog('warn', 'where to go on is not known yet', { error });
        await rest(askAgainAfterMs, signal);
      }
    }
    return false;
  }

  async function carryOut({ batch, heartbeat }: EachBatchPayload, showLife: () => void): Promise<void> {
    if (!isCurrent()) return;
    // kafkajs repeats a heartbeat that failed, and then joins the group again.
    const isMember = (): Promise<boolean> => {
      showLife();
      return heartbeat().then(isCurrent, () => false);
    };
    try {
      const fetched = toLogBatch(batch, isMember);
      const outcome = await options.onBatch(fetched);
      if (outcome.kind === 'stop') throw outcome.error;
      if (isCurrent()) await obey(fetched, outcome);
    } catch (error) {
      end(toError(error));
    }
  }

  async function obey(batch: LogBatch, outcome: Exclude<BatchOutcome, { readonly kind: 'stop' }>): Promise<void> {
    const next = { topic: batch.topic, partition: batch.partition, offset: outcome.nextOffset };
    const isFetched = next.offset >= batch.fetchedOffset && next.offset <= batch.nextOffset;
    const canSeek = isFetched || (await isInside(next));
    if (!isCurrent()) return;
    if (!canSeek) return hold(batch, rest(askAgainAfterMs, signal));
    seek(next);
    if (outcome.kind === 'retry') hold(batch, rest(outcome.afterMs, signal));
    if (next.offset !== batch.fetchedOffset) mirror.show(next);
  }

  /** Beyond what was fetched may be beyond the log, where kafkajs would quietly go on at its start. */
  async function isInside(next: LogPosition): Promise<boolean> {
    try {
      assertInside(next, await bounds(next.topic));
      return true;
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      writeLog('warn', 'a seek cannot be checked yet', { error, ...next });
      return false;
    }
  }

  return { partitions, position, carryOut, hold };
}
