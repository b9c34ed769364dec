/** A topic that was made again has other records at the offsets that were applied: the last of them tells. */

import { RoomEventPublisher, topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import kafkajs, { type Admin } from 'kafkajs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { runRealtime } from '../../services/cli/test/run-realtime.ts';
import { type KafkaProjection, partitionOf, startKafkaProjection } from './kafka-projection.ts';
import { highOffsets } from './log-reader.ts';

const topic = topics.roomEvents;
const room = 'room-42';
const partition = partitionOf(room);

describeWith(['postgres', 'kafka'], 'a room-worker that starts again', () => {
  let kafka: KafkaProjection;
  let admin: Admin;
  let added = 0;

  beforeAll(async () => {
    kafka = await startKafkaProjection();
    admin = kafka.client.admin();
    await admin.connect();
  }, 120_000);
  afterAll(async () => {
    await admin?.disconnect();
    await kafka?.stop();
  }, 60_000);

  /** A fact each: members `u-1`, `u-2` and so on. */
  const add = async (count: number, publisher = kafka.publisher): Promise<void> => {
    const events = Array.from({ length: count }, (_, at) => ({
      type: 'member.added' as const,
      subject: room,
      data: { userId: `u-${added + at + 1}`, role: 'speaker' as const },
    }));
    added += count;
    await publisher.publish(events);
  };
  /** A fact each, and the marker of their end behind them. */
  const addInTransaction = async (count: number): Promise<void> => {
    const { DefaultPartitioner: createPartitioner } = kafkajs.Partitioners;
    const producer = kafka.client.producer({ createPartitioner, transactionalId: 'facts', maxInFlightRequests: 1 });
    await producer.connect();
    const transaction = await producer.transaction();
    await add(count, new RoomEventPublisher({ producer: transaction, source: '/tests' }));
    await transaction.commit();
    await producer.disconnect();
  };
  const readTables = async () => {
    const { rows } = await kafka.pool.query(
      `select next_offset::int as next, last_offset::int as last, last_recorded_at as at from log_positions
        where projection = 'active' and topic = $1 and "partition" = $2`,
      [topic, partition],
    );
    const users = (await kafka.membersOf(room)).map(({ user_id }) => user_id).sort();
    return { position: rows[0], users };
  };
  const setLast = (offset: number | null, at: Date | null) =>
    kafka.pool.query(
      'update log_positions set last_offset = $3, last_recorded_at = $4 where topic = $1 and "partition" = $2',
      [topic, partition, offset, at],
    );
  const factsThat = async (outcome: string): Promise<number> => {
    const text = await (await fetch(`${kafka.worker.opsUrl}/metrics`)).text();
    const sample = text
      .split('\n')
      .find((line) => line.includes(`topic="${topic}"`) && line.includes(`outcome="${outcome}"`));
    return Number(sample?.split(' ').at(-1));
  };

  describe('on the same topic', () => {
    beforeEach(async () => {
      await add(2);
      await kafka.untilCaughtUp();
      await kafka.worker.stop();
    });

    /** Starts it, and sees that it goes on: one fact is new, and so many were read before. */
    const goesOn = async (repeated: number): Promise<void> => {
      const { position, users } = await readTables();
      await add(1);
      await kafka.worker.start();
      await kafka.untilCaughtUp();
      const after = await readTables();
      expect(after.users).toHaveLength(users.length + 1);
      expect(after.position).toMatchObject({ next: position.next + 1, last: position.next });
      // Counted after the commit.
      await until('both are counted', async () => (await factsThat('applied')) === 1);
      expect(await factsThat('repeated')).toBe(repeated);
    };

    test('goes on, and what it looked at again counts as a repeat', () => goesOn(1));

    test('goes on where nobody noted the last record', async () => {
      await setLast(null, null);
      await goesOn(0);
    });

    test('goes on where a worker from before the upgrade has moved on without it', async () => {
      const { position } = await readTables();
      await kafka.worker.start();
      await add(2);
      await kafka.untilCaughtUp();
      await kafka.worker.stop();
      await setLast(position.last, position.at);
      await goesOn(3);
    });

    test('goes on where retention has dropped the last record', async () => {
      const { position } = await readTables();
      // Also loads what kafkajs needs to know of the topic.
      await admin.fetchTopicOffsets(topic);
      await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(position.next) }] });
      await goesOn(0);
    });
  });

  describe('on a topic that was made again and holds more than was applied', () => {
    const makeAgain = () =>
      until('it is made again', async () => {
        await kafka.broker.createTopics([{ topic, partitions: 12 }]);
        return true;
      });
    const hasLogged = (what: RegExp, from = 0) =>
      until(`it says ${what}`, async () => what.test((await kafka.worker.readLog()).slice(from)), 20_000);

    test('ends before it applies anything, whenever it is started; a reset is the way out', async () => {
      await kafka.worker.stop();
      const before = await readTables();
      await admin.deleteTopics({ topics: [topic] });
      await makeAgain();
      await add(before.position.next + 5);

      for (const _ of ['the first time', 'the second time']) {
        // It may be ready for a moment.
        await kafka.worker.start().catch(() => undefined);
        await hasLogged(/LogReplacedError.*cannot go on/);
        await kafka.worker.stop();
        expect(await readTables()).toEqual(before);
      }

      const env = { DATABASE_URL: kafka.databaseUrl, KAFKA_BROKERS: kafka.broker.brokers.join() };
      expect(await runRealtime(env, 'reset', topic, '--yes')).toMatchObject({ code: 0 });
      await kafka.worker.start();
      await kafka.untilCaughtUp();
      expect(await runRealtime(env, 'verify')).toMatchObject({ code: 0 });
      const { users } = await readTables();
      expect(users).toHaveLength(before.position.next + 5);
      expect(users.filter((userId) => before.users.includes(userId))).toEqual([]);
    }, 120_000);

    test('ends as well where it has seen the topic go while it ran', async () => {
      const before = await readTables();
      const { length } = await kafka.worker.readLog();
      await admin.deleteTopics({ topics: [topic] });
      await hasLogged(/starts anew|where to go on is not known yet/, length);
      await makeAgain();
      await add(before.position.next + 5);
      // Where it looks before all of them are there, its position lies beyond the topic.
      await hasLogged(/(?:LogReplacedError|OffsetOutOfRangeError).*cannot go on/);
      expect(await readTables()).toEqual(before);
    }, 120_000);

    test("ends as well where a transaction's marker stands at the last record's offset", async () => {
      await kafka.worker.stop();
      const before = await readTables();
      const { last } = before.position;
      await admin.deleteTopics({ topics: [topic] });
      await makeAgain();
      await addInTransaction(last);
      const high = async () => (await highOffsets(kafka.broker.brokers, topic)).get(partition);
      await until('the marker is written', async () => (await high()) === BigInt(last + 1));
      await add(5);
      await kafka.worker.start().catch(() => undefined);
      await hasLogged(/LogReplacedError.*is none now.*cannot go on/);
      expect(await readTables()).toEqual(before);
    }, 120_000);
  });
});
