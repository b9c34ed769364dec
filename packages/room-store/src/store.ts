import type { LogPosition } from '@realtime-service/contracts';
import type { Session, WorkingSet } from '@realtime-service/room-model';
import type { DeadLetter, ProjectionPartition } from './apply/chunk.ts';
import type { ChunkWrites } from './apply/chunk-writes.ts';
import type { Touched } from './apply/touched.ts';
import type { Announcement, ClaimedEdge, ExpiredEdge, Mark } from './marks.ts';
import type { AppliedRecord, StoredPosition } from './positions.ts';
import type { LiveRoom, SessionOwner } from './presence.ts';
import type { FactsAnswer, FactsQuery, NoteStanding } from './read-facts.ts';

/**
 * The store as the services use it. PostgreSQL is the one that serves; the other, in memory, keeps the same promises
 * under the simulation, and both pass one contract suite.
 */

/** How far a partition is projected. */
export interface ProjectedPosition {
  /** Where the partition stands. */
  readonly nextOffset: bigint;
  /** The newest record time of a fact applied there: see `repeats.ts`. */
  readonly newestRecordedAtMs: number;
  /** The last record below `nextOffset`; null where it is not known. */
  readonly last: AppliedRecord | null;
}

/** A position, and the time by the database's clock. */
export interface PositionNow extends ProjectedPosition {
  readonly nowMs: number;
}

/** An applied fact, and the record time that it was applied with. */
export interface KnownFact {
  readonly factKey: string;
  readonly recordedAtMs: number;
}

/**
 * One open READ COMMITTED transaction: each method is a statement or several, each of which sees what is committed when
 * it begins. Locks wait, and are held until the transaction ends.
 */
export interface ChunkTransaction {
  /** Locks the partition's offset row and tells where it stands. */
  readonly lockPosition: (at: ProjectionPartition) => Promise<PositionNow>;
  /** Those of these facts that were applied before. */
  readonly knownFacts: (at: ProjectionPartition, factKeys: readonly string[]) => Promise<readonly KnownFact[]>;
  /** Those of these dead letters that there are. */
  readonly readDeadLetters: (places: readonly LogPosition[]) => Promise<readonly DeadLetter[]>;
  /** Locks rooms and users in an order that all share. Answers nothing on purpose: what is read must be read later. */
  readonly lock: (touched: Touched) => Promise<void>;
  readonly load: (touched: Touched) => Promise<WorkingSet>;
  /** Writes rows, and raises marks on the sessions that are live by then; answers how many marks and orders. */
  readonly write: (at: ProjectionPartition, writes: ChunkWrites) => Promise<number>;
  readonly advance: (at: ProjectionPartition, position: ProjectedPosition) => Promise<void>;
}

export interface ChunkStore {
  /** Commits when `work` resolves, leaves nothing behind when it rejects. A rejected commit may have happened. */
  readonly transaction: <T>(work: (transaction: ChunkTransaction) => Promise<T>) => Promise<T>;
  /** Wakes whoever answers marks. May be lost. */
  readonly notifyMarks: () => Promise<void>;
}

/** The questions to the enforcement; see `marks.ts` for what each promises. */
export interface MarkStore {
  readonly claimMarks: (limit: number, claimSeconds: number, first: 'oldest' | 'newest') => Promise<Mark[]>;
  readonly noteAnnouncement: (mark: Mark, announcement: Announcement) => Promise<boolean>;
  readonly settleMark: (
    mark: Mark,
    askAgainAtMs: number | null,
    announcement?: Announcement | null,
  ) => Promise<string | null>;
  readonly postponeMark: (mark: Mark, delayMs: number, attempts?: number) => Promise<void>;
  readonly markIdentities: (
    roomId: string,
    identities: readonly string[],
    cause: Pick<Mark, 'cause' | 'causedAtMs'>,
  ) => Promise<void>;
  readonly dropExpiredEdges: () => Promise<ExpiredEdge[]>;
  readonly claimEdges: (limit: number, claimSeconds: number) => Promise<ClaimedEdge[]>;
  readonly settleEdge: (edge: ClaimedEdge) => Promise<void>;
  readonly postponeEdge: (edge: ClaimedEdge, delayMs: number) => Promise<void>;
}

export interface RoomStore extends ChunkStore, MarkStore {
  /** Where each partition of the tables that serve stands. */
  readonly readPositions: () => Promise<StoredPosition[]>;
  /** Facts of many at once, in the order asked, from one snapshot. */
  readonly readFacts: (queries: readonly FactsQuery[], noteStanding?: NoteStanding) => Promise<FactsAnswer[]>;
  /** Which rooms are believed to be live. */
  readonly readLiveRoomIds: () => Promise<string[]>;
  /** Those of these rooms that are believed to be live, and who is in them, from one snapshot. */
  readonly readLiveRooms: (roomIds: readonly string[]) => Promise<LiveRoom[]>;
  /** Whose live session this is; null where it is not known. */
  readonly readSessionOwner: (
    session: Pick<Session, 'roomId' | 'identity' | 'participantSid'>,
  ) => Promise<SessionOwner | null>;
  /** Whether somebody is believed to be inside by this identity. */
  readonly isInside: (session: Pick<Session, 'roomId' | 'identity'>) => Promise<boolean>;
  /** Takes or keeps a duty that only one process may have; not renewed, it is lost after `seconds`. */
  readonly holdDuty: (name: string, holder: string, seconds: number) => Promise<boolean>;
  readonly releaseDuty: (name: string, holder: string) => Promise<void>;
}
