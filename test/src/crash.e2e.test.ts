import { type JoinResponse, type OutgoingRoomEvent, topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { snapshotOf } from '@realtime-service/room-model';
import { readProjection } from '@realtime-service/room-store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Identity, startDevIdentity } from './identity.ts';
import { foldLog, isCaughtUp } from './log-reader.ts';
import { connect, type Participant } from './participant.ts';
import { type System, startSystem } from './system.ts';
import { until } from './until.ts';

const eventCount = 2_000;
const liveCount = 50;
const roomCount = 10;
const batchSize = 50;

describeWith(['postgres', 'kafka', 'livekit'], 'a worker that is killed', () => {
  let identity: Identity;
  let system: System;
  let inside: Participant[] = [];

  beforeAll(async () => {
    identity = await startDevIdentity();
    system = await startSystem({ identity, env: { SWEEP_INTERVAL_SECONDS: '3' } });
  }, 120_000);
  afterAll(async () => {
    await Promise.all(inside.map(({ leave }) => leave()));
    await system?.stop();
    await identity?.stop();
  }, 60_000);

  const roomOf = (at: number): string => `room-${at % roomCount}`;

  /** Members come, change and go; ann, who is inside, stays. */
  const eventAt = (at: number): OutgoingRoomEvent => {
    const subject = roomOf(at);
    const userId = `u-${(at * 7) % 40}`;
    switch (at % 4) {
      case 0:
        return { type: 'member.added', subject, data: { userId, role: 'listener' } };
      case 1:
        return { type: 'member.updated', subject, data: { userId, role: 'speaker' } };
      case 2:
        return { type: 'member.removed', subject, data: { userId } };
      default:
        return { type: 'member.banned', subject, data: { userId, privilege: 'data', until: '2040-01-01T00:00:00Z' } };
    }
  };

  /** As our client does: a room whose facts have not all arrived is asked for again. */
  const enterInTime = async (room: string, device_id: string): Promise<JoinResponse> =>
    until(
      `ann enters ${room}`,
      async () => {
        const response = await system.join('ann', room, { device_id });
        return response.status === 200 && ((await response.json()) as JoinResponse);
      },
      40_000,
    );

  test('in the middle of 2,000 events and 50 live joins applies every event once and finds presence again', async () => {
    const members = [{ userId: identity.subjectOf('ann'), role: 'host' as const }];
    for (let at = 0; at < roomCount; at += 1)
      await system.publish({ type: 'room.created', subject: roomOf(at), data: { members } });
    await until('rooms are there', async () => (await system.join('ann', roomOf(roomCount - 1))).status === 200);

    const publishing = (async () => {
      for (let at = 0; at < eventCount; at += batchSize)
        await system.publish(...Array.from({ length: batchSize }, (_, offset) => eventAt(at + offset)));
    })();
    const joining = (async () => {
      for (let at = 0; at < liveCount; at += 1) {
        const { server_url, participant_token } = await enterInTime(roomOf(at), `d${at}`);
        inside = [...inside, await connect(server_url, participant_token)];
      }
    })();
    await until(
      'some of each is under way',
      async () => {
        const { rows } = await system.pool.query('select count(*)::int as applied from applied_facts');
        return rows[0].applied > 500 && inside.length > 5;
      },
      60_000,
    );
    await system.worker.kill();
    await system.worker.start();
    await Promise.all([publishing, joining]);
    await until('the worker has caught up', () => isCaughtUp(system.pool, system.kafka?.brokers ?? []), 60_000);

    const { rows } = await system.pool.query(`select count(*)::int as applied from applied_facts where topic = $1`, [
      topics.roomEvents,
    ]);
    expect(rows[0].applied).toBe(eventCount + roomCount);
    expect(snapshotOf(await readProjection(system.pool))).toEqual(
      snapshotOf(await foldLog(system.kafka?.brokers ?? [])),
    );

    await until(
      "live sessions equal LiveKit's list",
      async () => {
        const listed: string[] = [];
        for (const { name } of await system.rooms.listRooms())
          for (const { sid } of await system.rooms.listParticipants(name)) listed.push(`${name} ${sid}`);
        const { rows: live } = await system.pool.query(
          `select room_id || ' ' || participant_sid as session from sessions where is_live`,
        );
        return (
          listed.length === liveCount &&
          JSON.stringify(live.map(({ session }) => session).sort()) === JSON.stringify(listed.sort())
        );
      },
      30_000,
    );
  }, 180_000);
});
