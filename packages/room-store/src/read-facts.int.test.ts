import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { added, chunkOf, created, roomRecord, startDatabase } from '../test/given.ts';
import { applyChunk, createPostgresStore, type Pool } from './index.ts';

describeWith(['postgres'], 'facts', () => {
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
});
