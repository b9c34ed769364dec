/**
 * Facts in a steady stream while the worker, the broker and the database are killed at random moments; afterwards the
 * tables must be what the pure fold of the log is, each fact having had its effect exactly once.
 */

import { setTimeout as delay } from 'node:timers/promises';
import {
  consumedTopics,
  type OutgoingRoomEvent,
  RoomEventPublisher,
  toBinaryHeaders,
  topics,
} from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import type { EventLog, NewRecord } from '@realtime-service/event-log';
import { createKafkaLog } from '@realtime-service/event-log/kafka';
import type { WorkingSet } from '@realtime-service/room-model';
import { snapshotOf } from '@realtime-service/room-model/snapshot';
import { readProjection } from '@realtime-service/room-store/read-projection';
import { foldEvents, isCaughtUp, readTopic } from './log-reader.ts';
import type { Service, System } from './system.ts';

export interface TortureOptions {
  readonly seed: number;
  readonly events: number;
  readonly kills: number;
  readonly say: (line: string) => void;
}

const victims = ['worker', 'broker', 'database'] as const;
type Victim = (typeof victims)[number];

/** The last four are what must be 0. */
export interface TortureResult {
  readonly killed: Readonly<Record<Victim, number>>;
  readonly seconds: number;
  /** Facts that stand in the log more than once, since their producer sent them again. */
  readonly repeats: number;
  /** Acknowledged, and without effect. */
  readonly lost: number;
  /** With an effect, and never sent. */
  readonly phantom: number;
  /** With an effect twice. */
  readonly double: number;
  /** Rows and live sessions that differ from the pure fold. */
  readonly divergence: number;
}

const writers = 8;
const roomsEach = 4;
const peopleEach = 10;
const longestPauseMs = 400;
const longestOutageMs = 1_500;

/** mulberry32: the same seed, the same numbers. */
const randomFrom = (seed: number): ((below: number) => number) => {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
};

const publisher = new RoomEventPublisher({ producer: { send: async () => undefined }, source: '/torture' });
const roomRecord = (event: OutgoingRoomEvent): NewRecord[] =>
  publisher.toMessages([event]).map(({ key, value, headers }) => ({
    topic: topics.roomEvents,
    key,
    value: Buffer.from(value),
    headers: Object.fromEntries(Object.entries(headers).filter((entry) => entry[1] !== undefined)),
  }));

const livekitRecord = (id: string, room: string, event: string, participant: object): NewRecord => ({
  topic: topics.livekitWebhooks,
  key: room,
  value: Buffer.from(
    JSON.stringify({ id, event, room: { sid: `RM_${room}`, name: room, creationTimeMs: '1' }, participant }),
  ),
  headers: toBinaryHeaders({ specversion: '1.0', id, source: 'livekit', type: `livekit.${event}`, subject: room }),
});

/** What one writer says next, about rooms and people of its own. */
const createWriter = (name: number, random: (below: number) => number): ((id: string) => NewRecord[]) => {
  const inside = new Map<string, { readonly sid: string; readonly joinedAtMs: number }>();
  let joins = 0;

  const enterOrLeave = (id: string, room: string, user: string): NewRecord[] => {
    const seat = `${room} ${user}`;
    const present = inside.get(seat);
    joins += 1;
    const { sid, joinedAtMs } = present ?? { sid: `PA_${name}_${joins}`, joinedAtMs: joins };
    if (present === undefined) inside.set(seat, { sid, joinedAtMs });
    else inside.delete(seat);
    const participant = { sid, identity: user, joinedAtMs: `${joinedAtMs}`, attributes: { 'rt.user': user } };
    return [livekitRecord(id, room, present === undefined ? 'participant_joined' : 'participant_left', participant)];
  };

  return (id) => {
    const subject = `room-${name}-${random(roomsEach)}`;
    const userId = `user-${name}-${random(peopleEach)}`;
    const role = (['host', 'speaker', 'listener'] as const)[random(3)] ?? 'listener';
    switch (random(12)) {
      case 0:
        return roomRecord({ id, type: 'room.created', subject, data: { members: [{ userId, role }] } });
      case 1:
        return roomRecord({ id, type: random(2) === 0 ? 'room.locked' : 'room.unlocked', subject });
      case 2:
        return roomRecord({ id, type: 'member.banned', subject, data: { userId, privilege: 'data' } });
      case 3:
        return roomRecord({ id, type: 'member.unbanned', subject, data: { userId, privilege: 'data' } });
      case 4:
        return roomRecord({
          id,
          type: random(2) === 0 ? 'user.disabled' : 'user.enabled',
          subject: userId,
          data: { userId },
        });
      case 5:
        return roomRecord({ id, type: 'member.updated', subject, data: { userId, role } });
      case 6:
      case 7:
        return roomRecord({ id, type: 'member.removed', subject, data: { userId } });
      case 8:
      case 9:
        return roomRecord({ id, type: 'member.added', subject, data: { userId, role } });
      default:
        return enterOrLeave(id, subject, userId);
    }
  };
};

