import { createHash } from 'node:crypto';
import {
  partitionName,
  type RoomEvent,
  type RoomEventType,
  toBinaryHeaders,
  topics,
} from '@realtime-service/contracts';
import { type LogBatch, partitionOf, type StoredRecord } from '@realtime-service/event-log';

export const partitionCount = 12;
export const chunkRecords = 500;
/** What one fetch brings of a partition that has more: Kafka's megabyte of records like these. */
const batchRecords = 2 * chunkRecords;
/** Applied before anything is timed: a worker runs for weeks, its code is compiled in the first second. */
const warmUpRecords = 20_000;

const roomCount = 1_000;
const membersPerRoom = 8;
const repeatedShare = 0.01;
/** An arbitrary moment: the same records each time, so that all sides of all rounds meet the same. */
const epochMs = Date.UTC(2026, 0, 1);

/** What has happened so far, as far as the next fact rests on it. */
interface World {
  readonly members: { readonly roomId: string; readonly userId: string }[];
  readonly live: {
    readonly roomId: string;
    readonly userId: string;
    readonly sid: string;
    readonly joinedAtMs: number;
  }[];
}

/** A record and what it is about, before it has a place in the log. */
type Draft = Pick<StoredRecord, 'topic' | 'value' | 'headers'> & { readonly key: string };

/** Repeatable chance (mulberry32). */
export const createChance = (seed: number): (() => number) => {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
};

/** Ids as Keycloak and LiveKit have them: the same for the same name. */
const hexOf = (name: string): string => createHash('sha256').update(name).digest('hex');
const uuidOf = (name: string): string => hexOf(name).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*/, '$1-$2-$3-$4-$5');
const traceparentOf = (name: string): string => `00-${hexOf(name).slice(0, 32)}-${hexOf(name).slice(32, 48)}-01`;

const roomIdOf = (index: number): string => `room-${uuidOf(`room ${index}`)}`;

const toBytes = (headers: Readonly<Record<string, string>>): Record<string, Buffer> =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Buffer.from(value)]));

class Recorder {
  readonly drafts: Draft[] = [];
  readonly #name: string;
  readonly #startMs: number;

  constructor(name: string, startMs: number) {
    this.#name = name;
    this.#startMs = startMs;
  }

  get nowMs(): number {
    return this.#startMs + this.drafts.length;
  }

  roomEvent<T extends RoomEventType>(type: T, roomId: string, data: Extract<RoomEvent, { type: T }>['data']): void {
    this.#add({ topic: topics.roomEvents, source: '/services/rooms', type, key: roomId }, data ?? {});
  }

  webhook(
    event: 'participant_joined' | 'participant_left',
    { roomId, userId, sid, joinedAtMs }: World['live'][number],
  ): void {
    const createdAtMs = epochMs - 3_600_000;
    const room = {
      sid: `RM_${hexOf(roomId).slice(0, 12)}`,
      name: roomId,
      creationTime: createdAtMs / 1000,
      creationTimeMs: createdAtMs,
    };
    const participant = {
      sid,
      identity: userId,
      state: event === 'participant_joined' ? 'ACTIVE' : 'DISCONNECTED',
      joinedAt: Math.floor(joinedAtMs / 1000),
      joinedAtMs,
      version: event === 'participant_joined' ? 2 : 9,
      kind: 'STANDARD',
      attributes: { 'rt.user': userId, 'rt.login': uuidOf(`login ${userId}`), 'rt.trace': traceparentOf(sid) },
      permission: { hidden: false },
      ...(event === 'participant_left' && { disconnectReason: 'CLIENT_INITIATED' }),
    };
    const body = {
      event,
      id: `EV_${hexOf(`${event} ${sid}`).slice(0, 12)}`,
      createdAt: Math.floor(this.nowMs / 1000),
      room,
      participant,
    };
    this.#add({ topic: topics.livekitWebhooks, source: 'livekit', type: `livekit.${event}`, key: roomId }, body);
  }

  /** What a producer's retry leaves in the log: the same bytes once more. */
  repeat(chance: () => number): void {
    const earlier = this.drafts[Math.floor(chance() * this.drafts.length)];
    if (earlier !== undefined) this.drafts.push(earlier);
  }

  #add({ topic, source, type, key }: { topic: string; source: string; type: string; key: string }, data: object): void {
    const id = uuidOf(`${this.#name} ${this.drafts.length}`);
    const traceparent = traceparentOf(id);
    const time = new Date(this.nowMs).toISOString();
    const headers = toBinaryHeaders({ specversion: '1.0', id, source, type, subject: key, time, traceparent });
    this.drafts.push({
      topic,
      key,
      value: Buffer.from(JSON.stringify(data)),
      headers: toBytes({ ...headers, traceparent }),
    });
  }
}

const roles = ['host', 'moderator', 'speaker', 'listener'] as const;
const pick = <T>(from: readonly T[], chance: () => number): T => from[Math.floor(chance() * from.length)] as T;
const takeOut = <T>(from: T[], chance: () => number): T | undefined => {
  const at = Math.floor(chance() * from.length);
  const last = from.pop();
  if (last === undefined || at === from.length) return last;
  const taken = from[at];
  from[at] = last;
  return taken;
};

