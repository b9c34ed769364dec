/** Many removals at once, while LiveKit and its webhooks fail: everybody is put out, and nobody else is touched. */
import { setTimeout as delay } from 'node:timers/promises';
import type { DisconnectReason } from '@livekit/rtc-node';
import { signalIn, signalOnlyMs, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Identity, startDevIdentity } from './identity.ts';
import { isCaughtUp } from './log-reader.ts';
import { connect, type Participant } from './participant.ts';
import { type RoomServiceProxy, startRoomServiceProxy } from './room-service-proxy.ts';
import { Random } from './simulation/random.ts';
import { speakerToken } from './speaker-token.ts';
import { type System, startSystem } from './system.ts';
import { createWebhookRelay } from './webhook-relay.ts';

const removals = 500;
const removalsPerSecond = 50;
const roomCount = 50;
const devices = ['laptop', 'phone'];
/** In every fifth room somebody stays, connected with media. */
const stayingCount = roomCount / 5;
/** Come in while everything fails, and are removed before anybody knows of them: only the sweep can tell. */
const latecomerCount = 5;
const failingShare = 0.1;
const atOnce = 16;
/** A sweep misses half of the latecomers, by chance. */
const outWithinMs = 30_000;

interface Person {
  readonly room: string;
  readonly user: string;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, at) => at);

/** All of them, so many at a time. */
const inLanes = async <T>(items: readonly T[], lanes: number, work: (item: T) => Promise<void>): Promise<void> => {
  const waiting = items.values();
  await Promise.all(
    range(lanes).map(async () => {
      for (const item of waiting) await work(item);
    }),
  );
};

describeWith(['postgres', 'kafka', 'livekit'], 'mass removal', () => {
  const webhooks = createWebhookRelay(2);
  const chance = new Random(3);
  const met = { refused: 0, cut: 0 };
  const staying: Participant[] = [];
  /** As they came in: who is put out and comes back has another. */
  const stayingSids: string[] = [];
  const thrownOut: DisconnectReason[] = [];
  let entered = 0;
  const outAtMs: number[] = [];
  const staysMs: number[] = [];
  let identity: Identity;
  let system: System;
  let proxy: RoomServiceProxy;

  const roomOf = (at: number): string => `room-${at % roomCount}`;
  const people = range(removals).map((at) => ({ room: roomOf(at), user: `removed-${at}` }));
  const late = range(latecomerCount).map((at) => ({ room: roomOf(at), user: `late-${at}` }));
  const stayers = range(stayingCount).map((at) => ({ room: roomOf(at * 5), user: `staying-${at}` }));

  /** Only signals; counted when LiveKit has ended it. */
  const enter = async ({ room, user }: Person, device?: string): Promise<void> => {
    const token = await speakerToken(room, user, device);
    const enteringAtMs = performance.now();
    const { closed } = await signalIn(system.livekit.url, token);
    entered += 1;
    void closed.then((atMs) => {
      outAtMs.push(atMs);
      staysMs.push(atMs - enteringAtMs);
    });
  };
  const remove = ({ room, user }: Person): Promise<void> =>
    system.publish({ type: 'member.removed', subject: room, data: { userId: user } });
  const listed = async (): Promise<string[]> => {
    const lists = await Promise.all(range(roomCount).map((at) => system.rooms.listParticipants(roomOf(at))));
    return lists.flat().map(({ sid }) => sid);
  };
  const believedCount = async (): Promise<number | null> =>
    (await system.pool.query('select from sessions where is_live')).rowCount;
  const fail = (): void => {
    webhooks.mode = 'lossy';
    proxy.faultOf = () => {
      if (!chance.isLikely(failingShare)) return undefined;
      const fault = chance.isLikely(0.5) ? 'refused' : 'cut';
      met[fault] += 1;
      return fault;
    };
  };

  beforeAll(async () => {
    proxy = await startRoomServiceProxy();
    identity = await startDevIdentity();
    system = await startSystem({
      identity,
      webhooksThrough: webhooks.through,
      env: { LIVEKIT_API_URL: proxy.url, SWEEP_INTERVAL_SECONDS: '1' },
    });
    proxy.targetPort = system.livekit.ports.http;
    const everybody = Map.groupBy([...people, ...late, ...stayers], ({ room }) => room);
    for (const [room, members] of everybody) {
      const data = { members: members.map(({ user }) => ({ userId: user, role: 'speaker' as const })) };
      await system.publish({ type: 'room.created', subject: room, data });
      await system.rooms.createRoom(room, { emptyTimeoutSeconds: 300, departureTimeoutSeconds: 300 });
    }
    await until('the rooms are projected', () => isCaughtUp(system.pool, system.kafka?.brokers ?? []), 20_000);
  }, 120_000);
  afterAll(async () => {
    await Promise.all(staying.map(({ leave }) => leave()));
    await system?.stop();
    proxy?.stop();
    await webhooks.stop();
    await identity?.stop();
  }, 60_000);

  test(`${removals} people with two devices each are put out, ${removalsPerSecond} a second, and nobody else is`, async () => {
    await inLanes(stayers, 5, async ({ room, user }) => {
      const client = await connect(system.livekit.url, await speakerToken(room, user));
      staying.push(client);
      stayingSids.push(client.room.localParticipant?.sid ?? '');
      void client.out.then(({ reason }) => thrownOut.push(reason));
    });
    await inLanes(people, atOnce, async (person) => {
      for (const device of devices) await enter(person, device);
    });
    const before = await listed();
    expect(before).toHaveLength(stayingCount + removals * devices.length);
    await until('the worker knows who is inside', async () => (await believedCount()) === before.length, 20_000);

    fail();
    const entering = inLanes(late, 1, async (person) => {
      await enter(person);
      await remove(person);
    });
    const startedAtMs = performance.now();
    for (const [at, person] of people.entries()) {
      await delay(Math.max(0, startedAtMs + (at * 1_000) / removalsPerSecond - performance.now()));
      await remove(person);
    }
    await entering;
    const removedAtMs = performance.now();
    await until('everybody is out', () => outAtMs.length === entered, outWithinMs);

    const lastAtMs = Math.max(...outAtMs);
    process.stderr.write(
      `the last was out ${Math.round(lastAtMs - removedAtMs)} ms after the last removal; ${JSON.stringify(met)}\n`,
    );
    // Before LiveKit would have given anybody up by itself.
    expect(Math.max(...staysMs)).toBeLessThan(signalOnlyMs);
    expect((await listed()).sort()).toEqual(stayingSids.sort());
    expect(thrownOut).toEqual([]);
    // Or nothing was put to the test.
    expect(Math.min(met.refused, met.cut, webhooks.lost)).toBeGreaterThan(0);
  }, 120_000);
});
