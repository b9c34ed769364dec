import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { added, chunkOf, countingPages, created, fill, roomRecord, startDatabase } from '../test/given.ts';
import { applyChunk, createPostgresStore, type Pool } from './index.ts';
import { readFacts } from './read-facts.ts';

describeWith(['postgres'], 'the facts that a decision rests on', () => {
  let pool: Pool;
  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());

  test('name a room by the same object, whoever asks, for as long as it does not change', async () => {
    const store = createPostgresStore(pool);
    const roomFor = async (userId: string) => {
      const [answer] = await store.readFacts([{ roomId: 'r', userId, loginId: null }]);
      return answer?.facts.room;
    };
    await applyChunk(store, chunkOf([roomRecord(0, created('r'))]));
    const before = await roomFor('ann');
    await applyChunk(store, chunkOf([roomRecord(1, added('r', 'ann'))]));
    expect(await roomFor('bob')).toBe(before);
    await applyChunk(store, chunkOf([roomRecord(2, { type: 'room.locked', subject: 'r', data: {} })]));
    expect(await roomFor('ann')).toEqual({ ...before, isLocked: true });
  });

  const addDoubts = async (from: number, to: number): Promise<void> => {
    await fill(
      pool,
      `insert into suspects (scope, room_id, user_id, is_healed, event_id, topic, "partition", "offset", fact_at,
          cause_topic, cause_partition, cause_offset)
        select 'header', 'r', '', false, 'e', 't', 0, n, now(), 't', 0, n from generate_series($1::int, $2) as n`,
      [from, to],
    );
    await pool.query('analyze suspects');
  };

  test('are read as fast about a room that a broken producer has left thousands of doubts about its header', async () => {
    const read = () =>
      countingPages(pool, (client) => readFacts(client, [{ roomId: 'r', userId: 'u', loginId: null }]));
    await addDoubts(1, 500);
    const few = await read();
    expect(few.result[0]?.facts.doubt).toBe('header');
    await addDoubts(501, 20_000);
    const many = await read();
    expect(many.result[0]?.facts.doubt).toBe('person');
    expect(many.pages).toBeLessThan(few.pages + 50);
  });
});
