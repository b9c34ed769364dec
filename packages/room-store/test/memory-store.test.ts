import { consumedTopics } from '@realtime-service/contracts';
import { keyOf } from '@realtime-service/room-model';
import { describe } from 'vitest';
import { MemoryDatabase } from './memory-store.ts';
import { presenceContract } from './presence-contract.ts';
import { partitionCount, projection } from './records.ts';
import { type StoreUnderTest, storeContract } from './store-contract.ts';

describe('the store in memory', () => {
  let database = new MemoryDatabase(Date.now);
  const empty = async () => {
    database = new MemoryDatabase(Date.now);
    for (const topic of consumedTopics) database.preparePositions(projection, topic, partitionCount);
  };

  storeContract(
    (): StoreUnderTest => ({
      store: database.connect(),
      projection: async () => database.projection(),
      marks: async () =>
        [...database.tables.marks.values()]
          .map(({ roomId, identity, cause }) => ({ roomId, identity, cause }))
          .sort((a, b) => (keyOf(a.roomId, a.identity) < keyOf(b.roomId, b.identity) ? -1 : 1)),
      announced: async () => Object.fromEntries(database.tables.announced),
      markWaits: async () => [...database.tables.marks.values()].map(({ dueAtMs }) => (dueAtMs - Date.now()) / 1000),
      forgetMarks: async () => database.tables.marks.clear(),
      orderLives: async () =>
        [...database.tables.edges.values()].map(({ expiresAtMs }) => (expiresAtMs - Date.now()) / 1000),
      empty,
    }),
  );

  presenceContract(
    () => ({
      store: database.connect(),
      lives: async () => [...database.tables.lives.values()],
      sessions: async () => [...database.tables.sessions.values()],
      empty,
    }),
    1000,
  );
});
