import { setTimeout as delay } from 'node:timers/promises';
import { readRecord, topics } from '@realtime-service/contracts';
import { startFaultProxy, until } from '@realtime-service/dev-stack';
import { describeWith, realParts } from '@realtime-service/dev-stack/vitest';
import { type NewRecord, partitionOf } from '@realtime-service/event-log';
import { createPool } from '@realtime-service/room-store';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { roomRecord, startProjection, type TestProjection } from '../../room-worker/test/projection.ts';
import { partitionCount } from '../../room-worker/test/records.ts';
import { notingTerminal } from '../test/noting-terminal.ts';
import { type Ended, runRealtime } from '../test/run-realtime.ts';
import { commands } from './commands.ts';
import { CliSettings } from './config.ts';
import { runCli } from './run-cli.ts';

const room = 'room-42';
const at = (offset: number, roomId = room): string =>
  `${topics.roomEvents}/${partitionOf(roomId, partitionCount)}/${offset}`;

describe('without a database', () => {
  test('help needs no settings; all that are wrong are named at once, without their values', async () => {
    expect(await runRealtime({}, 'dead-letters', 'list', '--help')).toMatchObject({ code: 0, stderr: '' });
    const wrong = await runRealtime(
      { DATABASE_URL: 'mysql://private', KAFKA_BROKERS: 'private' },
      'dead-letters',
      'list',
    );
    expect(wrong).toMatchObject({ code: 2, stdout: '' });
    for (const name of ['DATABASE_URL', 'KAFKA_BROKERS']) expect(wrong.stderr).toMatch(new RegExp(`^  ${name}: `, 'm'));
    expect(wrong.stderr).not.toContain('private');
  });

  test('one that is away is told in a line', async () => {
    const away = await runRealtime({ DATABASE_URL: 'postgres://ann:hunter2@127.0.0.1:1/x' }, 'dead-letters', 'list');
    expect(away).toEqual({ code: 1, stdout: '', stderr: 'Failed: connect ECONNREFUSED 127.0.0.1:1\n' });
  });
});