/** Counts, beside the outbox and whatever becomes of its rows, what was written into it. */
const auditSql = `
  create table torture_effects (type text, session text, event_id text);
  create function torture_note() returns trigger language plpgsql as $$ begin
    insert into torture_effects values (new.type, new.data->>'participantSid', new.event_id);
    return new;
  end $$;
  create trigger torture_note after insert on outbox for each row execute function torture_note()`;

const liveOf = (model: WorkingSet): string[] =>
  [...model.lives.keys()]
    .flatMap((roomId) => [...model.sessionsOf(roomId)])
    .filter(({ isLive }) => isLive)
    .map(({ roomId, participantSid }) => `${roomId} ${participantSid}`);

const missingFrom = <T>(whole: Iterable<T>, part: ReadonlySet<T>): T[] => [...whole].filter((each) => !part.has(each));

/** Sends the same ids again until they are acknowledged, and nothing later before. */
const appendInsistently = async (log: EventLog, records: readonly NewRecord[]): Promise<void> => {
  await until(
    'the log takes the facts',
    () =>
      log.append(records, 5_000).then(
        () => true,
        () => false,
      ),
    120_000,
  );
};

/** Kills and restarts, one victim after the other, each as soon as enough facts are acknowledged. */
const killAtRandom = async (
  parts: Readonly<Record<Victim, readonly Pick<Service, 'kill' | 'start'>[]>>,
  random: (below: number) => number,
  { kills, say }: TortureOptions,
  reached: (kill: number) => Promise<void>,
): Promise<Record<Victim, number>> => {
  const killed = { worker: 0, broker: 0, database: 0 };
  for (let kill = 0; kill < kills; kill += 1) {
    const victim = victims[random(victims.length)] ?? 'worker';
    const candidates = parts[victim];
    const part = candidates[random(candidates.length)];
    const [pauseMs, outageMs] = [random(longestPauseMs), random(longestOutageMs)];
    await reached(kill);
    await delay(pauseMs);
    await part?.kill();
    await delay(outageMs);
    say(`kill ${kill + 1} of ${kills}: ${victim}, away for ${outageMs} ms`);
    await part?.start();
    killed[victim] += 1;
  }
  return killed;
};

