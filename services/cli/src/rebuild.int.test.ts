import { consumedTopics, topics } from '@realtime-service/contracts';
import { startKafka, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { partitionOf } from '@realtime-service/event-log';
import { createKafkaLog } from '@realtime-service/event-log/kafka';
import { prepareRebuild, purge } from '@realtime-service/room-store';
import kafkajs from 'kafkajs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { notingTerminal } from '../test/noting-terminal.ts';
import { holdTables, startRebuild, startRebuildWith } from '../test/rebuilding.ts';
import {
  appendHistory,
  binary,
  partitionCount,
  type RebuiltDatabase,
  startRebuiltDatabase,
} from '../test/rebuilt-database.ts';
import { runRealtime } from '../test/run-realtime.ts';
import { CliSettings } from './config.ts';
import { verifyCommand } from './verify.ts';

const timeoutMs = 120_000;

describeWith(['postgres'], 'realtime rebuild', () => {
  let database: RebuiltDatabase;
  const rebuild = (...args: string[]) => runRealtime({ DATABASE_URL: database.url }, 'rebuild', ...args);
  const verify = () => runRealtime({ DATABASE_URL: database.url }, 'verify');

  beforeEach(async () => {
    database = await startRebuiltDatabase();
  });
  afterEach(() => database.stop());

  /** A set that is filled, and was not put in place. */
  const leaveUnfinished = async (): Promise<void> => {
    const held = await holdTables(database.pool);
    const first = startRebuild(database.url);
    await first.hasTold('The tables are in use');
    await first.end('SIGINT');
    await held.release();
  };

  const leaveSession = (identity: string): Promise<unknown> =>
    database.pool.query(
      `insert into sessions (room_id, room_sid, participant_sid, identity, user_id, kind, is_hidden, is_live, joined_at, version, last_fact_at)
        values ('room 1 ✓', 'RM_1', $1, $1::text, 'user/1', 'STANDARD', false, $1::text <> 'left', now(), 1, now())`,
      [identity],
    );

  describe('of a history', () => {
    test.each([1, 2, 3])(
      'makes the same bytes, whatever the tables held: seed %i',
      async (seed) => {
        await appendHistory(database, { seed, count: 1_200 });
        await database.caughtUp();
        await leaveSession('live');
        await leaveSession('left');
        const [state, kept] = [await database.state(), await database.kept()];
        expect(kept.filter((line) => line.startsWith('suspects')).length).toBeGreaterThan(0);
        expect(kept.filter((line) => line.startsWith('dead_letters')).length).toBeGreaterThan(5);
        await database.pool.query(`delete from marks; delete from members where user_id < 'user/4';
          update rooms set name = 'wrong'; delete from applied_facts where fact_key < '\\x80'`);
        expect(await database.state()).not.toEqual(state);

        const { code, stdout, stderr } = await rebuild('--json');
        expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
        expect(JSON.parse(stdout)).toMatchObject({ events: 1_200, marks: 1, wasResumed: false });
        expect(stdout).toMatch(/"heldMs":\d+(?:\.\d)?,/);
        expect(await database.state()).toEqual(state);
        expect(await database.kept()).toEqual(kept);
        const { rows: marks } = await database.pool.query('select room_id, identity, cause from marks');
        expect(marks).toEqual([{ room_id: 'room 1 ✓', identity: 'live', cause: 'rebuilt' }]);
        expect(await verify()).toMatchObject({ code: 0 });
      },
      timeoutMs,
    );

    test(
      'leaves tables that go on: facts that come later, migrations that name indexes, and another rebuild',
      async () => {
        await appendHistory(database, { seed: 4, count: 200 });
        await database.caughtUp();
        const shape = `select indexrelid::regclass::text as index, pg_get_indexdef(indexrelid) as definition from pg_index
          join pg_class on pg_class.oid = indrelid where relnamespace = 'public'::regnamespace
          union select conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace
            and contype <> 'n' order by 1, 2`;
        const before = (await database.pool.query(shape)).rows;
        await database.pool.query('grant select on members to pg_monitor');
        expect(await rebuild()).toMatchObject({ code: 0 });
        expect((await database.pool.query(shape)).rows).toEqual(before);
        const { rows } = await database.pool.query(
          `select has_table_privilege('pg_monitor', 'members', 'select') as may, (select reloptions from pg_class where oid = 'members'::regclass) as options`,
        );
        expect(rows).toEqual([{ may: true, options: null }]);
        await appendHistory(database, { seed: 5, count: 200 });
        await database.caughtUp();
        expect(await rebuild()).toMatchObject({ code: 0 });
        expect(await verify()).toMatchObject({ code: 0 });
      },
      timeoutMs,
    );

    test(
      'refuses records in other partitions than their keys give, since they have no order, unless it is told to take them',
      async () => {
        await appendHistory(database, { seed: 6, count: 200 });
        await database.caughtUp();
        const state = await database.state();
        await database.pool.query(
          `insert into log_heads (topic, "partition", next_offset) values ('realtime.room-events.v1', $1, 0)`,
          [partitionCount],
        );
        const refused = await rebuild();
        expect(refused.code).toBe(1);
        expect(refused.stderr).toContain('stands in another partition than its key gives');
        expect(await database.state()).toEqual(state);
        expect(await rebuild('--accept-misplaced')).toMatchObject({ code: 0 });
        expect(await database.state()).toEqual(state);

        await database.pool.query(`update members set role = 'host'`);
        const verified = await verify();
        expect(verified).toMatchObject({ code: 1 });
        expect(verified.stderr).toContain('stand in other partitions than their keys give');
      },
      timeoutMs,
    );

    test(
      'takes facts of one room that stand in two partitions one after the other',
      async () => {
        const partitionOfRoom = partitionOf('room', partitionCount);
        const elsewhere = ['a', 'b', 'c', 'd'].find((key) => partitionOf(key, partitionCount) !== partitionOfRoom);
        const facts = [
          binary({ id: 'c', type: 'room.created', subject: 'room', data: { name: 'Room' } }),
          { ...binary({ id: 'l', type: 'room.locked', subject: 'room', data: {} }), key: elsewhere ?? null },
        ];
        await database.stopApplying();
        await database.append(facts);
        await database.pool.query('update log_records set key = $1', [Buffer.from('room')]);
        database.startApplying();
        await database.caughtUp();

        await prepareRebuild(database.pool);
        // Whoever writes the room into the second set waits for this test.
        const holder = await database.pool.connect();
        await holder.query(
          `create function wait() returns trigger language plpgsql as
              'begin perform pg_advisory_xact_lock_shared(1); return new; end';
            create trigger wait before insert on realtime_rebuild.rooms for each row execute function wait();
            select pg_advisory_lock(1)`,
        );
        const running = startRebuild(database.url, '--accept-misplaced');
        const countWaiting = async (): Promise<number> => {
          const { rowCount } = await database.pool.query(
            `select from pg_locks join pg_database on pg_database.oid = database
              where locktype = 'advisory' and not granted and datname = current_database()`,
          );
          return rowCount ?? 0;
        };
        let mostAtOnce = 0;
        const countUntil = (what: string, isOver: () => boolean): Promise<boolean> =>
          until(
            what,
            async () => {
              mostAtOnce = Math.max(mostAtOnce, await countWaiting());
              return isOver();
            },
            60_000,
          );
        await countUntil('a lane waits', () => mostAtOnce > 0);
        const linesTold = (): number => running.told().split('events/s').length;
        const linesBefore = linesTold();
        await countUntil('two seconds pass, in which a second lane would come', () => linesTold() >= linesBefore + 2);
        holder.release(true);
        expect(mostAtOnce).toBe(1);
        expect(await running.ended).toEqual([0, null]);
        const { rows } = await database.pool.query('select name, is_locked from rooms');
        expect(rows).toEqual([{ name: 'Room', is_locked: true }]);
      },
      timeoutMs,
    );

    test(
      'refuses to take along what rests on the tables, when it begins and when it ends',
      async () => {
        await appendHistory(database, { seed: 14, count: 50 });
        await database.caughtUp();
        await database.pool.query(`create view hosts as select user_id from members where role = 'host';
          create table notes (room_id opaque_id references rooms);
          create trigger told before update on users for each row execute function suppress_redundant_updates_trigger();
          create function roles_of(members) returns text return $1.role`);
        const refused = await rebuild();
        expect(refused).toMatchObject({ code: 1 });
        expect(refused.stderr).toBe(
          'A rebuild would take along constraint notes_room_id_fkey on table notes, function roles_of(members), ' +
            'rule _RETURN on view hosts, trigger told on table users: drop them, and make them again afterwards\n',
        );
        expect((await database.pool.query(`select to_regnamespace('realtime_rebuild') as set`)).rows).toEqual([
          { set: null },
        ]);

        await database.pool.query(
          'drop view hosts; drop table notes; drop trigger told on users; drop function roles_of',
        );
        const held = await holdTables(database.pool);
        const running = startRebuild(database.url);
        await running.hasTold('The tables are in use');
        await database.pool.query('create view hosts as select user_id from members');
        await held.release();
        expect(await running.ended).toEqual([1, null]);
        expect(running.told()).toContain('would take along rule _RETURN on view hosts: ');
        await database.pool.query('drop view hosts');
        expect(await rebuild()).toMatchObject({ code: 0 });
      },
      timeoutMs,
    );

    test(
      'begins anew where one was killed when it had put its tables in place',
      async () => {
        await appendHistory(database, { seed: 7, count: 50 });
        await database.caughtUp();
        await database.pool.query('create schema realtime_rebuild');
        expect(await rebuild()).toMatchObject({ code: 0 });
      },
      timeoutMs,
    );

    test(
      'is done where the database goes away right after the swap, and the next one drops what was left behind',
      async () => {
        await appendHistory(database, { seed: 16, count: 50 });
        await database.caughtUp();
        await database.pool.query(
          `create function go_away() returns event_trigger language plpgsql as
              'begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(5); end';
            create event trigger away on sql_drop when tag in ('DROP SCHEMA') execute function go_away()`,
        );
        const { code, stdout, stderr } = await rebuild('--json');
        expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining('could not be dropped') });
        expect(JSON.parse(stdout)).toMatchObject({ events: 50, wasResumed: false });
        await database.pool.query('drop event trigger away');
        expect(await rebuild()).toMatchObject({ code: 0 });
        const { rows } = await database.pool.query(`select from pg_namespace where nspname like 'realtime%'`);
        expect(rows).toEqual([]);
      },
      timeoutMs,
    );

    test(
      'tells the same repeats, whenever the purge has run',
      async () => {
        const day = (days: number): Date => new Date(Date.UTC(2026, 0, 1) + days * 86_400_000);
        const at = partitionOf('room', partitionCount);
        // Added, removed, and the addition told again: within the week a repeat, later news.
        const facts: [id: string, type: string, userId: string, recordedAt: Date][] = [
          ['a', 'member.added', 'ann', day(0)],
          ['b', 'member.removed', 'ann', day(1)],
          ['a', 'member.added', 'ann', day(7)],
          ['c', 'member.added', 'bob', day(0)],
          ['d', 'member.removed', 'bob', day(2)],
          ['e', 'member.added', 'cleo', day(8)],
          ['c', 'member.added', 'bob', day(1)],
          ['c', 'member.added', 'bob', day(8)],
        ];
        const insert = async (
          [id, type, userId, recordedAt]: (typeof facts)[number],
          offset: number,
        ): Promise<void> => {
          const { key, value, headers } = binary({ id, type, subject: 'room', data: { userId, role: 'host' } });
          const encoded = Object.entries(headers).map(([name, text]) => [name, Buffer.from(text).toString('base64')]);
          await database.pool.query('insert into log_records values ($1, $2, $3, $4, $5, $6, $7)', [
            topics.roomEvents,
            at,
            offset,
            recordedAt,
            Buffer.from(String(key)),
            value,
            JSON.stringify(Object.fromEntries(encoded)),
          ]);
          await database.pool.query('update log_heads set next_offset = $3 where topic = $1 and partition = $2', [
            topics.roomEvents,
            at,
            offset + 1,
          ]);
          await database.caughtUp();
          await purge(database.pool);
        };
        for (const [offset, fact] of facts.entries()) await insert(fact, offset);
        const { rows } = await database.pool.query('select user_id, is_removed from members order by user_id');
        expect(rows).toEqual([
          { user_id: 'ann', is_removed: true },
          { user_id: 'bob', is_removed: false },
          { user_id: 'cleo', is_removed: false },
        ]);
        const state = (await database.state()).filter((line) => !line.startsWith('applied_facts'));
        expect(await rebuild()).toMatchObject({ code: 0 });
        await purge(database.pool);
        expect((await database.state()).filter((line) => !line.startsWith('applied_facts'))).toEqual(state);
        expect(await verify()).toMatchObject({ code: 0 });
      },
      timeoutMs,
    );
  });

  describe('that is interrupted', () => {
    test.each([['SIGINT', 1] as const, ['SIGKILL', null] as const])(
      'by %s goes on where it was',
      async (signal, code) => {
        await appendHistory(database, { seed: 6, count: 600 });
        await database.caughtUp();
        const state = await database.state();
        const held = await holdTables(database.pool);
        const first = startRebuild(database.url);
        await first.hasTold('The tables are in use by test');
        expect(await first.end(signal)).toBe(code);
        if (signal === 'SIGINT') expect(first.told()).toContain('call it again to go on');
        expect(await database.state()).toEqual(state);
        await appendHistory(database, { seed: 7, count: 100 });
        await database.caughtUp();
        const later = await database.state();
        await held.release();
        const { code: ended, stdout } = await rebuild('--json');
        expect(ended).toBe(0);
        expect(JSON.parse(stdout)).toMatchObject({ wasResumed: true, events: 100 });
        expect(await database.state()).toEqual(later);
        const { rows } = await database.pool.query(
          `select nspname from pg_namespace where nspname like 'realtime%' union all
            select projection from log_positions where projection <> 'active' union all select holder from duties`,
        );
        expect(rows).toEqual([]);
      },
      timeoutMs,
    );

    test(
      'is given up by --restart',
      async () => {
        await appendHistory(database, { seed: 8, count: 100 });
        await database.caughtUp();
        await leaveUnfinished();
        // What it wrote is not trusted any more.
        await database.pool.query(`update realtime_rebuild.members set role = 'host'`);
        const { code, stdout } = await rebuild('--restart', '--json');
        expect(code).toBe(0);
        expect(JSON.parse(stdout)).toMatchObject({ wasResumed: false, events: 100 });
        expect(await verify()).toMatchObject({ code: 0 });
      },
      timeoutMs,
    );

    test(
      'does not go on over another log, nor puts a set that was made from it in the place of the tables',
      async () => {
        await appendHistory(database, { seed: 12, count: 200 });
        await database.caughtUp();
        await leaveUnfinished();
        await appendHistory(database, { seed: 13, count: 100 });
        await database.caughtUp();
        // The same records, but not the ones that were applied.
        await database.pool.query(`update log_records set appended_at = appended_at + interval '1 hour'`);
        const state = await database.state();
        const resumed = await rebuild();
        expect(resumed).toMatchObject({ code: 1 });
        expect(resumed.stderr).toMatch(/ now: it is another log\. Begin anew with --restart\n$/);
        expect(await database.state()).toEqual(state);

        const anew = await rebuild('--restart');
        expect(anew).toMatchObject({ code: 1 });
        expect(anew.stderr).toContain(
          'it is another log. To have it read anew: realtime reset realtime.room-events.v1',
        );
        expect(await database.state()).toEqual(state);
      },
      timeoutMs,
    );

    test(
      'is refused after a migration, and while another one runs',
      async () => {
        await appendHistory(database, { seed: 9, count: 50 });
        await database.caughtUp();
        const held = await holdTables(database.pool);
        const first = startRebuild(database.url);
        await first.hasTold('The tables are in use');
        const second = await rebuild();
        expect(second).toMatchObject({ code: 1 });
        expect(second.stderr).toContain('Another rebuild, reset or confirm-partitions is running.');
        await first.end('SIGINT');
        await held.release();
        await database.pool.query('alter table rooms add column topic_of_the_day text');
        const third = await rebuild();
        expect(third).toMatchObject({ code: 1 });
        expect(third.stderr).toContain('--restart');
        expect(await rebuild('--restart')).toMatchObject({ code: 0 });
      },
      timeoutMs,
    );
  });

  test(
    'waits for a verify that has not come to the tables yet, and that agrees',
    async () => {
      await appendHistory(database, { seed: 15, count: 300 });
      await database.caughtUp();
      const rebuilding = Promise.withResolvers<ReturnType<typeof startRebuild>>();
      const bounds = async (topic: string) => {
        const running = startRebuild(database.url);
        await running.hasTold('The tables are in use by test');
        rebuilding.resolve(running);
        return database.log.bounds(topic);
      };
      const { terminal, told } = notingTerminal();
      const outcome = await verifyCommand.run([], () => ({
        settings: CliSettings.parse({ DATABASE_URL: database.url }),
        pool: database.pool,
        log: async () => ({ ...database.log, bounds }),
        terminal,
        ending: new AbortController().signal,
      }));
      expect({ outcome, out: told.out }).toEqual({
        outcome: 'done',
        out: 'The tables agree with the log: 300 events.\n',
      });
      expect(await (await rebuilding.promise).ended).toEqual([0, null]);
      expect(await verify()).toMatchObject({ code: 0 });
    },
    timeoutMs,
  );

  describe('called wrongly', () => {
    test('says what is wrong with its options', async () => {
      expect(await rebuild('--threads', '0')).toMatchObject({ code: 2 });
      expect(await rebuild('--thread', '2')).toMatchObject({ code: 2 });
      expect(await rebuild('now')).toMatchObject({ code: 2 });
    });

    test('refuses a log that is not the one that was applied', async () => {
      await database.append([binary({ id: 'c', type: 'room.created', subject: 'room', data: {} })]);
      await database.caughtUp();
      await database.pool.query('update log_positions set next_offset = 99');
      const { code, stderr } = await rebuild();
      expect(code).toBe(1);
      expect(stderr).toContain('it is another log. To have it read anew: realtime reset realtime.room-events.v1');
    });

    test.each(['rebuild', 'verify'])('%s refuses tables from before, and leaves nothing behind', async (command) => {
      await database.append([binary({ id: 'c', type: 'room.created', subject: 'room', data: {} })]);
      await database.caughtUp();
      await database.pool.query('alter table rooms rename decided to not_yet');
      expect(await runRealtime({ DATABASE_URL: database.url }, command)).toMatchObject({
        code: 1,
        stdout: '',
        stderr: expect.stringMatching(
          /(?:^|\n)The database has not the tables of this version: start the room-worker once\n$/,
        ),
      });
      const { rows } = await database.pool.query(`select to_regnamespace('realtime_rebuild') as left_behind`);
      expect(rows).toEqual([{ left_behind: null }]);
    });

    test('refuses a database that no worker has worked on', async () => {
      await database.pool.query('delete from log_positions');
      const { code, stderr } = await rebuild();
      expect(code).toBe(1);
      expect(stderr).toContain('No room-worker has worked on this database yet');
    });
  });
});

