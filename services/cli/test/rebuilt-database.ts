import { setTimeout as delay } from 'node:timers/promises';
import { allTopics, type LogPosition, mediaTypes, toBinaryHeaders, topics } from '@realtime-service/contracts';
import { createDatabase } from '@realtime-service/dev-stack';
import { realParts } from '@realtime-service/dev-stack/vitest';
import { createEmbeddedLog, type EventLog, type NewRecord, prepareEmbeddedLog } from '@realtime-service/event-log';
import {
  activeProjection,
  createPool,
  createPostgresStore,
  migrate,
  type Pool,
  preparePositions,
  readNextOffsets,
} from '@realtime-service/room-store';
import { createProjector, createWorkerMetrics } from '@realtime-service/room-worker';
import { createLogger } from '@realtime-service/telemetry';

const topic = topics.roomEvents;
export const partitionCount = 4;
const rebuiltTables = ['rooms', 'members', 'bans', 'users', 'ended_logins'] as const;
const keptTables = ['sessions', 'seat_leases', 'edges', 'outbox', 'dead_letters', 'suspects', 'room_lives'] as const;

/** A database whose tables the room-worker's projector keeps up to date with a log. */
export interface RebuiltDatabase {
  readonly url: string;
  readonly pool: Pool;
  readonly log: EventLog;
  readonly append: (records: readonly NewRecord[]) => Promise<LogPosition[]>;
  /** Ends applying, or begins again at the log's beginning. */
  readonly stopApplying: () => Promise<void>;
  readonly startApplying: () => void;
  /** Resolves when all that was appended is applied. */
  readonly caughtUp: () => Promise<void>;
  /** Every row that folds from the log, and every identity of a fact, byte for byte. */
  readonly state: () => Promise<readonly string[]>;
  /** Every row of what a rebuild leaves alone. */
  readonly kept: () => Promise<readonly string[]>;
  readonly stop: () => Promise<void>;
}

export const startRebuiltDatabase = async (openLog?: (pool: Pool) => EventLog): Promise<RebuiltDatabase> => {
  const url = await createDatabase(realParts(['postgres']).postgres.url);
  await migrate(url);
  const pool = createPool({ url, maxConnections: 20, applicationName: 'test', onError: () => undefined });
  if (openLog === undefined) await prepareEmbeddedLog(pool, allTopics, partitionCount);
  const log = openLog?.(pool) ?? createEmbeddedLog({ pool, writeLog: () => undefined });
  for (const each of [topic, topics.livekitWebhooks])
    await preparePositions(pool, activeProjection, each, partitionCount);
  const apply = () =>
    log.consume({
      group: new URL(url).pathname,
      topics: [topic],
      onBatch: createProjector({
        store: createPostgresStore(pool),
        partitionCount: () => partitionCount,
        metrics: createWorkerMetrics(),
        logger: createLogger({ service: 'test', level: 'fatal' }),
      }),
      maxBatchRecords: 7,
    });
  let consumer = apply();
  const rowsOf = async (tables: readonly string[]): Promise<string[]> => {
    const lines: string[] = [];
    for (const name of tables) {
      const { rows } = await pool.query<{ line: string }>(`select each::text as line from ${name} as each order by 1`);
      lines.push(...rows.map(({ line }) => `${name} ${line}`));
    }
    return lines;
  };
  const isCaughtUp = async (): Promise<boolean> => {
    const next = await readNextOffsets(pool, activeProjection, topic);
    return (await log.bounds(topic)).every(({ partition, high }) => next.get(partition) === high);
  };
  return {
    url,
    pool,
    log,
    append: (records) => log.append(records, 10_000),
    stopApplying: () => consumer.stop(5_000),
    startApplying: () => {
      consumer = apply();
    },
    caughtUp: async () => {
      while (!(await isCaughtUp())) await Promise.race([consumer.done, delay(10)]);
    },
    // Rows that are there only to be locked come and go.
    state: () =>
      rowsOf([
        ...rebuiltTables.map((name) => `(select * from ${name} where event_id is not null)`),
        'applied_facts',
        `(select * from log_positions where projection = 'active')`,
      ]),
    kept: () => rowsOf(keptTables),
    stop: async () => {
      await consumer.stop(5_000);
      await log.close();
      await pool.end();
    },
  };
};

export interface Event {
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly data: object;
  readonly sequence?: string;
}

export const binary = ({ id, type, subject, data, sequence }: Event): NewRecord => ({
  topic,
  key: subject,
  value: Buffer.from(JSON.stringify(data)),
  headers: toBinaryHeaders({
    specversion: '1.0',
    id,
    source: '/test',
    type,
    subject,
    ...(sequence === undefined ? {} : { sequence }),
  }),
});

const structured = ({ data, ...context }: Event): NewRecord => ({
  topic,
  key: context.subject,
  value: Buffer.from(JSON.stringify({ specversion: '1.0', source: '/test', ...context, data })),
  headers: { 'content-type': mediaTypes.structured },
});

