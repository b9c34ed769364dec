import { type LivekitFact, type RoomEvent, topics } from '@realtime-service/contracts';
import { activeProjection, type ChunkContent, type ChunkRecord } from '../src/index.ts';

export const projection = activeProjection;
export const partitionCount = 12;

const record = (
  topic: string,
  partition: number,
  offset: number,
  id: string | null,
  content: ChunkContent,
  sequence: bigint | null = null,
): ChunkRecord => ({
  origin: {
    eventId: id ?? `${offset}`,
    topic,
    partition,
    offset: BigInt(offset),
    timeMs: 1_700_000_000_000 + offset,
    sequence,
  },
  recordedAtMs: 1_700_000_000_000 + offset,
  factKey: id === null ? null : Buffer.from(id.padStart(16, '0')).toString('hex'),
  trace: null,
  content,
});

export const roomRecord = (offset: number, event: RoomEvent, { id = `e${offset}`, partition = 0 } = {}): ChunkRecord =>
  record(topics.roomEvents, partition, offset, id, { kind: 'room_event', event });

export const livekitRecord = (
  offset: number,
  fact: LivekitFact,
  { id = `w${offset}`, partition = 0 } = {},
): ChunkRecord => record(topics.livekitWebhooks, partition, offset, id, { kind: 'livekit', fact });

/** A chunk of records that follow each other; where it is empty, of nothing at `from`. */
export const chunkOf = (records: readonly ChunkRecord[], from?: number) => {
  const [first] = records;
  const fetchedOffset = from === undefined ? (first?.origin.offset ?? 0n) : BigInt(from);
  return {
    projection,
    topic: first?.origin.topic ?? topics.roomEvents,
    partition: first?.origin.partition ?? 0,
    fetchedOffset,
    nextOffset: (records.at(-1)?.origin.offset ?? fetchedOffset) + 1n,
    records,
  };
};

export const added = (room: string, userId: string, role: 'host' | 'speaker' | 'listener' = 'speaker'): RoomEvent => ({
  type: 'member.added',
  subject: room,
  data: { userId, role },
});

export const removed = (room: string, userId: string): RoomEvent => ({
  type: 'member.removed',
  subject: room,
  data: { userId },
});
export const created = (room: string): RoomEvent => ({ type: 'room.created', subject: room, data: {} });

export const joined = (
  room: string,
  userId: string,
  sid = `PA_${userId}`,
): Extract<LivekitFact, { readonly participant: unknown }> => ({
  type: 'participant_joined',
  room: { name: room, sid: `RM_${room}`, creationTimeMs: 1_000 },
  participant: {
    sid,
    identity: userId,
    joinedAtMs: 2_000,
    version: 1,
    kind: 'STANDARD',
    attributes: { 'rt.user': userId },
  },
});
