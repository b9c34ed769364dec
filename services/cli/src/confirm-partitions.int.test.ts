import { consumedTopics, topics } from '@realtime-service/contracts';
import { startKafka, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { createEmbeddedLog, type NewRecord, partitionOf } from '@realtime-service/event-log';
import { createKafkaLog } from '@realtime-service/event-log/kafka';
import kafkajs from 'kafkajs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { binary, partitionCount, type RebuiltDatabase, startRebuiltDatabase } from '../test/rebuilt-database.ts';
import { runRealtime } from '../test/run-realtime.ts';

const topic = topics.roomEvents;
const grownCount = 2 * partitionCount;
const keyWhere = (isFit: (key: string) => boolean): string => {
  for (let at = 0; ; at += 1) if (isFit(`room ${at}`)) return `room ${at}`;
};
/** A room whose facts stand in the new partition from now on, and one whose facts stay beside its older ones. */
const room = keyWhere((key) => partitionOf(key, grownCount) >= partitionCount);
const oldPartition = partitionOf(room, partitionCount);
const neighbour = keyWhere(
  (key) => partitionOf(key, partitionCount) === oldPartition && partitionOf(key, grownCount) === oldPartition,
);

let told = 0;
const fact = (type: string, subject: string, data: object) => {
  told += 1;
  return binary({ id: `f${told}`, type, subject, data });
};
const added = (subject: string, userId: string) => fact('member.added', subject, { userId, role: 'speaker' });
const removed = (userId: string) => fact('member.removed', room, { userId });
const membersOf = async ({ pool }: RebuiltDatabase): Promise<unknown[]> =>
  (await pool.query('select user_id, is_removed from members where room_id = $1', [room])).rows;

describeWith(['postgres'], 'realtime confirm-partitions', () => {
  let database: RebuiltDatabase;

  const run = (...args: string[]) => runRealtime({ DATABASE_URL: database.url }, 'confirm-partitions', ...args);
  const members = () => membersOf(database);
  const positions = async (): Promise<unknown[]> =>
    (
      await database.pool.query(
        `select partition_count, next_offset from log_positions where topic = $1 order by "partition"`,
        [topic],
      )
    ).rows;

  beforeEach(async () => {
    database = await startRebuiltDatabase();
    await database.append([fact('room.created', room, {})]);
    await database.caughtUp();
    await database.stopApplying();
  });
  afterEach(() => database.stop());

  const growTo = (count: number) =>
    database.pool.query(
      'insert into log_heads (topic, partition) select $1, p from generate_series($2::int, $3::int - 1) as p on conflict do nothing',
      [topic, partitionCount, count],
    );

  /** Behind a backlog in the old partition stands an addition; in the new one the removal. */
  const growBetween = async (): Promise<void> => {
    await growTo(grownCount);
    // It has counted the partitions before, as a producer has that does not know of the new ones yet.
    await database.append(Array.from({ length: 300 }, (_, at) => added(neighbour, `user ${at}`)));
    const [addition] = await database.append([added(room, 'mallory')]);
    expect(addition).toMatchObject({ partition: oldPartition });
    const producer = createEmbeddedLog({ pool: database.pool, writeLog: () => undefined });
    const [removal] = await producer.append([removed('mallory')], 5_000);
    await producer.close();
    expect(removal?.partition).toBeGreaterThanOrEqual(partitionCount);
  };

  test('applies what the partitions from before hold, and lets the room-workers begin with the new ones', async () => {
    await growBetween();
    const confirmed = await run(topic, '--yes');
    expect(confirmed).toMatchObject({ code: 0 });
    expect(confirmed.stderr).toContain('Applying 301 records that stand in the 4 partitions from before');
    expect(confirmed.stderr).toContain('is applied with 8 partitions');
    expect(await members()).toEqual([{ user_id: 'mallory', is_removed: false }]);
    database.startApplying();
    await database.caughtUp();
    expect(await members()).toEqual([{ user_id: 'mallory', is_removed: true }]);
    expect(await run(topic, '--yes')).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('nothing was changed'),
    });
  });

  test('asks about those who are inside, as the room-worker does', async () => {
    await database.pool.query(
      `insert into sessions (room_id, room_sid, participant_sid, identity, user_id, kind, is_hidden, is_live, joined_at, version, last_fact_at)
        values ($1, 'RM_1', 'PA_1', 'mallory', 'mallory', 'STANDARD', false, true, now(), 1, now())`,
      [room],
    );
    await growBetween();
    expect(await run(topic, '--yes')).toMatchObject({ code: 0 });
    const { rows } = await database.pool.query(`select cause from marks where room_id = $1 and identity = 'mallory'`, [
      room,
    ]);
    expect(rows).toEqual([{ cause: 'member.added' }]);
  });

  test('refuses a count by which keys have moved between the partitions from before', async () => {
    await growTo(partitionCount + 1);
    const before = await positions();
    const refused = await run(topic, '--yes');
    expect(refused).toMatchObject({ code: 1 });
    expect(refused.stderr).toContain('no multiple');
    expect(refused.stderr).toContain('Grow it on to 8');
    expect(await positions()).toEqual(before);
    expect(await run(topic, '--yes', '--accept-misplaced')).toMatchObject({ code: 0 });
    expect(await positions()).toHaveLength(partitionCount + 1);
  });

  test('has a reset refused, before and after it', async () => {
    await growTo(grownCount);
    const reset = (...args: string[]) => runRealtime({ DATABASE_URL: database.url }, 'reset', topic, '--yes', ...args);
    expect(await reset()).toMatchObject({ code: 1, stderr: expect.stringContaining('was applied with 4 once') });
    await run(topic, '--yes');
    expect(await reset()).toMatchObject({ code: 1, stderr: expect.stringContaining('was applied with 4 once') });
    expect(await reset('--accept-misplaced')).toMatchObject({ code: 0 });
    expect(await reset()).toMatchObject({ code: 1 });
  });

  test('changes nothing where the count is lower than the one that was known, or none was', async () => {
    const set = (count: number) =>
      database.pool.query('update log_positions set partition_count = $2 where topic = $1', [topic, count]);
    await set(7);
    const before = await positions();
    const fewer = await run(topic, '--yes');
    expect(fewer).toMatchObject({ code: 1 });
    expect(fewer.stderr).toContain('it is another topic, or another cluster');
    expect(await positions()).toEqual(before);
    await database.pool.query('delete from log_positions where topic = $1', [topic]);
    expect(await run(topic, '--yes')).toMatchObject({ code: 1, stderr: expect.stringContaining('nothing to confirm') });
  });

  test('asks first', async () => {
    await growBetween();
    const before = await positions();
    expect(await run(topic)).toMatchObject({ code: 2, stderr: expect.stringContaining('say --yes') });
    expect(await run('another.topic')).toMatchObject({ code: 2, stderr: expect.stringContaining('Say which topic') });
    expect(await positions()).toEqual(before);
  });
});

