import type { BatchOutcome, LogBatch } from '@realtime-service/event-log';
import {
  activeProjection,
  applyChunk,
  type Chunk,
  type ChunkCounts,
  type ChunkRecord,
  type ChunkResult,
  type ChunkStore,
  isBusy,
  isOverdue,
  isUnstorable,
  LogReplacedError,
} from '@realtime-service/room-store';
import { type Logger, withRemoteParent, withSpan } from '@realtime-service/telemetry';
import { type Decoded, deadContent, decodeRecord, nobody, type WhyDead } from './decode.ts';
import type { WorkerMetrics } from './metrics.ts';

const maxChunkRecords = 500;
const maxChunkBytes = 1024 * 1024;
const retryAfterMs = 1_000;

export interface ProjectorDependencies {
  readonly store: ChunkStore;
  readonly partitionCount: (topic: string) => number;
  readonly metrics: WorkerMetrics;
  readonly logger: Logger;
}

interface Run {
  readonly decoded: readonly Decoded[];
  readonly nextOffset: bigint;
}

/** What a record brings into a chunk; a retry its letter, which may have a megabyte. */
const sizeOf = ({ stored, record }: Decoded): number =>
  (stored.value?.length ?? 0) + (stored.key?.length ?? 0) + (record.content.kind === 'retry' ? maxChunkBytes / 16 : 0);

/** Cuts a batch into chunks; the last one ends where the batch does, also where that holds nothing visible. */
function* chunksOf(batch: LogBatch, partitionCount: number): Generator<Run, undefined> {
  let decoded: Decoded[] = [];
  let bytes = 0;
  for (const stored of batch.records) {
    const next = decodeRecord(stored, partitionCount);
    const size = sizeOf(next);
    if (decoded.length > 0 && (decoded.length >= maxChunkRecords || bytes + size > maxChunkBytes)) {
      yield { decoded, nextOffset: stored.offset };
      decoded = [];
      bytes = 0;
    }
    decoded.push(next);
    bytes += size;
  }
  yield { decoded, nextOffset: batch.nextOffset };
}

/** The record as a dead letter, whatever can be read of it: the doubt that it leaves is kept. */
export const asDeadLetter = ({ stored, record }: Decoded, why: WhyDead): ChunkRecord => {
  const { content } = record;
  const unreadable =
    content.kind === 'room_event'
      ? { key: content.event.subject, type: content.event.type, data: content.event.data }
      : nobody;
  return { ...record, factKey: null, content: deadContent(stored, why, unreadable) };
};

/** PostgreSQL refused the data itself. Of an order to read a letter again it is the letter that cannot be stored. */
const asUnstorable = (decoded: Decoded, error: unknown): ChunkRecord => {
  const { record } = decoded;
  const why = { reason: 'unstorable', message: error instanceof Error ? error.message : String(error) } as const;
  if (record.content.kind !== 'retry') return asDeadLetter(decoded, why);
  return { ...record, content: { ...record.content, outcome: { kind: 'dead', ...why } } };
};

type Stretch = Omit<Chunk, 'records'> & Run;

/** What was applied of a stretch now: some of its records may have turned out to be dead letters. */
interface Applied {
  readonly counts: ChunkCounts;
  readonly decoded: readonly Decoded[];
}

type NoteApplied = (applied: Applied) => void;

const apply = async (
  store: ChunkStore,
  { decoded, ...stretch }: Stretch,
  noteApplied: NoteApplied,
): Promise<ChunkResult> => {
  const result = await applyChunk(store, { ...stretch, records: decoded.map(({ record }) => record) });
  if (result.kind === 'behind') return result;
  const { counts, position } = result;
  noteApplied({ counts, decoded: decoded.filter(({ stored }) => stored.offset >= position) });
  return result;
};

const sum = (left: ChunkCounts, right: ChunkCounts): ChunkCounts => ({
  applied: left.applied + right.applied,
  repeated: left.repeated + right.repeated,
  dead: left.dead + right.dead,
  skipped: left.skipped + right.skipped,
  marks: left.marks + right.marks,
  outbox: left.outbox + right.outbox,
});

/**
 * Applies a chunk; where its data cannot be stored, in halves, until the one record is found. In halves too where it
 * touches so much that it ran out of time, or met the locks of others: the server may still be at the attempt that we
 * have given up. That takes a while: before each half a heartbeat says that it goes on, and hears whether it still may.
 * What is applied is noted at once, since the other half may fail.
 */
