import { createHash } from 'node:crypto';
import type { LogBatch } from '@realtime-service/event-log';
import type { Pool } from '@realtime-service/room-store';
import { consumeAll } from './lanes.ts';
import type { ChunkStatements } from './recording.ts';

const nameOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 32);

/** Sends each chunk's recorded statements, prepared, in one transaction per chunk: no decoding, no reading, no folding. */
export const replay = async (
  pool: Pool,
  batches: readonly LogBatch[],
  chunks: readonly ChunkStatements[],
  concurrency: number,
): Promise<void> => {
  if (chunks.length !== batches.length)
    throw new Error(`${chunks.length} chunks were recorded for ${batches.length} batches`);
  const statementsOf = new Map(batches.map((batch, at) => [batch, chunks[at] ?? []]));
  await consumeAll(batches, concurrency, async (batch) => {
    const client = await pool.connect();
    await client.query('begin');
    for (const { text, values } of statementsOf.get(batch) ?? [])
      await client.query({ name: nameOf(text), text, values: [...values] });
    await client.query('commit');
    client.release();
  });
};
