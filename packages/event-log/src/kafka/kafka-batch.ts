import type { Batch, IHeaders } from 'kafkajs';
import type { LogBatch, RecordHeaders } from '../event-log.ts';

/** Public fields of kafkajs' batches that its types lack. */
interface FetchedBatch extends Batch {
  readonly fetchedOffset: string;
  readonly rawMessages: readonly unknown[];
}

/** It brought nothing although the log goes on: an open transaction holds back what stands behind it. */
export const isHeldBack = (batch: Batch): boolean => (batch as FetchedBatch).rawMessages.length === 0;

export function toLogBatch(batch: Batch, heartbeat: LogBatch['heartbeat']): LogBatch {
  const { topic, partition, messages, fetchedOffset } = batch as FetchedBatch;
  return {
    topic,
    partition,
    fetchedOffset: BigInt(fetchedOffset),
    nextOffset: BigInt(batch.lastOffset()) + 1n,
    records: messages.map(({ offset, timestamp, key, value, headers }) => ({
      topic,
      partition,
      offset: BigInt(offset),
      timestampMs: Number(timestamp),
      key,
      value,
      headers: toRecordHeaders(headers),
    })),
    heartbeat,
  };
}

function toRecordHeaders(headers: IHeaders = {}): RecordHeaders {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => {
      const last = Array.isArray(value) ? value.at(-1) : value;
      return [name, Buffer.isBuffer(last) ? last : Buffer.from(last ?? '')];
    }),
  );
}
