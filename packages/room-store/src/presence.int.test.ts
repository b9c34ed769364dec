import type { LivekitFact } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  added,
  chunkOf,
  countingPages,
  created,
  fill,
  joined,
  livekitRecord,
  removed,
  roomRecord,
  startDatabase,
} from '../test/given.ts';
import { applyChunk, createPostgresStore, type Pool, readLiveRoomIds, readPresentPeople } from './index.ts';
import { readLiveRooms } from './presence.ts';

describeWith(['postgres'], 'who is inside, as members see it', () => {
  let pool: Pool;
  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());

  const people = (identity: string | null = null, limit = 10) => readPresentPeople(pool, 'r', { identity, limit });
  /** Somebody comes in, at this time. */
  const enters = (userId: string, joinedAtMs: number, changes: object = {}): LivekitFact => {
    const fact = joined('r', userId, `PA_${userId}_${joinedAtMs}`);
    return { ...fact, participant: { ...fact.participant, joinedAtMs, ...changes } };
  };

  test('people in the order in which they came, with their membership, and nobody whom others do not see', async () => {
    const store = createPostgresStore(pool);
    await applyChunk(
      store,
      chunkOf([
        roomRecord(0, created('r')),
        roomRecord(1, added('r', 'ann', 'host')),
        roomRecord(2, added('r', 'bob')),
        roomRecord(3, removed('r', 'bob')),
        roomRecord(4, added('elsewhere', 'guest', 'host')),
      ]),
    );
    const left = joined('r', 'gone');
    await applyChunk(
      store,
      chunkOf(
        [
          enters('bob', 3_000),
          enters('ann', 2_000),
          enters('guest', 4_000),
          enters('spy', 2_500, { permission: { hidden: true } }),
          enters('bot', 2_600, { kind: 'AGENT' }),
          enters('ann', 5_000, { identity: 'ann:phone' }),
          enters('x', 6_000, { identity: 'not-ours', attributes: {} }),
          left,
          { ...left, type: 'participant_left' as const },
          joined('elsewhere', 'cleo'),
        ].map((fact, offset) => livekitRecord(offset, fact)),
      ),
    );
    expect(await people()).toMatchObject([
      { identity: 'ann', userId: 'ann', joinedAtMs: 2_000, member: { role: 'host', isRemoved: false } },
      { identity: 'bob', userId: 'bob', member: { isRemoved: true } },
      { identity: 'guest', userId: 'guest', member: null },
      { identity: 'ann:phone', userId: 'ann', member: { role: 'host' } },
      { identity: 'not-ours', userId: null, member: null },
    ]);
    expect((await people(null, 2)).map(({ identity }) => identity)).toEqual(['ann', 'bob']);
    expect(await people('ann:phone')).toMatchObject([{ participantSid: 'PA_ann_5000', userId: 'ann' }]);
    for (const nobody of ['spy', 'bot', 'gone', 'cleo', 'ann:desk', 'ANN']) expect(await people(nobody)).toEqual([]);
  });

  test('of an identity the newest session that is there, whatever was there since', async () => {
    for (const [sid, second, isLive] of [
      ['PA_bob_earlier', 1, true],
      ['PA_bob_over', 4, false],
    ])
      await pool.query(
        `insert into sessions select (jsonb_populate_record(bob, $1)).* from sessions as bob where participant_sid = 'PA_bob_3000'`,
        [{ participant_sid: sid, joined_at: `1970-01-01T00:00:0${second}Z`, is_live: isLive }],
      );
    expect((await people('bob')).map(({ participantSid }) => participantSid)).toEqual(['PA_bob_3000']);
  });

  test.each(['', 'vacuum analyze room_lives'])(
    'of all rooms that ever were live, those that are: %s',
    async (upkeep) => {
      await pool.query('truncate room_lives');
      await fill(
        pool,
        `insert into room_lives (room_id, room_sid, created_at, is_live)
      select 'room ' || at, 'RM', now(), at > 29999 from generate_series(1, 30000) as at`,
      );
      await pool.query(upkeep);
      const { result, pages } = await countingPages(pool, readLiveRoomIds);
      expect(result).toEqual(['room 30000']);
      expect(pages).toBeLessThan(20);
    },
  );

  test('for a sweep: rooms that are live, and who is inside by their own life, not by one before', async () => {
    await pool.query('truncate room_lives, sessions');
    await pool.query(`insert into room_lives (room_id, room_sid, created_at, is_live) values
      ('here', 'RM_now', now(), true), ('empty', 'RM', now(), true), ('over', 'RM', now(), false)`);
    await pool.query(`insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live,
        joined_at, version, last_fact_at)
      select 'here', room_sid, 'PA_' || room_sid, 'ann', 'STANDARD', false, true, now(), 1, now()
        from unnest(array['RM_now', 'RM_before']) as room_sid`);
    const rooms = await readLiveRooms(pool, ['here', 'empty', 'over', 'unknown']);
    expect(rooms.sort((a, b) => a.roomId.localeCompare(b.roomId))).toMatchObject([
      { roomId: 'empty', sessions: [] },
      { roomId: 'here', roomSid: 'RM_now', sessions: [{ participantSid: 'PA_RM_now' }] },
    ]);
  });
});
