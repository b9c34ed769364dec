import { createHash } from 'node:crypto';
import type { LogBatch } from '@realtime-service/event-log';
import type { Pool } from '@realtime-service/room-store';
import { consumeAll } from './lanes.ts';
import type { ChunkStatements } from './recording.ts';
import { chunkRecords } from './records.ts';

const nameOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 32);

/**
 * Sends each chunk's recorded statements, prepared, in one transaction per chunk: no decoding, no reading, no folding.
 */
export const replay = async (
  pool: Pool,
  batches: readonly LogBatch[],
  chunks: readonly ChunkStatements[],
  concurrency: number,
): Promise<void> => {
  const remaining = [...chunks];
  const chunksOf = new Map(
    batches.map((batch) => [batch, remaining.splice(0, Math.ceil(batch.records.length / chunkRecords))]),
  );
  if (remaining.length > 0) throw new Error(`${remaining.length} more chunks were recorded than there are batches for`);
  await consumeAll(batches, concurrency, async (batch) => {
    for (const statements of chunksOf.get(batch) ?? []) {
      const client = await pool.connect();
      await client.query('begin');
      for (const { text, values } of statements) await client.query({ name: nameOf(text), text, values: [...values] });
      await client.query('commit');
      client.release();
    }
  });
};
