import type { LivekitFact, LogPartition, LogPosition, PresenceEventType, RoomEvent } from '@realtime-service/contracts';
import type { Origin, UnreadableFact } from '@realtime-service/room-model';

/** Why a record can never be applied. */
export const deadLetterReasons = [
  'not_json',
  'not_utf8',
  'schema_registry_prefix',
  'invalid_envelope',
  'invalid_data',
  'key_mismatch',
  'unstorable',
] as const;
export type DeadLetterReason = (typeof deadLetterReasons)[number];

export interface DeadRecord {
  readonly reason: DeadLetterReason;
  readonly message: string;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer>>;
}

/** A record that could not be applied, as it stood in the log, and why. */
export interface DeadLetter extends LogPosition, DeadRecord {
  readonly recordedAtMs: number;
}

/** What became of a dead letter that was read again. */
export type RetryOutcome =
  | { readonly kind: 'readable' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'dead'; readonly reason: DeadLetterReason; readonly message: string };

export type ChunkContent =
  | { readonly kind: 'room_event'; readonly event: RoomEvent }
  | { readonly kind: 'livekit'; readonly fact: LivekitFact }
  | { readonly kind: 'dead'; readonly dead: DeadRecord; readonly unreadable: UnreadableFact }
  | {
      readonly kind: 'retry';
      readonly letter: LogPosition;
      readonly decode: (letter: DeadLetter) => ChunkRecord;
      /** Null until the letter has been read, in the transaction that applies it. */
      readonly outcome: RetryOutcome | null;
    }
  | { readonly kind: 'skipped' };

/** A decoded record of the log. */
export interface ChunkRecord {
  readonly origin: Origin;
  readonly recordedAtMs: number;
  /** The log has no usable record time: another one was read out of the event, or is 0. */
  readonly isTimeGuessed?: boolean;
  /** Identity of the fact, in hex: equal bytes of (source, id) are equal keys. Null where it has none. */
  readonly factKey: string | null;
  /** `traceparent` of the record's producer, for links. */
  readonly trace: string | null;
  readonly content: ChunkContent;
  /**
   * Of a dead letter that has become readable, the record that retried it: it changes only what nothing above its own
   * place has decided, and the identity of its fact counts from the retry on.
   */
  readonly retriedBy?: Pick<ChunkRecord, 'recordedAtMs'>;
  /** From when on the identity of its fact counts, where that is not the record's time: see `repeats.ts`. */
  readonly countsFromMs?: number;
}

/** A partition as one projection reads it. */
export interface ProjectionPartition extends LogPartition {
  readonly projection: string;
}

export interface Chunk extends ProjectionPartition {
  /** The offset that the log was asked for: if the database stands before it, records were skipped. */
  readonly fetchedOffset: bigint;
  /** Where the partition stands when this chunk is applied. */
  readonly nextOffset: bigint;
  readonly records: readonly ChunkRecord[];
}

export interface ChunkCounts {
  readonly applied: number;
  /** Facts that had been applied before, or stood below the partition's offset. */
  readonly repeated: number;
  readonly dead: number;
  readonly skipped: number;
  readonly marks: number;
  readonly outbox: number;
}

/** A presence event that waits to be published. */
export interface OutboxEvent {
  readonly roomId: string;
  readonly eventId: string;
  readonly type: PresenceEventType;
  readonly occurredAtMs: number;
  readonly data: unknown;
  readonly trace: string | null;
}

export type ChunkResult =
  | {
      readonly kind: 'applied';
      /** Where the partition stood before: records below had been applied. */
      readonly position: bigint;
      readonly nextOffset: bigint;
      readonly counts: ChunkCounts;
    }
  /** The database stands before the chunk (a restore, a reset): the log must be read again from here. */
  | { readonly kind: 'behind'; readonly nextOffset: bigint };