export const applyDecoded = async (
  store: ChunkStore,
  stretch: Stretch,
  heartbeat: LogBatch['heartbeat'],
  noteApplied: NoteApplied = () => {},
): Promise<ChunkResult> => {
  const { decoded } = stretch;
  try {
    return await apply(store, stretch, noteApplied);
  } catch (error) {
    const [first] = decoded;
    const isTooMuch = (isBusy(error) || isOverdue(error)) && decoded.length > 1;
    if (first === undefined || !(isUnstorable(error) || isTooMuch)) throw error;
    if (decoded.length === 1) {
      const dead = [{ ...first, record: asUnstorable(first, error) }];
      return apply(store, { ...stretch, decoded: dead }, noteApplied);
    }
    const applyHalf = async (half: Partial<Stretch>): Promise<ChunkResult> => {
      // Whoever has the partition by now would only be kept waiting.
      if (!(await heartbeat()) && isTooMuch) throw error;
      return applyDecoded(store, { ...stretch, ...half }, heartbeat, noteApplied);
    };
    const left = decoded.slice(0, decoded.length >> 1);
    const right = decoded.slice(left.length);
    const middle = (right[0] as Decoded).stored.offset;
    const lower = await applyHalf({ decoded: left, nextOffset: middle });
    if (lower.kind === 'behind') return lower;
    const upper = await applyHalf({ decoded: right, fetchedOffset: middle });
    if (upper.kind === 'behind') return upper;
    return { ...upper, position: lower.position, counts: sum(lower.counts, upper.counts) };
  }
};

/** What becomes of a record, one for each. */
const recordOutcomes = ['applied', 'repeated', 'dead', 'skipped'] as const;

/** Counts what became of records, and logs what those on call should know. */
const tell = ({ metrics, logger }: ProjectorDependencies, topic: string, { counts, decoded }: Applied): void => {
  for (const outcome of recordOutcomes) metrics.facts.inc({ topic, outcome }, counts[outcome]);
  for (const { skipped, isMisplaced, record } of decoded) {
    const { content, origin } = record;
    const { partition, offset } = origin;
    if (skipped !== null) metrics.skipped.inc({ topic, reason: skipped });
    if (isMisplaced) {
      metrics.misplaced.inc({ topic });
      const fields = { topic, partition, offset: offset.toString() };
      logger.error(fields, 'producer uses another partitioner than murmur2');
    }
    if (content.kind !== 'dead') continue;
    const { reason, message } = content.dead;
    metrics.deadLetters.inc({ topic, reason });
    logger.warn({ topic, partition, offset: offset.toString(), reason, message }, 'record became a dead letter');
  }
};

/**
 * The handler of both topics: decodes a batch, applies it chunk by chunk, and says how far the database has come. A
 * failure that passes pauses the partition and resumes by timer; nothing is ever skipped. Another log than the one that
 * was applied ends the consumer.
 */
export const createProjector = (dependencies: ProjectorDependencies): ((batch: LogBatch) => Promise<BatchOutcome>) => {
  const { store, metrics, logger } = dependencies;

  const applyRun = async (
    batch: LogBatch,
    { decoded, nextOffset }: Run,
    fetchedOffset: bigint,
  ): Promise<ChunkResult> => {
    const { topic, partition } = batch;
    const stretch: Stretch = { projection: activeProjection, topic, partition, fetchedOffset, nextOffset, decoded };
    const noteApplied = (applied: Applied): void => tell(dependencies, topic, applied);
    if (decoded.length === 0) return apply(store, stretch, noteApplied);
    const traces = new Set(decoded.flatMap(({ record }) => record.trace ?? []));
    const [only] = traces;
    const links = [...traces, ...decoded.flatMap(({ joinTrace }) => joinTrace ?? [])];
    const attributes = {
      'messaging.system': 'kafka',
      'messaging.operation.name': 'process',
      'messaging.destination.name': topic,
      'messaging.destination.partition.id': String(partition),
      'messaging.batch.message_count': decoded.length,
    };
    const run = () =>
      withSpan(`project ${topic}`, { attributes, links, isRoot: traces.size !== 1 }, async (span) => {
        const result = await applyDecoded(store, stretch, batch.heartbeat, noteApplied);
        if (result.kind === 'applied')
          for (const [name, count] of Object.entries(result.counts)) span.setAttribute(`rt.${name}`, count);
        return result;
      });
    // A chunk that one trace led to is a part of it; one of several only points to them.
    return traces.size === 1 && only !== undefined ? withRemoteParent(only, run) : run();
  };

  return async (batch) => {
    const { topic, partition } = batch;
    let position = batch.fetchedOffset;
    for (const run of chunksOf(batch, dependencies.partitionCount(topic))) {
      let result: ChunkResult;
      try {
        result = await applyRun(batch, run, position);
      } catch (error) {
        if (error instanceof LogReplacedError) return { kind: 'stop', error };
        logger.error({ topic, partition, err: error }, 'chunk could not be applied, partition is paused');
        metrics.retries.inc({ topic });
        return { kind: 'retry', nextOffset: position, afterMs: retryAfterMs };
      }
      if (result.kind === 'behind') {
        logger.warn(
          { topic, partition, from: position.toString(), to: result.nextOffset.toString() },
          'log was ahead of the database, reading again',
        );
        return { kind: 'advance', nextOffset: result.nextOffset };
      }
      position = result.nextOffset;
      if (!(await batch.heartbeat())) break;
    }
    return { kind: 'advance', nextOffset: position };
  };
};
