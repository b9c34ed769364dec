import {
  evolvePresence,
  evolveRetried,
  evolveRoom,
  type PresenceChange,
  type RoomChange,
  settleDeadLetter,
  suspectsOf,
  type WorkingSet,
} from '@realtime-service/room-model';
import { allInOrder } from '../database/database.ts';
import { withRetried } from '../dead-letters/dead-letters.ts';
import { type AppliedRecord, activeProjection } from '../positions.ts';
import type { ChunkStore, ChunkTransaction } from '../store.ts';
import type { Chunk, ChunkContent, ChunkCounts, ChunkRecord, ChunkResult } from './chunk.ts';
import { ChunkWrites } from './chunk-writes.ts';
import { Repeats } from './repeats.ts';
import { touchedBy } from './touched.ts';

/** The log was made again, or another one was put in its place: what stands below the position was never applied. */
export class LogReplacedError extends Error {
  override readonly name = 'LogReplacedError';
}

const timeOf = ({ recordedAtMs }: Pick<ChunkRecord, 'recordedAtMs'>): string => new Date(recordedAtMs).toISOString();

/** Where its offset was read, the last record is there: retention drops only what stands below the log's beginning. */
const assertSameLog = (chunk: Chunk, last: AppliedRecord | null): void => {
  if (last === null) return;
  const { topic, partition, fetchedOffset, nextOffset, records } = chunk;
  const found = records.find(({ origin }) => origin.offset === last.offset);
  const isRead = found !== undefined || (fetchedOffset <= last.offset && last.offset < nextOffset);
  if (!isRead || found?.recordedAtMs === last.recordedAtMs) return;
  const now =
    found === undefined
      ? 'none now: it is another log, or was compacted, which loses facts'
      : `one of ${timeOf(found)} now: it is another log`;
  throw new LogReplacedError(
    `Offset ${last.offset} of partition ${partition} of ${topic} was applied as a record of ${timeOf(last)}, and is ${now}`,
  );
};

/** A time that was guessed says nothing about the log: a later release may read another one out of the same record. */
const lastOf = ({ records }: Chunk, before: AppliedRecord | null): AppliedRecord | null => {
  const last = records.at(-1);
  if (last === undefined) return before;
  return last.isTimeGuessed ? null : { offset: last.origin.offset, recordedAtMs: last.recordedAtMs };
};

/** A dead letter that has become readable counts only where the record that retried it does: the one before it. */
const withoutRepeats = (records: readonly ChunkRecord[], position: bigint, repeats: Repeats): ChunkRecord[] => {
  const counted: ChunkRecord[] = [];
  let isAdmitted = false;
  for (const record of records) {
    const { origin, factKey, retriedBy } = record;
    const { recordedAtMs } = retriedBy ?? record;
    isAdmitted = retriedBy === undefined ? origin.offset >= position : isAdmitted;
    if (!isAdmitted) continue;
    const countsFromMs = factKey === null ? recordedAtMs : repeats.admit(factKey, recordedAtMs);
    if (countsFromMs === null) isAdmitted = false;
    else counted.push(countsFromMs === record.recordedAtMs ? record : { ...record, countsFromMs });
  }
  return counted;
};

const evolve = (set: WorkingSet, record: ChunkRecord, nowMs: number): (RoomChange | PresenceChange)[] => {
  const { content, origin, recordedAtMs, retriedBy } = record;
  switch (content.kind) {
    case 'room_event':
      return retriedBy === undefined
        ? evolveRoom(set, content.event, origin)
        : evolveRetried(set, content.event, origin);
    case 'livekit':
      return evolvePresence(set, content.fact, recordedAtMs, nowMs);
    case 'dead':
      return suspectsOf(content.unreadable, set, origin);
    case 'retry':
      return content.outcome?.kind === 'readable' ? settleDeadLetter(set, content.letter, origin) : [];
    case 'skipped':
      return [];
  }
};

interface FoldOptions {
  readonly nowMs: number;
  readonly raisesMarks: boolean;
}

const fold = (set: WorkingSet, records: readonly ChunkRecord[], { nowMs, raisesMarks }: FoldOptions): ChunkWrites => {
  const writes = new ChunkWrites(raisesMarks);
  for (const record of records) {
    for (const change of evolve(set, record, nowMs)) {
      writes.add(change, set, record);
      set.put(change);
    }
    writes.addRecord(record);
  }
  return writes;
};

const countsOf = (
  told: readonly ChunkRecord[],
  fresh: readonly ChunkRecord[],
  raised: { marks: number; outbox: number },
): ChunkCounts => {
  const count = (kind: ChunkContent['kind']): number => fresh.filter(({ content }) => content.kind === kind).length;
  const dead = count('dead');
  const skipped = count('skipped');
  const repeated = told.length - fresh.length;
  return { applied: fresh.length - dead - skipped, repeated, dead, skipped, ...raised };
};

const apply = async (transaction: ChunkTransaction, chunk: Chunk): Promise<ChunkResult> => {
  const records = await withRetried(chunk.records, transaction.readDeadLetters);
  const factKeys = records.flatMap(({ factKey }) => factKey ?? []);
  const touched = touchedBy(records);
  const [locked, known, , set] = await allInOrder([
    transaction.lockPosition(chunk),
    transaction.knownFacts(chunk, factKeys),
    transaction.lock(touched),
    transaction.load(touched),
  ]);
  assertSameLog(chunk, locked.last);
  const position = locked.nextOffset;
  if (chunk.fetchedOffset > position) return { kind: 'behind', nextOffset: position };
  if (chunk.nextOffset <= position) {
    const counts = countsOf(chunk.records, [], { marks: 0, outbox: 0 });
    return { kind: 'applied', position, nextOffset: position, counts };
  }
  const repeats = new Repeats(
    locked.newestRecordedAtMs,
    known.map(({ factKey, recordedAtMs }) => [factKey, recordedAtMs]),
  );
  const fresh = withoutRepeats(records, position, repeats);
  const writes = fold(set, fresh, { nowMs: locked.nowMs, raisesMarks: chunk.projection === activeProjection });
  const [marks] = await allInOrder([
    transaction.write(chunk, writes),
    transaction.advance(chunk, {
      nextOffset: chunk.nextOffset,
      newestRecordedAtMs: repeats.newestMs,
      last: lastOf(chunk, locked.last),
    }),
  ]);
  const counts = countsOf(records, fresh, { marks, outbox: writes.outbox.length });
  return { kind: 'applied', position, nextOffset: chunk.nextOffset, counts };
};

/**
 * Applies a chunk of one partition in one transaction: each fact changes the state exactly once, whatever crashes,
 * repeats or still runs after it lost the partition. The order of statements is the guarantee: the offset's row is
 * locked first (a second consumer waits there and then finds nothing left to do), rooms and users are locked in
 * statements of their own before anything is read, so that two lanes of one room can never miss each other. None of
 * these rests on another's answer, so they are sent together and waited for once, as are those that write.
 * @throws {LogReplacedError} and nothing is applied
 */
export const applyChunk = async (store: ChunkStore, chunk: Chunk): Promise<ChunkResult> => {
  const result = await store.transaction((transaction) => apply(transaction, chunk));
  // After the commit: inside the transaction a notification serialises all commits. A lost one is made up by the poll.
  if (result.kind === 'applied' && result.counts.marks > 0) await store.notifyMarks().catch(() => {});
  return result;
};
