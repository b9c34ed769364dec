import { topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { createEmbeddedLog, partitionOf } from '@realtime-service/event-log';
import { confirmPartitions } from '@realtime-service/room-store';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { binary, partitionCount, type RebuiltDatabase, startRebuiltDatabase } from '../test/rebuilt-database.ts';
import { runRealtime } from '../test/run-realtime.ts';

const topic = topics.roomEvents;
const grownCount = partitionCount + 1;
const keyWhere = (isFit: (key: string) => boolean): string => {
  for (let at = 0; ; at += 1) if (isFit(`room ${at}`)) return `room ${at}`;
};
/** A room whose facts stand in the new partition from now on, and one whose facts stay beside its older ones. */
const room = keyWhere((key) => partitionOf(key, grownCount) === partitionCount);
const oldPartition = partitionOf(room, partitionCount);
const neighbour = keyWhere(
  (key) => partitionOf(key, partitionCount) === oldPartition && partitionOf(key, grownCount) === oldPartition,
);

describeWith(['postgres'], 'realtime confirm-partitions', () => {
  let database: RebuiltDatabase;
  let told = 0;

  const run = (...args: string[]) => runRealtime({ DATABASE_URL: database.url }, 'confirm-partitions', ...args);
  const fact = (type: string, subject: string, data: object) => {
    told += 1;
    return binary({ id: `f${told}`, type, subject, data });
  };
  const added = (subject: string, userId: string) => fact('member.added', subject, { userId, role: 'speaker' });
  const members = async (): Promise<unknown[]> =>
    (await database.pool.query('select user_id, is_removed from members where room_id = $1', [room])).rows;
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

  /** Behind a backlog in the old partition stands an addition; in the new one the removal. */
  const growBetween = async (): Promise<void> => {
    await database.pool.query('insert into log_heads (topic, partition) values ($1, $2)', [topic, partitionCount]);
    // It has counted the partitions before, as a producer has that does not know of the new one yet.
    await database.append(Array.from({ length: 300 }, (_, at) => added(neighbour, `user ${at}`)));
    const [addition] = await database.append([added(room, 'mallory')]);
    expect(addition).toMatchObject({ partition: oldPartition });
    const producer = createEmbeddedLog({ pool: database.pool, writeLog: () => undefined });
    const [removal] = await producer.append([fact('member.removed', room, { userId: 'mallory' })], 5_000);
    await producer.close();
    expect(removal).toMatchObject({ partition: partitionCount });
  };

  test('has what the partitions from before hold applied before the new ones', async () => {
    await growBetween();
    const confirmed = await run(topic, '--yes');
    expect(confirmed).toMatchObject({ code: 0 });
    expect(confirmed.stderr).toContain('is applied with 5 partitions');
    database.startApplying();
    await database.caughtUp();
    expect(await members()).toEqual([{ user_id: 'mallory', is_removed: true }]);
  });

  test('so does a reset of the topic afterwards, and a topic that is grown once more', async () => {
    await growBetween();
    await run(topic, '--yes');
    await database.pool.query('insert into log_heads (topic, partition) values ($1, $2)', [topic, grownCount]);
    expect(await run(topic, '--yes')).toMatchObject({ code: 0 });
    expect(await runRealtime({ DATABASE_URL: database.url }, 'reset', topic, '--yes')).toMatchObject({ code: 0 });
    database.startApplying();
    await database.caughtUp();
    expect(await members()).toEqual([{ user_id: 'mallory', is_removed: true }]);
  });

  test('changes nothing where the count is the one that was known, or a lower one', async () => {
    const before = await positions();
    const same = await run(topic, '--yes');
    expect(same).toMatchObject({ code: 0 });
    expect(same.stderr).toContain('nothing was changed');
    await database.pool.query('update log_positions set partition_count = 7 where topic = $1', [topic]);
    const fewer = await run(topic, '--yes');
    expect(fewer).toMatchObject({ code: 1 });
    expect(fewer.stderr).toContain('it is another topic, or another cluster');
    await database.pool.query('update log_positions set partition_count = $2 where topic = $1', [
      topic,
      partitionCount,
    ]);
    expect(await positions()).toEqual(before);
    expect(await confirmPartitions(database.pool, 'never.applied', new Map([[0, 0n]]))).toBe(0);
  });

  test('asks first', async () => {
    await growBetween();
    const before = await positions();
    expect(await run(topic)).toMatchObject({ code: 2, stderr: expect.stringContaining('say --yes') });
    expect(await run('another.topic')).toMatchObject({ code: 2, stderr: expect.stringContaining('Say which topic') });
    expect(await positions()).toEqual(before);
  });
});