describeWith(['postgres'], 'realtime dead-letters', () => {
  let parts: TestProjection;

  beforeEach(async () => {
    parts = await startProjection();
    parts.consume();
  });
  afterEach(() => parts.stop());

  const tell = (...records: readonly NewRecord[]): Promise<void> => parts.tell(...records);
  const realtime = (...args: readonly string[]): Promise<Ended> =>
    runRealtime({ DATABASE_URL: parts.url }, 'dead-letters', ...args);
  /** The same, in this process and at a terminal where somebody answers. */
  const atTerminal = async (answer: () => string | Promise<string>, ...args: readonly string[]) => {
    const { terminal, told } = notingTerminal();
    const questions: string[] = [];
    const ask = async (question: string): Promise<string> => {
      questions.push(question);
      return answer();
    };
    const code = await runCli(commands, ['dead-letters', ...args], {
      terminal: { ...terminal, isInteractive: true, ask },
      ending: new AbortController().signal,
      readSettings: () => CliSettings.parse({ DATABASE_URL: parts.url }),
    });
    return { ...told, code, questions };
  };

  const created = (roomId = room): NewRecord =>
    roomRecord(['room.created', roomId, { members: ['ann', 'bob'].map((userId) => ({ userId, role: 'speaker' })) }]);
  const lost = (userId: string, roomId = room): NewRecord =>
    roomRecord(['member.banned', roomId, { userId, privilege: 'join', until: 'soon' }]);
  const enter = (userId: string, roomId = room) => parts.ask('enter', roomId, userId);
  const appended = async (): Promise<number> =>
    (await parts.pool.query(`select count(*)::int as n from log_records where topic = $1`, [topics.roomEvents])).rows[0]
      .n;
  const linesOf = (text: string): string[] => text.split('\n').filter((line) => line !== '');
  const positionsIn = ({ stdout }: Ended): string[] =>
    linesOf(stdout)
      .slice(1)
      .map((line) => line.split(/ +/)[0] as string);

  describe('list', () => {
    test('of none says so', async () => {
      expect(await realtime('list')).toEqual({ code: 0, stdout: '', stderr: 'No dead letters.\n' });
    });

    test('has pages, in the order of positions', async () => {
      await tell(created(), ...Array.from({ length: 5 }, () => lost('ann')));
      const first = await realtime('list', '--limit', '2');
      expect(positionsIn(first)).toEqual([at(1), at(2)]);
      expect(first.stderr).toBe(`There are more: --after ${at(2)}\n`);
      const rest = await realtime('list', '--limit', '3', '--after', at(2));
      expect(positionsIn(rest)).toEqual([at(3), at(4), at(5)]);
      expect(rest).toMatchObject({ code: 0, stderr: '' });
    });

    test('takes conditions', async () => {
      const misplaced = { ...lost('ann', 'other'), key: room };
      await tell(created(), lost('ann'), { ...lost('bob'), value: Buffer.from('{') }, misplaced);
      await parts.pool.query(`update dead_letters set recorded_at = '2026-03-01T10:00:00Z' where "offset" = 1`);
      const found = async (...where: string[]) =>
        positionsIn(await realtime('list', ...where.flatMap((each) => ['--where', each])));
      expect(await found('reason=not_json')).toEqual([at(2)]);
      expect(await found('reason=not_json', 'reason=invalid_data')).toEqual([at(1), at(2)]);
      expect(await found('room=other')).toEqual([at(3)]);
      expect(await found(`key=${room}`)).toEqual([at(1), at(2), at(3)]);
      expect(await found(`room=${room}`, 'type=member.banned')).toEqual([at(1), at(2)]);
      expect(await found('since=1h')).toEqual([at(2), at(3)]);
      expect(await found('until=2026-03-01T10:00:01Z')).toEqual([at(1)]);
      expect(await found('until=2026-03-01T10:00:00Z')).toEqual([]);
      expect(await found('status=discarded')).toEqual([]);
      expect(await found(`topic=${topics.livekitWebhooks}`)).toEqual([]);
    });

    test('as JSON has a letter a line', async () => {
      await tell(created(), lost('ann'), lost('bob'));
      const { stdout } = await realtime('list', '--json');
      expect(linesOf(stdout).map((line) => JSON.parse(line))).toEqual(
        [1, 2].map((offset) => ({
          position: at(offset),
          recordedAt: expect.stringMatching(/^\d{4}-.*Z$/),
          status: 'open',
          reason: 'invalid_data',
          message: expect.stringContaining('/data/until'),
          type: 'member.banned',
          room,
          key: room,
          isPublished: false,
          settledBy: null,
        })),
      );
    });

    test('lets nobody move the terminal', async () => {
      const roomId = 'room \u001b[2J\u202e';
      await tell({ ...lost('ann', roomId), value: Buffer.from('{') });
      const { stdout } = await realtime('list');
      expect(stdout).toContain('room \\u{1b}[2J\\u{202e}');
      expect(stdout).not.toContain('\u001b');
    });
  });

  describe('show', () => {
    test('tells all that is known, without secrets', async () => {
      const record = lost('ann');
      await tell(created(), {
        ...record,
        value: Buffer.from('{"userId":"ann", "password": "hunter2"'),
        headers: { ...record.headers, authorization: 'Basic aHVudGVyMg==', 'x-bytes': Buffer.from([0xff]) },
      });
      const { code, stdout, stderr } = await realtime('show', at(1));
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      for (const line of [
        `position   ${at(1)}`,
        'status     open',
        'reason     not_json',
        'type       member.banned',
        `key        ${room}`,
        '  ce_type: member.banned',
        '  x-bytes: 00000000  ff',
        'value, 38 bytes:',
        '"userId":"ann"',
      ])
        expect(stdout).toContain(line);
      expect(stdout).not.toMatch(/hunter2|aHVudGVyMg/);
    });

    test('as JSON, with bytes that are no text as hexadecimal', async () => {
      await tell({ ...lost('ann'), key: null, value: Buffer.from([0xff, 0x00]) });
      const { stdout } = await realtime('show', `${topics.roomEvents}/0/0`, '--json', '--bytes', '1');
      expect(JSON.parse(stdout)).toMatchObject({
        position: `${topics.roomEvents}/0/0`,
        reason: 'not_utf8',
        key: null,
        headers: { ce_type: { text: 'm', isCut: true } },
        value: { hex: 'ff', isCut: true },
      });
    });

    test('of an unknown position answers 3', async () => {
      expect(await realtime('show', at(7))).toEqual({
        code: 3,
        stdout: '',
        stderr: `There is no dead letter at ${at(7)}.\n`,
      });
    });
  });

  describe('discard', () => {
    test('of one ends its doubt and no other, by a record of the log that is keyed by its room', async () => {
      await tell(created(), lost('ann'), lost('bob'));
      const done = await realtime('discard', at(1), '--yes');
      expect(done).toEqual({ code: 0, stdout: '', stderr: '1 dead letter discarded.\n' });
      expect([await enter('ann'), await enter('bob')]).toEqual(['allow', 'suspect']);
      const { rows } = await parts.pool.query(
        `select key, value, headers from log_records where topic = $1 and "offset" = 3`,
        [topics.roomEvents],
      );
      const headers = Object.fromEntries(
        Object.entries(rows[0].headers as Record<string, string>).map(([name, text]) => [
          name,
          Buffer.from(text, 'base64'),
        ]),
      );
      expect(rows[0].key.toString()).toBe(room);
      expect(readRecord({ value: rows[0].value, headers })).toMatchObject({
        kind: 'event',
        event: {
          context: { type: 'dead_letter.discarded', subject: room, source: '/operators/realtime-cli' },
          data: { topic: topics.roomEvents, partition: partitionOf(room, partitionCount), offset: '1' },
        },
      });
      expect(await realtime('show', at(1))).toMatchObject({
        stdout: expect.stringContaining(`settled by  ${at(3)} at `),
      });
    });

    test('of all that match: each room in its order, letters that come later untouched', async () => {
      const rooms = ['one', 'two', 'three'];
      await tell(...rooms.flatMap((each) => [created(each), lost('ann', each), lost('ann', each)]), lost('bob', 'one'));
      const asked = await atTerminal(() => 'y', 'discard', '--where', 'room=one', '--where', 'room=two', '--json');
      expect(asked.questions).toEqual(['Really discard 5 dead letters (5 invalid_data)? [y/N] ']);
      expect(asked).toMatchObject({ code: 0, err: '5 dead letters discarded.\n' });
      expect(new Set(linesOf(asked.out).map((line) => JSON.parse(line).status))).toEqual(new Set(['discarded']));
      for (const [each, then] of [
        ['one', 'allow'],
        ['two', 'allow'],
        ['three', 'suspect'],
      ] as const)
        expect(await enter('ann', each)).toBe(then);
    });

    test.each(['', 'n', 'no', 'yesterday'])('is not done on the answer %j', async (answer) => {
      await tell(created(), lost('ann'));
      const before = await appended();
      expect(await atTerminal(() => answer, 'discard', at(1))).toMatchObject({ code: 1, err: 'Nothing was done.\n' });
      expect(await appended()).toBe(before);
      expect(await enter('ann')).toBe('suspect');
    });

    test('is refused where nobody can be asked, and by --dry-run only told', async () => {
      await tell(created(), lost('ann'));
      const before = await appended();
      const refused = await realtime('discard', '--where', 'reason=invalid_data');
      expect(refused).toMatchObject({ code: 2, stdout: '' });
      expect(refused.stderr).toContain(
        'To discard 1 dead letter (1 invalid_data) without a terminal to ask at, say --yes',
      );
      const dry = await realtime('discard', '--where', 'reason=invalid_data', '--dry-run');
      expect(dry).toMatchObject({ code: 0, stderr: 'Would discard 1 dead letter.\n' });
      expect(positionsIn(dry)).toEqual([at(1)]);
      expect(await appended()).toBe(before);
    });

    test('of what somebody else has had read meanwhile says that', async () => {
      await tell(created(), lost('ann'));
      await parts.pool.query(`update dead_letters set value = '{"userId":"ann","privilege":"join"}'`);
      const between = async (): Promise<string> => {
        await realtime('retry', at(1), '--yes');
        return 'y';
      };
      const late = await atTerminal(between, 'discard', at(1));
      expect(late).toMatchObject({
        code: 1,
        err: '0 dead letters discarded.\n1 had been settled meanwhile (1 retried).\n',
      });
      expect(await enter('ann')).toBe('banned');
    });

    test('of what is not there, or settled already, answers 3', async () => {
      await tell(created(), lost('ann'));
      await realtime('discard', at(1), '--yes');
      const before = await appended();
      const none = await realtime('discard', at(1), at(9), '--yes');
      expect(none.code).toBe(3);
      expect(none.stderr).toBe(
        `${at(1)} is discarded already: nothing to discard.\nThere is no dead letter at ${at(9)}.\n`,
      );
      expect(await realtime('discard', '--where', 'type=member.removed', '--yes')).toMatchObject({
        code: 3,
        stderr: 'No dead letter matches.\n',
      });
      expect(await appended()).toBe(before);
    });

    test('takes so many at most, and says so', async () => {
      await tell(created(), lost('ann'), lost('ann'), lost('bob'));
      const some = await realtime('discard', '--where', `room=${room}`, '--limit', '2', '--yes');
      expect(some).toMatchObject({ code: 0 });
      expect(some.stderr).toBe('More than 2 match: these are the first 2.\n2 dead letters discarded.\n');
      expect([await enter('ann'), await enter('bob')]).toEqual(['allow', 'suspect']);
    });
  });

  describe('retry', () => {
    test('applies what can be read by now, and answers 1 while something cannot', async () => {
      await tell(created(), lost('ann'), lost('bob'));
      await parts.pool.query(
        `update dead_letters set value = '{"userId":"ann","privilege":"join"}' where "offset" = 1`,
      );
      const half = await realtime('retry', '--where', `room=${room}`, '--yes');
      expect(half).toEqual({
        code: 1,
        stdout: '',
        stderr: '1 dead letter retried.\n1 cannot be read still (1 invalid_data).\n',
      });
      expect([await enter('ann'), await enter('bob')]).toEqual(['banned', 'suspect']);
      await parts.pool.query(
        `update dead_letters set value = '{"userId":"bob","privilege":"join"}' where "offset" = 2`,
      );
      expect(await realtime('retry', at(2), '--yes')).toMatchObject({ code: 0, stderr: '1 dead letter retried.\n' });
      expect(await enter('bob')).toBe('banned');
    });

    test('of what was discarded by mistake', async () => {
      await tell(created(), lost('ann'));
      await realtime('discard', at(1), '--yes');
      await parts.pool.query(`update dead_letters set value = '{"userId":"ann","privilege":"join"}'`);
      const back = await realtime('retry', '--where', 'status=discarded', '--yes');
      expect(back).toMatchObject({ code: 0, stderr: '1 dead letter retried.\n' });
      expect(await enter('ann')).toBe('banned');
    });

    test('of what was discarded, and cannot be read still, says that, and changes nothing', async () => {
      await tell(created(), lost('ann'));
      await realtime('discard', at(1), '--yes');
      expect(await realtime('retry', at(1), '--yes')).toMatchObject({
        code: 1,
        stderr: '0 dead letters retried.\n1 cannot be read still (1 invalid_data).\n',
      });
      expect(await realtime('list', '--where', 'status=discarded')).toMatchObject({
        stdout: expect.stringContaining(at(1)),
      });
      expect(await enter('ann')).toBe('allow');
    });

    test('of a letter without a key', async () => {
      await tell(created(), { ...lost('ann'), key: null, value: Buffer.from('{') });
      const tried = await realtime('retry', `${topics.roomEvents}/0/0`, '--yes');
      expect(tried).toMatchObject({
        code: 1,
        stderr: '0 dead letters retried.\n1 cannot be read still (1 not_json).\n',
      });
      expect((await parts.pool.query('select from rooms')).rowCount).toBe(1);
    });
  });

  describe('what is away', () => {
    /** A letter that can be read by now is retried, and the database goes away as soon as the log has the action. */
    const retryAndLose = async (waitSeconds: number) => {
      await tell(created(), lost('ann'));
      await parts.pool.query(`update dead_letters set value = '{"userId":"ann","privilege":"join"}'`);
      const before = await appended();
      const proxy = await startFaultProxy(realParts(['postgres']).postgres.port);
      const through = new URL(parts.url);
      through.port = String(proxy.port);
      // Nothing is applied meanwhile.
      const holder = await parts.pool.connect();
      await holder.query('begin; select from log_positions for update');
      const retry = ['dead-letters', 'retry', at(1), '--yes', '--wait', `${waitSeconds}`];
      const ended = runRealtime({ DATABASE_URL: through.href }, ...retry);
      await until('the log has the action', async () => (await appended()) > before);
      const { rows } = await parts.pool.query('select clock_timestamp() as then');
      const looks = `select from pg_stat_activity where datname = current_database()
        and application_name = 'realtime-cli' and query_start > $1 and query not like 'notify%'`;
      await until('it knows so', async () => (await parts.pool.query(looks, [rows[0].then])).rowCount !== 0);
      await proxy.cut();
      await holder.query('commit');
      holder.release();
      return { ended, proxy };
    };

    test('a room-worker: the action stands in the log, and is said not to be applied', async () => {
      await tell(created(), lost('ann'));
      await parts.stop();
      const pool = createPool({ url: parts.url, maxConnections: 2, applicationName: 'test', onError: () => undefined });
      const readings = async (): Promise<number> =>
        (await pool.query(`select idx_scan::int as n from pg_stat_user_tables where relname = 'dead_letters'`)).rows[0]
          .n;
      try {
        const before = await readings();
        const late = await realtime('discard', at(1), '--yes', '--wait', '1');
        expect(late).toMatchObject({ code: 1 });
        // There may be thousands: they are read before and after, and not ten times while it waits.
        expect((await readings()) - before).toBeLessThan(5);
        expect(late.stderr).toBe('Asked to discard 1 dead letter, but the room-worker has not come that far yet.\n');
        const asked = await realtime('discard', at(1), '--yes', '--wait', '0');
        expect(asked).toMatchObject({ code: 0, stderr: 'Asked to discard 1 dead letter.\n' });
        const asJson = await realtime('retry', at(1), '--yes', '--wait', '0', '--json');
        expect(asJson).toMatchObject({ code: 0, stderr: 'Asked to retry 1 dead letter.\n' });
        expect(JSON.parse(asJson.stdout)).toMatchObject({ position: at(1), status: 'open' });
        const { rows } = await pool.query(`select count(*)::int as n from log_records where topic = $1`, [
          topics.roomEvents,
        ]);
        expect(rows[0].n).toBe(5);
      } finally {
        await pool.end();
        parts = await startProjection();
      }
    });

    test('the database, for a second: what came of the action is found out all the same', async () => {
      const { ended, proxy } = await retryAndLose(30);
      await delay(1_000);
      await proxy.heal();
      expect(await ended).toEqual({ code: 0, stdout: '', stderr: '1 dead letter retried.\n' });
      await proxy.stop();
    });

    test('the database, for longer: it is said what was done, and what is not known', async () => {
      const { ended } = await retryAndLose(1);
      expect(await ended).toMatchObject({ code: 1, stdout: '' });
      expect((await ended).stderr).toMatch(
        /^Asked to retry 1 dead letter, but the database does not say what came of it \(.*ECONNREFUSED.*\)\n$/,
      );
      await parts.caughtUp();
      expect(await enter('ann')).toBe('banned');
    });

    test('the log: nothing is appended, and how far it came is said', async () => {
      await tell(created(), lost('ann'));
      const away = await runRealtime(
        { DATABASE_URL: parts.url, KAFKA_BROKERS: '127.0.0.1:1' },
        'dead-letters',
        'discard',
        at(1),
        '--yes',
      );
      expect(away).toMatchObject({ code: 1, stdout: '' });
      expect(away.stderr).toMatch(
        /^The log cannot be reached \(.+ECONNREFUSED 127\.0\.0\.1:1\): 0 of 1 are known to be appended; the same command goes on\n$/,
      );
      expect(await enter('ann')).toBe('suspect');
    });

    test('the log, since it is in Kafka and that is not said: what is missing is named', async () => {
      await tell(created(), lost('ann'));
      await parts.pool.query('drop table log_records, log_heads');
      const discarded = await realtime('discard', at(1), '--yes');
      expect(discarded).toMatchObject({ code: 1, stdout: '' });
      expect(discarded.stderr).toContain('KAFKA_BROKERS must say so');
      expect((await runRealtime({ DATABASE_URL: parts.url }, 'verify')).stderr).toContain('KAFKA_BROKERS must say so');
    });

    test('the tables: a database of something else, or from before', async () => {
      await parts.pool.query('alter table dead_letters drop column subject');
      const old = await realtime('list');
      expect(old).toMatchObject({ code: 1, stdout: '' });
      expect(old.stderr).toBe('The database has not the tables of this version: start the room-worker once\n');
      await parts.pool.query('drop table dead_letters');
      expect((await realtime('list')).stderr).toBe(old.stderr);
    });
  });
});