/** Tables, effects and log against each other. */
const compare = async (
  { pool, kafka }: System,
  sent: ReadonlySet<string>,
  say: TortureOptions['say'],
): Promise<Pick<TortureResult, 'repeats' | 'lost' | 'phantom' | 'double' | 'divergence'>> => {
  const brokers = kafka?.brokers ?? [];
  const logged = (await Promise.all(consumedTopics.map((each) => readTopic(brokers, each)))).flat();
  const inLog = logged.map(({ event }) => event.context.id);
  const once = new Set(inLog);

  const model = foldEvents(logged);
  const expected = new Set([...snapshotOf(model), ...liveOf(model)]);
  const { rows: live } = await pool.query(
    `select room_id || ' ' || participant_sid as session from sessions where is_live`,
  );
  const actual = new Set([...snapshotOf(await readProjection(pool)), ...live.map(({ session }) => session as string)]);

  const differences = [...missingFrom(expected, actual), ...missingFrom(actual, expected)];
  for (const line of differences.slice(0, 20)) say(`differs: ${line}`);

  const { rows: facts } = await pool.query('select count(*)::int as n from applied_facts');
  const { rows: effects } = await pool.query<{ name: string; event_id: string }>(
    `select type || ' ' || session as name, event_id from torture_effects where session is not null`,
  );
  const names = effects.map(({ name }) => name);
  const expectedEffects = new Set(
    logged.flatMap(({ topic, event }) => {
      const { participant } = event.data as { participant?: { sid: string } };
      if (topic !== topics.livekitWebhooks || participant === undefined) return [];
      return [
        `participant.${event.context.type === 'livekit.participant_joined' ? 'joined' : 'left'} ${participant.sid}`,
      ];
    }),
  );
  const published = new Set((await readTopic(brokers, topics.presence)).map(({ event }) => event.context.id));
  return {
    repeats: inLog.length - once.size,
    lost:
      missingFrom(sent, once).length +
      Math.max(0, sent.size - facts[0].n) +
      missingFrom(expectedEffects, new Set(names)).length +
      missingFrom(
        effects.map(({ event_id }) => event_id),
        published,
      ).length,
    phantom:
      missingFrom(once, sent).length + Math.max(0, facts[0].n - sent.size) + missingFrom(names, expectedEffects).length,
    double: names.length - new Set(names).size,
    divergence: differences.length,
  };
};

/** The system must have a broker, its sweep must be idle: LiveKit knows nothing of these sessions. */
export const torture = async (system: System, options: TortureOptions): Promise<TortureResult> => {
  const { seed, events, kills, say } = options;
  const { pool, kafka, postgres } = system;
  if (kafka === undefined) throw new Error('there is no broker to kill');
  const startedAtMs = performance.now();
  await pool.query(auditSql);
  const other = await system.startWorker();
  const log = createKafkaLog({ brokers: kafka.brokers, clientId: 'torture', writeLog: () => undefined });
  const sent = new Set<string>();
  let allowed = 0;

  const write = async (name: number): Promise<void> => {
    const random = randomFrom(seed * 1_000 + name);
    const next = createWriter(name, random);
    let previous: NewRecord[] = [];
    for (let at = 0; at < events / writers; ) {
      const size = Math.min(1 + random(20), Math.ceil(events / writers) - at);
      const ids = Array.from({ length: size }, (_, offset) => `${name}-${at + offset}`);
      await until('this many facts may be sent', () => sent.size < allowed, 120_000);
      const records = ids.flatMap(next);
      await appendInsistently(log, records);
      for (const id of ids) sent.add(id);
      // As a producer does that had no answer: facts come again after newer ones.
      if (random(8) === 0) await appendInsistently(log, previous);
      previous = records;
      at += size;
    }
  };
  /** Facts flow between the kills, too: each kill lets the next share of them pass. */
  const reached = async (kill: number): Promise<void> => {
    allowed = (events * (kill + 1)) / (kills + 1);
    await until('enough facts are acknowledged', () => sent.size >= allowed - events / (2 * (kills + 1)), 120_000);
  };

  const parts = { worker: [system.worker, other], broker: [kafka], database: [postgres] };
  const killing = killAtRandom(parts, randomFrom(seed), options, reached).finally(() => {
    allowed = Number.POSITIVE_INFINITY;
  });
  const [killed] = await Promise.all([killing, ...Array.from({ length: writers }, (_, name) => write(name))]);
  say(`${sent.size} facts are acknowledged`);
  await until('the workers have caught up', () => isCaughtUp(pool, kafka.brokers), 120_000);
  await until(
    'everything is published',
    async () => (await pool.query('select from outbox limit 1')).rowCount === 0,
    60_000,
  );
  const compared = await compare(system, sent, say);
  await other.stop();
  await log.close();
  return { killed, seconds: Math.round((performance.now() - startedAtMs) / 1_000), ...compared };
};