describeWith(['postgres', 'kafka'], 'realtime rebuild, on Kafka', () => {
  test(
    "makes the same bytes beside another database's rebuild, is verified by two at once, refuses a lost beginning",
    async () => {
      const kafka = await startKafka();
      await kafka.createTopics(consumedTopics.map((topic) => ({ topic, partitions: partitionCount })));
      const openLog = () => createKafkaLog({ brokers: kafka.brokers, clientId: 'test', writeLog: () => undefined });
      const [database, other] = await Promise.all([startRebuiltDatabase(openLog), startRebuiltDatabase(openLog)]);
      const env = { DATABASE_URL: database.url, KAFKA_BROKERS: kafka.brokers.join(',') };
      await appendHistory(database, { seed: 11, count: 1_500 });
      await Promise.all([database.caughtUp(), other.caughtUp()]);
      const state = await database.state();
      await database.pool.query('delete from members');
      const { release } = await holdTables(other.pool);
      const otherRebuild = startRebuildWith({ ...env, DATABASE_URL: other.url });
      await otherRebuild.hasTold('The tables are in use');
      expect(await runRealtime(env, 'rebuild')).toMatchObject({ code: 0 });
      await release();
      expect(await otherRebuild.ended).toEqual([0, null]);
      await other.stop();
      expect(await database.state()).toEqual(state);
      const verified = await Promise.all([runRealtime(env, 'verify'), runRealtime(env, 'verify')]);
      expect(verified).toMatchObject([{ code: 0 }, { code: 0 }]);

      const partition = (await database.log.bounds(topics.roomEvents)).find(({ high }) => high > 5n)?.partition ?? 0;
      const admin = new kafkajs.Kafka({ brokers: [...kafka.brokers], logLevel: kafkajs.logLevel.NOTHING }).admin();
      await admin.connect();
      // Also loads what kafkajs needs to know of the topic.
      await admin.fetchTopicOffsets(topics.roomEvents);
      await admin.deleteTopicRecords({ topic: topics.roomEvents, partitions: [{ partition, offset: '5' }] });
      await admin.disconnect();
      const refused = await runRealtime(env, 'rebuild');
      expect(refused).toMatchObject({ code: 1 });
      expect(refused.stderr).toContain('begins at offset 5');
      expect(await database.state()).toEqual(state);
      await database.stop();
      await kafka.stop();
    },
    timeoutMs * 2,
  );
});