const roles = ['host', 'moderator', 'speaker', 'listener'];

/** Repeatable chance (xorshift). */
const chanceOf = (seed: number): ((below: number) => number) => {
  let state = seed * 2_654_435_761 + 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
};

/** Entities that are told of twice, far apart, and by nothing else: the later fact is the older one by its sequence. */
const loneFacts = (count: number): ReadonlyMap<number, Omit<Event, 'id'>> => {
  const ban = { subject: 'room 0 ✓', data: { userId: 'user/banned', privilege: 'data' } };
  const user = { subject: 'user/disabled', data: { userId: 'user/disabled' } };
  const login = { type: 'login.ended', subject: 'user/ended', data: { userId: 'user/ended', sid: 'login' } };
  return new Map<number, Omit<Event, 'id'>>([
    [5, { type: 'member.banned', ...ban, sequence: '10' }],
    [6, { type: 'user.disabled', ...user, sequence: '10' }],
    [7, login],
    [count - 7, { type: 'member.unbanned', ...ban, sequence: '5' }],
    [count - 6, { type: 'user.enabled', ...user, sequence: '5' }],
    [count - 5, login],
  ]);
};

/**
 * Appends a history of few rooms and people, so that everything meets everything: repeats near and far, sequences out
 * of order, full states, dead letters of every kind, and what operators did about them.
 */
export const appendHistory = async (
  { append }: Pick<RebuiltDatabase, 'append'>,
  { seed, count }: { readonly seed: number; readonly count: number },
): Promise<void> => {
  const below = chanceOf(seed);
  const lone = loneFacts(count);
  const told: NewRecord[] = [];
  const dead: (LogPosition & { readonly about: string })[] = [];
  const pick = <T>(from: readonly T[]): T => from[below(from.length)] as T;
  const next = (at: number): NewRecord => {
    const room = `room ${below(6)} ✓`;
    const userId = `user/${below(8)}`;
    const id = `${seed}-${at}`;
    const fact = lone.get(at);
    if (fact !== undefined) return binary({ id, ...fact });
    const sequence = below(3) === 0 ? { sequence: String(below(40)) } : {};
    const write = (type: string, subject: string, data: object): NewRecord =>
      (below(5) === 0 ? structured : binary)({ id, type, subject, data, ...sequence });
    const role = pick(roles);
    const kinds: (() => NewRecord)[] = [
      () => write('room.created', room, { name: `Name ${at}`, settings: { clientName: below(2) === 0 } }),
      () =>
        write('room.created', room, {
          members: [
            { userId, role },
            { userId: 'user/x', role: 'host' },
          ],
        }),
      () =>
        write('room.updated', room, {
          maxParticipants: below(2) === 0 ? null : at + 1,
          opensAt: '2026-01-01T00:00:00.123456Z',
        }),
      () => write(below(2) === 0 ? 'room.locked' : 'room.unlocked', room, {}),
      () => write('member.added', room, { userId, role, displayName: `Ann ${at}`, permissions: { publishData: true } }),
      () => write('member.added', room, { userId, role }),
      () => write('member.updated', room, { userId, displayName: null }),
      () => write('member.removed', room, { userId }),
      () => write('member.banned', room, { userId, privilege: 'publish_audio', until: '2030-01-01T00:00:00Z' }),
      () => write('member.unbanned', room, { userId, privilege: 'publish_audio' }),
      () => write(below(2) === 0 ? 'user.disabled' : 'user.enabled', userId, { userId }),
      () => write('login.ended', userId, { userId, sid: `login ${below(3)}` }),
      () => write('participant.kick_requested', room, { participantSid: 'PA_1', identity: userId, by: 'user/x' }),
      () => write('something.else', room, {}),
      () => ({ ...write('member.removed', room, { userId }), key: 'another key' }),
      () => write('member.banned', room, { userId, privilege: 'fly' }),
      () => ({ ...write('member.removed', room, { userId }), value: Buffer.from('{"userId":') }),
      () => ({ topic, key: room, value: null, headers: {} }),
      () => (told.length > 0 ? pick(told) : write('room.locked', room, {})),
      () => told.at(-1) ?? write('room.locked', room, {}),
    ];
    if (dead.length > 0 && below(12) === 0) {
      const { about, topic: of, partition, offset } = pick(dead);
      const action = below(2) === 0 ? 'dead_letter.retried' : 'dead_letter.discarded';
      return write(action, about, { topic: of, partition, offset: String(offset) });
    }
    if (at === count - 1) return write('room.closed', 'room 0 ✓', {});
    return pick(kinds)();
  };
  for (let at = 0; at < count; ) {
    const batch = Array.from({ length: Math.min(40, count - at) }, (_, place) => next(at + place));
    told.push(...batch);
    at += batch.length;
    for (const [place, position] of (await append(batch)).entries()) {
      const { key, value } = batch[place] as NewRecord;
      // Some of them are no dead letters at all.
      if (value === null || below(8) === 0) dead.push({ ...position, about: String(key) });
    }
  }
};