/** Rooms with members: what is there before anything is measured. */
const recordSeed = (recorder: Recorder, world: World): void => {
  for (let room = 0; room < roomCount; room += 1) {
    const roomId = roomIdOf(room);
    recorder.roomEvent('room.created', roomId, { name: `Room ${room}`, access: 'members' });
    for (let member = 0; member < membersPerRoom; member += 1) {
      const userId = uuidOf(`user ${room} ${member}`);
      recorder.roomEvent('member.added', roomId, {
        userId,
        role: roles[member % roles.length] ?? 'speaker',
        displayName: `Person ${member}`,
      });
      world.members.push({ roomId, userId });
    }
  }
};

/** One more fact: people come, change, go, are banned; calls begin and end. */
const recordFact = (recorder: Recorder, world: World, chance: () => number): void => {
  const which = chance();
  const at = recorder.drafts.length;
  const { roomId, userId } = pick(world.members, chance);
  if (which < 0.3) {
    const added = { roomId: roomIdOf(Math.floor(chance() * roomCount)), userId: uuidOf(`newcomer ${at}`) };
    recorder.roomEvent('member.added', added.roomId, {
      userId: added.userId,
      role: pick(roles, chance),
      displayName: `Newcomer ${at}`,
    });
    world.members.push(added);
  } else if (which < 0.5) {
    recorder.roomEvent('member.updated', roomId, { userId, role: pick(roles, chance) });
  } else if (which < 0.6) {
    const removed = takeOut(world.members, chance);
    if (removed !== undefined)
      recorder.roomEvent('member.removed', removed.roomId, { userId: removed.userId, reason: 'left the course' });
  } else if (which < 0.65) {
    recorder.roomEvent('member.banned', roomId, {
      userId,
      privilege: chance() < 0.5 ? 'publish_audio' : 'screen_share',
      reason: 'noise',
    });
  } else if (which < 0.68) {
    recorder.roomEvent('member.unbanned', roomId, { userId, privilege: 'publish_audio' });
  } else if (which < 0.86 || world.live.length === 0) {
    const entered = { roomId, userId, sid: `PA_${hexOf(`session ${at}`).slice(0, 12)}`, joinedAtMs: recorder.nowMs };
    world.live.push(entered);
    recorder.webhook('participant_joined', entered);
  } else {
    const left = takeOut(world.live, chance);
    if (left !== undefined) recorder.webhook('participant_left', left);
  }
};

/** A log that holds the seed and after it the facts to measure. */
export interface BenchLog {
  readonly seed: readonly LogBatch[];
  readonly warmUp: readonly LogBatch[];
  readonly measured: readonly LogBatch[];
  /** Callers that may join, as the seed has them. */
  readonly members: World['members'];
}

/** Gives every record its place and cuts each partition into batches, partition by partition in turn. */
class BenchPartitions {
  readonly #next = new Map<string, bigint>();

  place(drafts: readonly Draft[], startMs: number): LogBatch[] {
    const lanes = new Map<string, StoredRecord[]>();
    for (const [at, { topic, key, value, headers }] of drafts.entries()) {
      const partition = partitionOf(key, partitionCount);
      const lane = partitionName({ topic, partition });
      const offset = this.#next.get(lane) ?? 0n;
      this.#next.set(lane, offset + 1n);
      const records = lanes.get(lane) ?? [];
      lanes.set(lane, records);
      records.push({ topic, partition, offset, timestampMs: startMs + at, key: Buffer.from(key), value, headers });
    }
    const batches = [...lanes.values()].map(batchesOf);
    const longest = Math.max(0, ...batches.map(({ length }) => length));
    return Array.from({ length: longest }, (_, turn) => batches.flatMap((lane) => lane[turn] ?? [])).flat();
  }
}

const batchesOf = (records: readonly StoredRecord[]): LogBatch[] => {
  const batches: LogBatch[] = [];
  for (let from = 0; from < records.length; from += batchRecords) {
    const chunk = records.slice(from, from + batchRecords);
    const [first] = chunk;
    if (first === undefined) continue;
    const { topic, partition, offset } = first;
    const nextOffset = offset + BigInt(chunk.length);
    batches.push({
      topic,
      partition,
      fetchedOffset: offset,
      nextOffset,
      records: chunk,
      heartbeat: async () => true,
    });
  }
  return batches;
};

/** The same log for the same count: no chance but a seeded one. */
export const createBenchLog = (measuredCount: number): BenchLog => {
  const world: World = { members: [], live: [] };
  const partitions = new BenchPartitions();
  const seed = new Recorder('seed', epochMs);
  recordSeed(seed, world);
  const members = [...world.members];
  const seedBatches = partitions.place(seed.drafts, epochMs);

  const startMs = epochMs + 3_600_000;
  const facts = new Recorder('fact', startMs);
  const chance = createChance(20_260_101);
  const warmUpCount = Math.min(warmUpRecords, measuredCount);
  while (facts.drafts.length < warmUpCount + measuredCount) {
    recordFact(facts, world, chance);
    if (chance() < repeatedShare) facts.repeat(chance);
  }
  return {
    seed: seedBatches,
    warmUp: partitions.place(facts.drafts.slice(0, warmUpCount), startMs),
    measured: partitions.place(facts.drafts.slice(warmUpCount), startMs + warmUpCount),
    members,
  };
};
