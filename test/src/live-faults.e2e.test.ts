/**
 * What goes wrong around people who are inside: nobody rightful may be thrown out, and presence must be found again.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { snapshotOf } from '@realtime-service/room-model/snapshot';
import { readProjection } from '@realtime-service/room-store/read-projection';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Identity, startDevIdentity } from './identity.ts';
import { foldLog, isCaughtUp } from './log-reader.ts';
import { connect, type Participant } from './participant.ts';
import { speakerToken } from './speaker-token.ts';
import { type System, startSystem } from './system.ts';
import { createWebhookRelay } from './webhook-relay.ts';

/** `FAULT_SECONDS=60` for the long run; LiveKit gives up the head of a room's queue of webhooks after 15 s. */
const faultSeconds = Number(process.env['FAULT_SECONDS'] ?? 20);
/** What a sweep's look has just missed waits for the next sweep (15 s) and its second look (1 s), and is applied. */
const foundAgainWithinMs = 17_000;
const roomCount = 5;
const peopleCount = 50;

describeWith(['postgres', 'kafka', 'livekit'], 'with people inside', () => {
  const webhooks = createWebhookRelay(3);
  const inside = new Map<string, Participant>();
  const thrownOut: string[] = [];
  let identity: Identity;
  let system: System;

  const roomOf = (at: number): string => `room-${at % roomCount}`;
  const userOf = (at: number): string => `user-${at}`;
  const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, at) => from + at);
  const brokers = (): readonly string[] => system.kafka?.brokers ?? [];

  const enter = async (at: number): Promise<void> => {
    const client = await connect(system.livekit.url, await speakerToken(roomOf(at), userOf(at)));
    inside.set(userOf(at), client);
    void client.out.then(() => {
      if (inside.get(userOf(at)) === client) thrownOut.push(userOf(at));
    });
  };
  /** A few at a time: each connection is real work. */
  const enterAll = async (people: readonly number[]): Promise<void> => {
    for (let at = 0; at < people.length; at += 5) await Promise.all(people.slice(at, at + 5).map(enter));
  };
  const leave = async (at: number): Promise<void> => {
    const client = inside.get(userOf(at));
    inside.delete(userOf(at));
    await client?.leave();
  };
  const add = (at: number) =>
    system.publish({ type: 'member.added', subject: roomOf(at), data: { userId: userOf(at), role: 'speaker' } });
  const removals = async (): Promise<number> => {
    const text = await (await fetch(`${system.worker.opsUrl}/metrics`)).text();
    return [...text.matchAll(/^realtime_marks_answered_total\{action="removed".*\} (\d+)$/gm)].reduce(
      (sum, [, count]) => sum + Number(count),
      0,
    );
  };
  const listed = async (): Promise<string[]> => {
    const rooms = await system.rooms.listRooms();
    const all = rooms.map(async ({ name }) =>
      (await system.rooms.listParticipants(name)).map(({ sid }) => `${name} ${sid}`),
    );
    return (await Promise.all(all)).flat().sort();
  };
  const believed = async (): Promise<string[]> => {
    const { rows } = await system.pool.query(
      `select room_id || ' ' || participant_sid as session from sessions where is_live`,
    );
    return rows.map(({ session }) => session as string).sort();
  };
  /** And that is whom we left inside. */
  const presenceIsFound = (withinMs = foundAgainWithinMs) =>
    until(
      'presence is what LiveKit lists',
      async () => {
        const live = await listed();
        return live.length === inside.size && live.join() === (await believed()).join();
      },
      withinMs,
    );
  const caughtUp = () => until('the worker has caught up', () => isCaughtUp(system.pool, brokers()), 20_000);

  beforeAll(async () => {
    identity = await startDevIdentity();
    system = await startSystem({ identity, webhooksThrough: webhooks.through });
    for (const room of range(0, roomCount)) {
      const members = range(0, peopleCount - roomCount)
        .filter((at) => roomOf(at) === roomOf(room))
        .map((at) => ({ userId: userOf(at), role: 'speaker' as const }));
      await system.publish({ type: 'room.created', subject: roomOf(room), data: { members } });
      // Whoever applies the log anew meets chunks of it in which all of them are removed.
      await system.publish({ type: 'room.created', subject: roomOf(room), data: { members: [] } });
      for (let chunk = 0; chunk < 6; chunk += 1)
        await system.publish(
          ...Array.from({ length: 500 }, () => ({ type: 'room.unlocked' as const, subject: roomOf(room) })),
        );
      await system.publish({ type: 'room.created', subject: roomOf(room), data: { members } });
      await system.rooms.createRoom(roomOf(room), { emptyTimeoutSeconds: 300, departureTimeoutSeconds: 300 });
    }
    await caughtUp();
  }, 180_000);
  afterAll(async () => {
    await Promise.all([...inside.values()].map((client) => client.leave()));
    await system?.stop();
    await webhooks.stop();
    await identity?.stop();
  }, 60_000);

  test('a worker that is killed while they enter: presence is found', async () => {
    const entering = enterAll(range(0, peopleCount - roomCount));
    await until('some are inside', () => inside.size > 5, 60_000);
    await system.worker.kill();
    await system.worker.start();
    await entering;
    await presenceIsFound();
    expect(thrownOut).toEqual([]);
  }, 120_000);

  describe('a database that is restored to its state', () => {
    const name = (): string => new URL(system.databaseUrl).pathname.slice(1);
    const asSuperuser = async (work: (client: pg.Client) => Promise<void>): Promise<void> => {
      const client = new pg.Client({ connectionString: system.postgres.url });
      await client.connect();
      await work(client);
      await client.end();
    };
    /** A template must have no connections; everybody connects again. */
    const copy = (from: string, to: string) =>
      asSuperuser(async (client) => {
        await client.query(`alter database ${from} with allow_connections false`);
        await until(`${to} is made`, async () => {
          // Each time: one that was just connecting is among them only now.
          await client.query(`select pg_terminate_backend(pid) from pg_stat_activity where datname = '${from}'`);
          await client.query(`create database ${to} template ${from}`);
          return true;
        });
        await client.query(`alter database ${from} with allow_connections true`);
      });
    const restore = (from: string) =>
      asSuperuser(async (client) => {
        await client.query(`alter database ${name()} with allow_connections false`);
        await client.query(`drop database ${name()} with (force)`);
        await client.query(`alter database ${from} rename to ${name()}`);
      });

    test(`of ${faultSeconds / 2} s ago, under a running worker, and again under one that is killed: nobody is thrown out, and the state is found again`, async () => {
      await copy(name(), 'before');
      const restoredAtMs = performance.now() + faultSeconds * 500;
      const removedBefore = await removals();
      for (const at of range(peopleCount - roomCount, peopleCount)) {
        await add(at);
        await enter(at);
      }
      // Before the removal, which may be done when the log's answer comes.
      const out = inside.get(userOf(0))?.out;
      inside.delete(userOf(0));
      await system.publish({ type: 'member.removed', subject: roomOf(0), data: { userId: userOf(0) } });
      await out;
      await system.publish({ type: 'room.locked', subject: roomOf(1) });
      for (let at = 1; performance.now() < restoredAtMs; at += 1) {
        const role = at % 2 === 0 ? 'listener' : 'speaker';
        const who = 1 + (at % (peopleCount - 1));
        await system.publish({ type: 'member.updated', subject: roomOf(who), data: { userId: userOf(who), role } });
        await delay(200);
      }
      await presenceIsFound();
      await caughtUp();
      expect(await removals()).toBe(removedBefore + 1);
      const after = snapshotOf(await readProjection(system.pool));

      await copy('before', 'again');
      await restore('before');
      await caughtUp();
      expect(snapshotOf(await readProjection(system.pool))).toEqual(after);
      await presenceIsFound();
      expect(await removals()).toBe(removedBefore + 1);

      await system.worker.kill();
      await restore('again');
      await system.worker.start();
      await caughtUp();
      expect(snapshotOf(await readProjection(system.pool))).toEqual(after);
      await presenceIsFound();
      expect(await removals()).toBe(0);
      expect(after).toEqual(snapshotOf(await foldLog(brokers())));
      expect(thrownOut).toEqual([]);
    }, 180_000);

    test('of before any fact, under a worker that starts: it reads through times in which nobody was a member, and throws nobody out', async () => {
      const before = snapshotOf(await readProjection(system.pool));
      await system.worker.kill();
      await asSuperuser(async (client) => {
        await client.query(`drop database ${name()} with (force)`);
        await client.query(`create database ${name()}`);
      });
      await system.worker.start();
      await caughtUp();
      expect(snapshotOf(await readProjection(system.pool))).toEqual(before);
      await presenceIsFound();
      expect(await removals()).toBe(0);
      expect(thrownOut).toEqual([]);
    }, 120_000);
  });

  describe.each([
    ['do not arrive', 'dark' as const, faultSeconds],
    ['are lost, three of ten', 'lossy' as const, faultSeconds / 2],
  ])('webhooks that %s', (_, mode, seconds) => {
    test(`for ${seconds} s: presence is found within ${foundAgainWithinMs} ms, and nobody is thrown out`, async () => {
      const removedBefore = await removals();
      webhooks.mode = mode;
      const untilMs = performance.now() + seconds * 1_000;
      const comeOrGo = (at: number): Promise<void> => (inside.has(userOf(at)) ? leave(at) : enter(at));
      // Of each room the first to be told, and the first to be given up: these do not change their minds.
      for (const at of range(10, 10 + roomCount)) await comeOrGo(at);
      for (let at = 15; performance.now() < untilMs; at = at === 24 ? 15 : at + 1) {
        await comeOrGo(at);
        await delay(200);
      }
      webhooks.mode = 'pass';
      await presenceIsFound();
      expect(await removals()).toBe(removedBefore);
      expect(thrownOut).toEqual([]);
    }, 180_000);
  });

  test(`a LiveKit that is killed: who comes again stays, and presence is found within ${foundAgainWithinMs} ms`, async () => {
    const removedBefore = await removals();
    const before = await believed();
    const gone = [...inside.values()];
    inside.clear();
    await system.livekit.kill();
    await Promise.all(gone.map((client) => client.leave()));
    await system.livekit.start();
    const areOver = until(
      'the sessions of before are over',
      async () => (await believed()).every((session) => !before.includes(session)),
      foundAgainWithinMs,
    );
    // But for one room, whose end nobody will tell.
    const people = range(20, 45).filter((at) => roomOf(at) !== roomOf(0));
    for (const room of range(1, roomCount))
      await system.rooms.createRoom(roomOf(room), { emptyTimeoutSeconds: 300, departureTimeoutSeconds: 300 });
    await Promise.all([areOver, enterAll(people)]);
    await presenceIsFound();
    expect(await removals()).toBe(removedBefore);
    expect(thrownOut).toEqual([]);
  }, 120_000);
});
