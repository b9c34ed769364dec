import { topics } from '@realtime-service/contracts';
import { createDatabase } from '@realtime-service/dev-stack';
import { realParts } from '@realtime-service/dev-stack/vitest';
import type { Pool } from '../src/index.ts';
import { createPool, migrate, preparePositions } from '../src/index.ts';
import { partitionCount, projection } from './records.ts';

export * from './records.ts';

/** A fresh database with the schema, its partitions at 0. */
export const startDatabase = async (): Promise<{ pool: Pool; url: string }> => {
  const url = await createDatabase(realParts(['postgres']).postgres.url);
  await migrate(url);
  const pool = createPool({ url, maxConnections: 20, applicationName: 'test', onError: () => undefined });
  for (const topic of [topics.roomEvents, topics.livekitWebhooks])
    await preparePositions(pool, projection, topic, partitionCount);
  return { pool, url };
};
