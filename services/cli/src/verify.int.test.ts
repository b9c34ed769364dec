import { once } from 'node:events';
import { topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import type { Difference } from '@realtime-service/room-store';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { notingTerminal } from '../test/noting-terminal.ts';
import { appendHistory, binary, type RebuiltDatabase, startRebuiltDatabase } from '../test/rebuilt-database.ts';
import { runRealtime, startRealtime } from '../test/run-realtime.ts';
import { commands } from './commands.ts';
import { CliSettings } from './config.ts';
import { runCli } from './run-cli.ts';

const timeoutMs = 60_000;

describeWith(['postgres'], 'realtime verify', () => {
  let database: RebuiltDatabase;
  const verify = (...args: string[]) => runRealtime({ DATABASE_URL: database.url }, 'verify', ...args);

  beforeAll(async () => {
    database = await startRebuiltDatabase();
    await database.append([
      binary({ id: 'c', type: 'room.created', subject: 'room', data: { name: 'Room' } }),
      binary({ id: 'm', type: 'member.added', subject: 'room', data: { userId: 'ann', role: 'host' } }),
      binary({ id: 'b', type: 'member.banned', subject: 'room', data: { userId: 'ann', privilege: 'data' } }),
      binary({ id: 'u', type: 'user.disabled', subject: 'ann', data: { userId: 'ann' } }),
      binary({ id: 'l', type: 'login.ended', subject: 'ann', data: { userId: 'ann', sid: 'login' } }),
      binary({ id: 's', type: 'member.removed', subject: 'room', data: { userId: 7 } }),
    ]);
    await appendHistory(database, { seed: 21, count: 300 });
    await database.caughtUp();
  });
  afterAll(() => database.stop());

  test(
    'says so where tables and log agree',
    async () => {
      expect(await verify()).toMatchObject({ code: 0, stdout: 'The tables agree with the log: 306 events.\n' });
      expect(await verify('--json')).toMatchObject({
        code: 0,
        stdout: '{"events":306,"misplaced":0,"differences":0}\n',
      });
    },
    timeoutMs,
  );

  test('hears of a Ctrl-C that came while no log was read', async () => {
    const { terminal, told } = notingTerminal();
    const code = await runCli(commands, ['verify'], {
      terminal,
      ending: AbortSignal.abort(),
      readSettings: () => CliSettings.parse({ DATABASE_URL: database.url }),
    });
    expect({ code, out: told.out }).toEqual({ code: 1, out: '' });
    expect(told.err).toMatch(/Interrupted\.\n$/);
  });

  test(
    'does with as few connections as can be set',
    async () => {
      const few = { DATABASE_URL: database.url, DATABASE_MAX_CONNECTIONS: '2' };
      expect(await runRealtime(few, 'verify')).toMatchObject({ code: 0 });
    },
    timeoutMs,
  );

  test(
    'says why it waits where the log cannot be read, once',
    async () => {
      await database.pool.query('alter table log_records rename to away');
      const child = startRealtime({ DATABASE_URL: database.url }, 'verify');
      let told = '';
      for await (const text of child.stderr.setEncoding('utf8')) {
        told += text;
        if (told.includes('cannot be read')) child.kill('SIGINT');
      }
      await database.pool.query('alter table away rename to log_records');
      expect(told).toMatch(
        /^Partition 0: \d+ events\na partition of the embedded log cannot be read: relation "log_records" does not exist\nInterrupted\.\n$/,
      );
    },
    timeoutMs,
  );

  describe('where they differ', () => {
    const kept = ['rooms', 'members', 'bans', 'users', 'ended_logins', 'suspects', 'applied_facts', 'log_positions'];

    beforeEach(async () => {
      for (const name of kept) await database.pool.query(`create table kept_${name} as select * from ${name}`);
    });
    afterEach(async () => {
      for (const name of kept)
        await database.pool.query(
          `truncate ${name}; insert into ${name} select * from kept_${name}; drop table kept_${name}`,
        );
    });

    const roomKey = ['room'];
    const memberKey = ['room', 'ann'];
    const planted: readonly (readonly [title: string, sql: string, expected: Partial<Difference>])[] = [
      [
        'a row is missing',
        `delete from members where room_id = 'room' and user_id = 'ann'`,
        { kind: 'missing', table: 'members', key: memberKey },
      ],
      [
        'a row is too many',
        `insert into members select 'room', 'nobody', role, display_name, permissions, is_removed, event_id, topic, "partition", "offset", fact_at, sequence
          from members where room_id = 'room' and user_id = 'ann'`,
        { kind: 'extra', table: 'members', key: ['room', 'nobody'] },
      ],
      [
        'a row came by a partition that is none',
        `insert into members select 'room', 'nobody', role, display_name, permissions, is_removed, event_id, topic, 99, "offset", fact_at, sequence
          from members where room_id = 'room' and user_id = 'ann'`,
        { kind: 'extra', table: 'members', key: ['room', 'nobody'] },
      ],
      [
        'a field differs',
        `update members set role = 'listener' where room_id = 'room' and user_id = 'ann'`,
        { kind: 'differs', table: 'members', key: memberKey, field: 'role', stored: 'listener', folded: 'host' },
      ],
      [
        'a header differs',
        `update rooms set is_locked = true where room_id = 'room'`,
        { kind: 'differs', table: 'rooms', key: roomKey, field: 'is_locked', stored: 'true', folded: 'false' },
      ],
      [
        'an object differs',
        `update rooms set settings = '{"clientName": true}' where room_id = 'room'`,
        { table: 'rooms', field: 'settings', stored: '{"clientName":true}', folded: '{}' },
      ],
      [
        'a ban is lifted',
        `update bans set is_lifted = true where room_id = 'room'`,
        { table: 'bans', field: 'is_lifted' },
      ],
      [
        'a user is enabled',
        `update users set is_disabled = false where user_id = 'ann'`,
        { table: 'users', key: ['ann'], field: 'is_disabled' },
      ],
      [
        'an ended login is gone',
        `delete from ended_logins where user_id = 'ann'`,
        { kind: 'missing', table: 'ended_logins' },
      ],
      [
        'a doubt is healed',
        `update suspects set is_healed = true where room_id = 'room'`,
        { table: 'suspects', field: 'is_healed', stored: 'true', folded: 'false' },
      ],
      [
        'the provenance differs',
        `update members set "partition" = "partition" + 1 where room_id = 'room' and user_id = 'ann'`,
        { table: 'members', key: memberKey, field: 'partition' },
      ],
      [
        'the version differs',
        `update members set sequence = 5 where room_id = 'room' and user_id = 'ann'`,
        { table: 'members', key: memberKey, field: 'sequence', stored: '5', folded: null },
      ],
      [
        'the identity of a fact is missing',
        `delete from applied_facts where fact_key in (select min(fact_key) from applied_facts)`,
        { kind: 'missing', table: 'applied_facts' },
      ],
      [
        'the identity of a fact is too many',
        `insert into applied_facts select topic, "partition", '\\xff', max(recorded_at) from applied_facts where "partition" = 1 group by 1, 2`,
        { kind: 'extra', table: 'applied_facts' },
      ],
      [
        'an offset is behind',
        `update log_positions set next_offset = next_offset - 1 where "partition" = 0 and topic = '${topics.roomEvents}'`,
        { kind: 'extra', table: 'applied_facts' },
      ],
      [
        'an offset is ahead of the log',
        `update log_positions set next_offset = next_offset + 1 where "partition" = 0 and topic = '${topics.roomEvents}'`,
        { kind: 'differs', table: 'log_positions', field: 'next_offset' },
      ],
      [
        'a partition has no offset',
        `delete from log_positions where "partition" = 0`,
        { kind: 'missing', table: 'log_positions', key: [topics.roomEvents, '0'] },
      ],
    ];

    test.each(planted)(
      'since %s',
      async (_, sql, expected) => {
        expect((await database.pool.query(sql)).rowCount).toBeGreaterThan(0);
        const { code, stdout } = await verify('--json');
        expect(code).toBe(1);
        const lines = stdout
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line));
        expect(lines).toContainEqual(expect.objectContaining(expected));
        expect(lines.at(-1)).toMatchObject({ differences: lines.length - 1 });
      },
      timeoutMs,
    );

    test(
      'fails where its reader has seen enough: what is left cannot be told',
      async () => {
        await database.pool.query(`update applied_facts set recorded_at = recorded_at + interval '1 second'`);
        const child = startRealtime({ DATABASE_URL: database.url }, 'verify', '--json');
        child.stdout.once('data', () => child.stdout.destroy());
        expect(await once(child, 'exit')).toEqual([1, null]);
      },
      timeoutMs,
    );

    test(
      'tells people which row, which field, both values, and the facts behind them',
      async () => {
        await database.pool.query(`update members set role = 'listener' where room_id = 'room' and user_id = 'ann'`);
        const { code, stdout } = await verify();
        expect(code).toBe(1);
        expect(stdout).toMatch(
          /^members "room" "ann": role is "listener", by the log "host" \(changed by m realtime\.room-events\.v1\/\d\/\d+, by the log m realtime\.room-events\.v1\/\d\/\d+\)\n1 difference after 306 events\.\n$/,
        );
      },
      timeoutMs,
    );
  });
});
