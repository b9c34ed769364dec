import type { LivekitFact, RoomEvent } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { added, countingPages, fill, joined, livekitRecord, roomRecord, startDatabase } from '../../test/given.ts';
import { presenceContract } from '../../test/presence-contract.ts';
import { lifeTable, load, sessionTable } from '../database/rows.ts';
import { createPostgresStore, inTransaction, type Pool } from '../index.ts';
import type { ChunkRecord } from './chunk.ts';
import { loadTouched } from './load-touched.ts';
import { touchedBy } from './touched.ts';

describeWith(['postgres'], 'presence in PostgreSQL', () => {
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());

  const allOf = async <T>(table: Parameters<typeof load<T>>[1]): Promise<T[]> => {
    const client = await pool.connect();
    try {
      return await load(client, table, '', []);
    } finally {
      client.release();
    }
  };

  presenceContract(
    () => ({
      store: createPostgresStore(pool),
      lives: () => allOf(lifeTable),
      sessions: () => allOf(sessionTable),
      empty: async () => {
        await pool.query('truncate room_lives, sessions, applied_facts, marks, outbox');
        await pool.query('update log_positions set next_offset = 0, newest_recorded_at = default, last_offset = null');
      },
    }),
    100,
  );

  describe.each(['', 'vacuum analyze sessions'])('of somebody who came and went 50,000 times: %s', (maintenance) => {
    const room = (sid: string) => ({ name: 'r', sid, creationTimeMs: 1_000 });
    const entry = joined('r', 'mallory', 'PA_new');
    const at = (joinedAtMs: number | undefined, sid = 'RM_2'): LivekitFact => {
      const { joinedAtMs: _, ...participant } = entry.participant;
      return {
        ...entry,
        room: room(sid),
        participant: { ...participant, ...(joinedAtMs !== undefined && { joinedAtMs }) },
      };
    };

    beforeAll(async () => {
      // Three lives of a room, each with a third of the stays, somebody else who is inside, and as much in other rooms.
      await fill(
        pool,
        `truncate sessions; insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live,
          joined_at, version, end_reason, ended_at, last_fact_at)
        select room_id, 'RM_' || at % 3, 'PA_' || at, identity, 'STANDARD', false, at = 0,
            now() - interval '1 hour' + at * interval '10 milliseconds', 1, case when at > 0 then 'CLIENT_INITIATED' end, now(), now()
          from generate_series(0, 100000) as at, lateral (
            select case when at <= 50000 then 'r' else 'r-' || at end as room_id, case at when 0 then 'ann' else 'mallory' end as identity) as stay`,
      );
      await pool.query(maintenance);
    });

    test.each<[string, LivekitFact]>([
      ['an entry', at(Date.now())],
      ['an entry that was long ago', at(Date.now() - 7_200_000)],
      ['an entry that says not when', at(undefined)],
      ['an entry in an earlier life', at(undefined, 'RM_0')],
      ['an entry in a life that is new', at(Date.now(), 'RM_3')],
      ['a departure', { ...entry, type: 'participant_left', room: room('RM_2') }],
      ['an aborted connection', { ...entry, type: 'participant_connection_aborted', room: room('RM_2') }],
      [
        'a list',
        {
          type: 'observed',
          observed: {
            roomName: 'r',
            listedAtMs: Date.now(),
            room: room('RM_2'),
            participants: [entry.participant, { ...entry.participant, sid: 'PA_5' }],
          },
        },
      ],
    ])('%s reads few', async (_, fact) => {
      const touched = touchedBy([livekitRecord(0, fact)]);
      const { result, pages } = await countingPages(pool, (client) => loadTouched(client, touched));
      expect([...result.sessionsOf('r')].length).toBeLessThan(6);
      expect(pages).toBeLessThan(80);
    });

    test('a list of 3,000 who are all known reads each of them a few times', async () => {
      await pool.query(`insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live, joined_at,
          version, last_fact_at)
        select 'crowd', 'RM_1', 'PA_' || at, 'person ' || at, 'STANDARD', false, true, now(), 1, now() from generate_series(1, 3000) as at`);
      const participants = Array.from({ length: 3_000 }, (_, at) => ({
        ...entry.participant,
        sid: `PA_${at + 1}`,
        identity: `person ${at + 1}`,
      }));
      const observed = { roomName: 'crowd', listedAtMs: 1, room: { ...room('RM_1'), name: 'crowd' }, participants };
      const touched = touchedBy([livekitRecord(0, { type: 'observed', observed })]);
      const { result, pages } = await countingPages(pool, (client) => loadTouched(client, touched));
      expect([...result.sessionsOf('crowd')]).toHaveLength(3_000);
      expect(pages).toBeLessThan(3_000 * 30);
    });
  });

  test('of all the logins of a person that have ended, those are read that a fact names', async () => {
    await pool.query(`insert into ended_logins (user_id, login_id, event_id, topic, "partition", "offset", fact_at)
      select 'robot', 'login ' || at, 'e', 't', 0, at, now() from generate_series(1, 5000) as at`);
    const loginsRead = async (...events: RoomEvent[]): Promise<unknown> => {
      const touched = touchedBy(events.map((event, offset) => roomRecord(offset, event)));
      const { logins } = await inTransaction(pool, (client) => loadTouched(client, touched));
      return [...logins.values()].map(({ loginId }) => loginId).sort();
    };
    const ended = (sid: string): RoomEvent => ({
      type: 'login.ended',
      subject: 'robot',
      data: { userId: 'robot', sid },
    });
    expect(await loginsRead(ended('login 7'), ended('login 9'), ended('a new one'))).toEqual(['login 7', 'login 9']);
    expect(await loginsRead({ type: 'user.disabled', subject: 'robot', data: { userId: 'robot' } })).toEqual([]);
  });

  test('of all who were removed from a room, full state reads those whom it names', async () => {
    await pool.query(`insert into members (room_id, user_id, is_removed, event_id, topic, "partition", "offset", fact_at)
      select 'lobby', 'visitor ' || at, at > 2, 'e', 't', 0, at, now() from generate_series(1, 5000) as at`);
    const membersRead = async (...userIds: string[]): Promise<string[]> => {
      const members = userIds.map((userId) => ({ userId, role: 'listener' as const }));
      const touched = touchedBy([roomRecord(0, { type: 'room.created', subject: 'lobby', data: { members } })]);
      const set = await inTransaction(pool, (client) => loadTouched(client, touched));
      return [...set.members.values()].map(({ userId }) => userId).sort();
    };
    expect(await membersRead('visitor 2', 'visitor 3', 'ann')).toEqual(['visitor 1', 'visitor 2', 'visitor 3']);
    expect(await membersRead()).toEqual(['visitor 1', 'visitor 2']);
  });

  test('doubts about a room are not read for facts that end none of them', async () => {
    await pool.query(`insert into suspects (scope, room_id, user_id, detail, is_healed, cause_topic, cause_partition,
        cause_offset, event_id, topic, "partition", "offset", fact_at)
      select 'header', 'doubted', '', '', false, 't', 0, at, 'e', 't', 0, at, now() from generate_series(1, 5000) as at`);
    const doubtsRead = async (record: ChunkRecord): Promise<number> => {
      const { suspects } = await inTransaction(pool, (client) => loadTouched(client, touchedBy([record])));
      return suspects.size;
    };
    expect(await doubtsRead(livekitRecord(0, joined('doubted', 'ann')))).toBe(0);
    expect(await doubtsRead(roomRecord(0, added('doubted', 'ann')))).toBe(0);
    expect(await doubtsRead(roomRecord(0, { type: 'room.locked', subject: 'doubted', data: undefined }))).toBe(5_000);
  });
});
