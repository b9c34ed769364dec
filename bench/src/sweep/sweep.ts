import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createDatabase, startPostgres } from '@realtime-service/dev-stack';
import { createEmbeddedLog } from '@realtime-service/event-log';
import { migrate, type Pool } from '@realtime-service/room-store';
import type { Benchmark, Effort, Findings } from '../benchmark.ts';
import { factOf } from '../fact.ts';
import { figure } from '../format.ts';
import { startLiveWorker } from '../live-worker.ts';
import { livekitTokenOf } from '../livekit-token.ts';
import { readProcessMetrics, type Service } from '../processes.ts';
import { type Spread, spreadOf } from '../statistics.ts';
import { createBenchPool } from '../worker/project-batches.ts';
import type { Crowd } from './crowd.ts';

const roomCounts = [0, 200, 1_000];
const allRooms = Math.max(...roomCounts);
const peoplePerRoom = 5;
/** A client has 20 descriptors, of which a process may have 20,000. */
const peoplePerCrowd = 900;
/** Until what so many facts and entries have left to do is done. */
const calmMs = 15_000;
const enteredWithinMs = 120_000;
const appendWithinMs = 30_000;
const roomOptions = { emptyTimeoutSeconds: 300, departureTimeoutSeconds: 300 };

const roomOf = (room: number): string => `room-${room}`;
const userOf = (room: number, person: number): string => `user-${room}-${person}`;
const upTo = (length: number): number[] => Array.from({ length }, (_, at) => at);

interface Share {
  readonly worker: number;
  readonly livekit: number;
}

interface Stage {
  readonly rooms: number;
  readonly sessions: number;
  readonly shares: readonly Share[];
}

const countOf = async (pool: Pool, what: string): Promise<number> =>
  Number((await pool.query<{ count: string }>(`select count(*) as count from ${what}`)).rows[0]?.count);

const untilCount = async (pool: Pool, what: string, count: number): Promise<void> => {
  const giveUpAtMs = performance.now() + enteredWithinMs;
  for (let seen = await countOf(pool, what); seen !== count; seen = await countOf(pool, what)) {
    if (performance.now() > giveUpAtMs) throw new Error(`${what}: ${seen} instead of ${count}`);
    await delay(500);
  }
};

const liveSessions = 'sessions where is_live';

/** Resolves when all of them are inside. */
const startCrowd = async (crowd: Crowd): Promise<ChildProcess> => {
  const child = fork(fileURLToPath(new URL('./crowd.ts', import.meta.url)));
  child.send(crowd);
  const [answer] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (answer !== 'inside') throw new Error(`people could not enter: ${answer}`);
  return child;
};

const run = async ({ seconds, rounds }: Effort, say: (line: string) => void): Promise<Findings> => {
  const databaseUrl = await createDatabase((await startPostgres()).url);
  await migrate(databaseUrl);
  const { url, worker, livekit, service } = await startLiveWorker(databaseUrl, {}, say);
  const pool = createBenchPool(databaseUrl, 2);
  const log = createEmbeddedLog({ pool, writeLog: () => undefined });
  const facts = upTo(allRooms).map((room) =>
    factOf('room.created', roomOf(room), {
      members: upTo(peoplePerRoom).map((person) => ({ userId: userOf(room, person), role: 'speaker' })),
    }),
  );
  await log.append(facts, appendWithinMs);
  await untilCount(pool, 'rooms', allRooms);

  const crowds: ChildProcess[] = [];
  let sessions = 0;
  /** Rooms are made and filled; resolves when the worker knows of everybody and has nothing left to ask. */
  const fill = async (fromRoom: number, toRoom: number): Promise<void> => {
    const rooms = upTo(toRoom).slice(fromRoom);
    for (const room of rooms) await service.createRoom(roomOf(room), roomOptions);
    const tokens = await Promise.all(
      rooms.flatMap((room) => upTo(peoplePerRoom).map((person) => livekitTokenOf(roomOf(room), userOf(room, person)))),
    );
    for (let first = 0; first < tokens.length; first += peoplePerCrowd)
      crowds.push(await startCrowd({ url, tokens: tokens.slice(first, first + peoplePerCrowd) }));
    sessions += tokens.length;
    await untilCount(pool, liveSessions, sessions);
    await untilCount(pool, 'marks', 0);
  };

  const observe = async (rooms: number): Promise<Stage> => {
    await delay(calmMs);
    const shares: Share[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const share = await measure(worker, livekit.metricsUrl, seconds);
      shares.push(share);
      say(
        `${sessions} people in ${rooms} rooms, round ${round + 1}: worker ${percent(share.worker)}, LiveKit ${percent(share.livekit)} of a core`,
      );
    }
    if ((await countOf(pool, liveSessions)) !== sessions) throw new Error('somebody came or went meanwhile');
    return { rooms, sessions, shares };
  };

  const stages: Stage[] = [];
  for (const rooms of roomCounts) {
    await fill(stages.at(-1)?.rooms ?? 0, rooms);
    stages.push(await observe(rooms));
  }

  for (const crowd of crowds) crowd.disconnect();
  await worker.part.stop();
  await livekit.stop();
  await log.close();
  await pool.end();
  return { lines: stages.map(lineOf), figures: { stages } };
};

/** Shares of a core that worker and LiveKit use while nothing but sweeps happens. */
const measure = async (worker: Service, livekitMetricsUrl: string, seconds: number): Promise<Share> => {
  const read = async () => ({
    atMs: performance.now(),
    worker: (await worker.metrics()).cpuSeconds,
    livekit: (await readProcessMetrics(livekitMetricsUrl)).cpuSeconds,
  });
  const before = await read();
  await delay(seconds * 1000);
  const after = await read();
  const tookSeconds = (after.atMs - before.atMs) / 1000;
  return {
    worker: (after.worker - before.worker) / tookSeconds,
    livekit: (after.livekit - before.livekit) / tookSeconds,
  };
};

const percent = (share: number): string => `${figure(share * 100)} %`;

const workerOf = ({ shares }: Stage): Spread => spreadOf(shares.map((share) => share.worker));

const lineOf = (stage: Stage): string => {
  const { min, median, max } = workerOf(stage);
  const livekit = spreadOf(stage.shares.map((share) => share.livekit)).median;
  return `${figure(stage.sessions)} sessions in ${figure(stage.rooms)} rooms: worker ${percent(median)} (${percent(min)} to ${percent(max)}) of a core, LiveKit ${percent(livekit)}`;
};

export const sweep: Benchmark = {
  summary: 'what the room-worker costs while nothing happens, with up to 5,000 people inside',
  defaults: { seconds: 60, rounds: 3 },
  run,
};
