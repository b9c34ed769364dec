/** Several room-workers share twelve partitions: whatever becomes of one of them, each fact counts once. */

import { type OutgoingRoomEvent, RoomEventPublisher, topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { partitionOf } from '@realtime-service/event-log';
import { snapshotOf } from '@realtime-service/room-model/snapshot';
import { activeProjection, readPositions } from '@realtime-service/room-store';
import { readProjection } from '@realtime-service/room-store/read-projection';
import kafkajs from 'kafkajs';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { runRealtime } from '../../services/cli/test/run-realtime.ts';
import { type Identity, startDevIdentity } from './identity.ts';
import { foldLog, highOffsets, isCaughtUp } from './log-reader.ts';
import { type Service, type System, startSystem } from './system.ts';

const roomCount = 60;
const batchSize = 100;

describeWith(['postgres', 'kafka', 'livekit'], 'a group of three room-workers', () => {
  let identity: Identity;
  let system: System;
  let others: Service[] = [];
  let published = 0;

  beforeAll(async () => {
    identity = await startDevIdentity();
    system = await startSystem({ identity, env: { SWEEP_INTERVAL_SECONDS: '3600' } });
    others = [await system.startWorker(), await system.startWorker()];
  });
  afterAll(async () => {
    await Promise.all(others.map((worker) => worker.stop()));
    await system?.stop();
    await identity?.stop();
  }, 60_000);

  const brokers = (): readonly string[] => system.kafka?.brokers ?? [];
  /** People who are added, promoted, removed and added again: what is lost or applied twice shows. */
  const eventAt = (at: number): OutgoingRoomEvent => {
    const subject = `room-${(at * 7) % roomCount}`;
    const userId = `u-${at % 11}`;
    switch (at % 3) {
      case 0:
        return { type: 'member.added', subject, data: { userId, role: 'listener' } };
      case 1:
        return { type: 'member.updated', subject, data: { userId, role: 'speaker' } };
      default:
        return { type: 'member.removed', subject, data: { userId } };
    }
  };
  const publishSome = async (): Promise<void> => {
    await system.publish(...Array.from({ length: batchSize }, (_, offset) => eventAt(published + offset)));
    published += batchSize;
  };
  /** Publishes as fast as it goes while something happens to the group. */
  const underLoad = async (work: () => Promise<void>): Promise<void> => {
    let isOver = false;
    const loading = (async () => {
      while (!isOver) await publishSome();
    })();
    await work().finally(() => {
      isOver = true;
    });
    await loading;
  };
  const metricOf = async ({ opsUrl }: Service, name: string): Promise<number> => {
    const text = await (await fetch(`${opsUrl}/metrics`)).text();
    return [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].reduce(
      (sum, [, value]) => sum + Number(value),
      0,
    );
  };
  const countedOnce = async (): Promise<void> => {
    await until('the group has caught up', () => isCaughtUp(system.pool, brokers()), 60_000);
    const { rows } = await system.pool.query('select count(*)::int as n from applied_facts where topic = $1', [
      topics.roomEvents,
    ]);
    expect(rows[0].n).toBe(published);
    expect(snapshotOf(await readProjection(system.pool))).toEqual(snapshotOf(await foldLog(brokers())));
  };

  beforeEach(() => publishSome());

  test('one that stops, one that is killed and both that come back, under load', async () => {
    const [second, third] = others;
    await underLoad(async () => {
      await second?.stop();
      await third?.kill();
      await second?.start();
      await third?.start();
    });
    await countedOnce();
    const shares = await Promise.all(
      [system.worker, ...others].map((worker) => metricOf(worker, 'realtime_facts_total')),
    );
    expect(shares.every((share) => share > 0)).toBe(true);
  }, 120_000);

  test('one that is frozen until its session has timed out, and then goes on: what it had in hand changes nothing', async () => {
    await underLoad(async () => {
      await system.worker.pause();
      await publishSome();
      const highs = await highOffsets(brokers(), topics.roomEvents);
      await until(
        'the others have its partitions',
        async () =>
          (await readPositions(system.pool, activeProjection)).every(
            ({ topic, partition, nextOffset }) =>
              topic !== topics.roomEvents || nextOffset >= (highs.get(partition) ?? 0n),
          ),
        60_000,
      );
      await system.worker.resume();
      await publishSome();
    });
    await countedOnce();
  }, 120_000);

  test('what stands in another partition than murmur2 gives is applied, and told', async () => {
    const subject = 'room-misplaced';
    const publisher = new RoomEventPublisher({ producer: { send: async () => undefined }, source: '/librdkafka' });
    const messages = publisher.toMessages([
      { type: 'room.created', subject, data: { members: [{ userId: 'ann', role: 'host' }] } },
    ]);
    const partition = (partitionOf(subject, 12) + 1) % 12;
    const producer = new kafkajs.Kafka({ brokers: [...brokers()], logLevel: kafkajs.logLevel.NOTHING }).producer({
      createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    });
    await producer.connect();
    await producer.send({ topic: topics.roomEvents, messages: messages.map((each) => ({ ...each, partition })) });
    await producer.disconnect();
    published += 1;
    await countedOnce();
    const told = await Promise.all(
      [system.worker, ...others].map((worker) => metricOf(worker, 'realtime_records_misplaced_total')),
    );
    expect(told.reduce((sum, count) => sum + count, 0)).toBe(1);
  }, 60_000);

  test('a topic that is grown ends them all; confirmed, they go on with what is in it', async () => {
    const admin = new kafkajs.Kafka({ brokers: [...brokers()], logLevel: kafkajs.logLevel.NOTHING }).admin();
    await admin.connect();
    await admin.createPartitions({ topicPartitions: [{ topic: topics.roomEvents, count: 24 }] });
    await admin.disconnect();
    for (const worker of [system.worker, ...others]) {
      await until(
        'it has ended',
        () =>
          fetch(`${worker.opsUrl}/livez`).then(
            () => false,
            () => true,
          ),
        20_000,
      );
      // Its port closes before it exits: a part that has not exited would not be started again.
      await worker.stop();
      expect(await worker.readLog()).toContain('PartitionCountChangedError');
    }
    await expect(system.worker.start()).rejects.toThrow('has 24 partitions, the projection was made with 12');

    const env = { DATABASE_URL: system.databaseUrl, KAFKA_BROKERS: brokers().join(',') };
    expect(await runRealtime(env, 'confirm-partitions', topics.roomEvents, '--yes')).toMatchObject({ code: 0 });
    await system.worker.start();
    await publishSome();
    expect((await highOffsets(brokers(), topics.roomEvents)).size).toBe(24);
    await until('all is applied', () => isCaughtUp(system.pool, brokers()), 30_000);
  }, 120_000);
});
