/**
 * No worker for a while: the door goes by what the database knows, and when it knows too little it opens for nobody.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { OutgoingRoomEvent } from '@realtime-service/contracts';
import { signalIn, signalOnlyMs, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { refreshed, validate } from './gate-door.ts';
import { type Identity, startDevIdentity } from './identity.ts';
import { connect } from './participant.ts';
import { type RoomServiceProxy, startRoomServiceProxy } from './room-service-proxy.ts';
import { type System, startSystem } from './system.ts';

/** `FAULT_SECONDS=60` for the long run, which leaves the age of facts at its default. */
const awaySeconds = Number(process.env['FAULT_SECONDS'] ?? 5);
const maxAgeSeconds = Math.min(10, Math.floor(awaySeconds / 2));
/** They cost little, and LiveKit ends them after a minute: time enough for the short run. */
const onlySignals = awaySeconds * 1_000 < signalOnlyMs / 2;
const outWithinMs = 2_000;

const users = ['ann', 'bob', 'cleo', 'dan'] as const;
const rooms = Array.from({ length: 13 }, (_, at) => `room-${at}`);
const removedCount = 50;

/** Somebody inside, with the refresh token that LiveKit has handed out. */
interface Person {
  readonly room: string;
  readonly userId: string;
  readonly kept: string;
  readonly leave: () => void | Promise<void>;
}

describeWith(['postgres', 'kafka', 'livekit', 'nginx'], 'while the worker is away', () => {
  let identity: Identity;
  let system: System;
  let livekitApi: RoomServiceProxy;

  beforeAll(async () => {
    livekitApi = await startRoomServiceProxy();
    identity = await startDevIdentity();
    const env = {
      LIVEKIT_API_URL: livekitApi.url,
      PROJECTION_MAX_AGE_SECONDS: String(maxAgeSeconds),
      // Nobody but its lists tells of who only signals.
      SWEEP_INTERVAL_SECONDS: '1',
    };
    system = await startSystem({ identity, door: 'nginx', env });
    livekitApi.targetPort = system.livekit.ports.http;
  }, 240_000);
  afterAll(async () => {
    await system?.stop();
    await identity?.stop();
    livekitApi?.stop();
  }, 60_000);

  const doorUrl = (): string => system.door?.url ?? '';
  const enter = async (user: string, room: string): Promise<Person> => {
    const { participant_token: token } = await system.enter(user, room);
    const userId = identity.subjectOf(user);
    if (onlySignals) {
      const { refreshToken, close } = await signalIn(doorUrl(), token);
      return { room, userId, kept: refreshToken, leave: close };
    }
    const client = await connect(doorUrl(), token);
    return { room, userId, kept: await refreshed(client, token), leave: client.leave };
  };
  const placeOf = ({ room, userId }: Pick<Person, 'room' | 'userId'>): string => `${room} ${userId}`;
  const knock = async ({ kept }: Person): Promise<number> => {
    const answer = await fetch(`${doorUrl().replace('ws', 'http')}${validate(kept)}`);
    await answer.body?.cancel();
    return answer.status;
  };
  const knockAll = (people: readonly Person[]): Promise<number[]> => Promise.all(people.map(knock));
  const remove = (people: readonly Person[]) =>
    system.publish(
      ...people.map(
        ({ room, userId }): OutgoingRoomEvent => ({ type: 'member.removed', subject: room, data: { userId } }),
      ),
    );
  const count = async (sql: string): Promise<number> => (await system.pool.query(sql)).rows.length;
  const inside = async (): Promise<string[]> => {
    const lists = rooms.map(async (room) =>
      (await system.rooms.listParticipants(room)).map((listed) => placeOf({ room, userId: listed.identity })),
    );
    return (await Promise.all(lists)).flat().sort();
  };

  test(
    `${removedCount} removals in ${awaySeconds} s: none of them passes the door, and all are out ${outWithinMs} ms after it is back`,
    async () => {
      await Promise.all(
        rooms.map((room) => system.createRoom(room, { ann: 'host', bob: 'speaker', cleo: 'speaker', dan: 'speaker' })),
      );
      const people: Person[] = [];
      for (const room of rooms) people.push(...(await Promise.all(users.map((user) => enter(user, room)))));
      const removed = people.slice(0, removedCount);
      const staying = people.slice(removedCount);
      const [known, unread] = [removed.slice(0, removedCount / 2), removed.slice(removedCount / 2)];
      await until(
        'presence knows all',
        async () => (await count('select from sessions where is_live')) === people.length,
        20_000,
      );

      // The database knows of these, and LiveKit has not ended one of them when the worker dies.
      let refusals = 0;
      livekitApi.faultOf = (method) => {
        if (method !== 'RemoveParticipant') return undefined;
        refusals += 1;
        return 'refused';
      };
      await remove(known);
      await until(
        'the database knows',
        async () => (await count('select from members where is_removed')) === known.length,
      );
      expect(new Set(await knockAll(known))).toEqual(new Set([403]));
      await until('LiveKit has refused to end each of them', () => refusals >= known.length);
      // What it has claimed when it dies is nobody's for 15 s.
      await until('the worker is killed with no question in hand', async () => {
        await system.worker.pause();
        const claimed = await count('select from marks where locked_until > clock_timestamp()');
        await (claimed === 0 ? system.worker.kill() : system.worker.resume());
        return claimed === 0;
      });

      await remove(unread);
      const passed: string[] = [];
      let answers: number[] = [];
      for (const endsAtMs = performance.now() + awaySeconds * 1_000; performance.now() < endsAtMs; ) {
        const statuses = await knockAll(known);
        passed.push(...known.filter((_, at) => (statuses[at] ?? 0) < 300).map(placeOf));
        answers = await knockAll(unread);
        await delay(1_000);
      }
      expect(passed).toEqual([]);
      // What only the log knows, nobody can refuse by; but its rooms open for nobody once that is noticed.
      expect(new Set(answers)).toEqual(new Set([503]));
      expect(await count('select from members where is_removed')).toBe(known.length);
      expect(await inside()).toEqual(people.map(placeOf).sort());

      livekitApi.faultOf = () => undefined;
      await system.worker.start();
      const readyAtMs = performance.now();
      const left = staying.map(placeOf).sort();
      await until('all are out', async () => (await inside()).join() === left.join());
      const outAfterMs = Math.round(performance.now() - readyAtMs);
      process.stderr.write(`all ${removedCount} are out ${outAfterMs} ms after the worker was ready\n`);
      expect(outAfterMs).toBeLessThan(outWithinMs);
      await until('the facts are fresh again', async () => !(await knockAll(people)).includes(503));
      expect(new Set(await knockAll(removed))).toEqual(new Set([403]));
      expect(new Set(await knockAll(staying))).toEqual(new Set([200]));
      expect(await inside()).toEqual(left);
      await Promise.all(people.map(({ leave }) => leave()));
    },
    (awaySeconds + 120) * 1_000,
  );
});