describeWith(['postgres', 'kafka'], 'realtime confirm-partitions, with Kafka', () => {
  test('waits for a transaction that is open, and applies what stands behind it', async () => {
    await using stack = new AsyncDisposableStack();
    const kafka = await startKafka();
    stack.defer(() => kafka.stop());
    await kafka.createTopics(consumedTopics.map((each) => ({ topic: each, partitions: partitionCount })));
    const database = await startRebuiltDatabase(() =>
      createKafkaLog({ brokers: kafka.brokers, clientId: 'test', writeLog: () => undefined }),
    );
    stack.defer(() => database.stop());
    await database.append([fact('room.created', room, {})]);
    await database.caughtUp();
    await database.stopApplying();

    const client = new kafkajs.Kafka({ brokers: [...kafka.brokers], logLevel: kafkajs.logLevel.NOTHING });
    const connected = async <T extends { connect: () => Promise<void>; disconnect: () => Promise<void> }>(part: T) => {
      await part.connect();
      stack.defer(() => part.disconnect());
      return part;
    };
    const messagesOf = ({ key, value, headers }: NewRecord, partition: number) => ({
      topic,
      messages: [{ key: key as string, value: value as Buffer, headers: { ...headers }, partition }],
    });
    const createPartitioner = kafkajs.Partitioners.DefaultPartitioner;
    const admin = await connected(client.admin());
    const transactional = await connected(
      client.producer({ createPartitioner, transactionalId: 'open', maxInFlightRequests: 1, idempotent: true }),
    );
    const producer = await connected(client.producer({ createPartitioner }));
    const transaction = await transactional.transaction();
    await transaction.send(messagesOf(fact('room.updated', room, { name: 'Open' }), oldPartition));
    await producer.send(messagesOf(added(room, 'mallory'), oldPartition));
    await admin.createPartitions({ topicPartitions: [{ topic, count: grownCount }] });

    const env = { DATABASE_URL: database.url, KAFKA_BROKERS: kafka.brokers.join(',') };
    let isOver = false;
    const confirming = runRealtime(env, 'confirm-partitions', topic, '--yes').finally(() => {
      isOver = true;
    });
    const heldFor = performance.now() + 20_000;
    await until('it has waited for long', async () => isOver || performance.now() > heldFor, 30_000);
    expect(isOver).toBe(false);
    await transaction.abort();
    const confirmed = await confirming;
    expect(confirmed).toMatchObject({ code: 0 });
    expect(confirmed.stderr).toContain(`A transaction is open in partition ${oldPartition}`);
    expect(await membersOf(database)).toEqual([{ user_id: 'mallory', is_removed: false }]);
  }, 120_000);
});
