/** Record batches as the broker keeps them, which no client shows. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface StoredBatch {
  readonly firstOffset: bigint;
  readonly codec: string;
  readonly isTransactional: boolean;
  /** The records as they were compressed. */
  readonly payload: Buffer;
}

const codecs = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];

/** Batches of magic 2: https://kafka.apache.org/documentation/#recordbatch */
const header = { length: 8, attributes: 21, end: 61 } as const;
const [codecMask, transactionalBit, controlBit] = [0b111, 0b1_0000, 0b10_0000];

/** The batches of a partition as they lie in the broker's first segment, but for transaction markers. */
export const readBatches = (logDirectory: string, topic: string, partition: number): StoredBatch[] => {
  const segment = readFileSync(join(logDirectory, `${topic}-${partition}`, '00000000000000000000.log'));
  const batches: StoredBatch[] = [];
  for (let at = 0; at < segment.length; ) {
    const end = at + header.length + 4 + segment.readInt32BE(at + header.length);
    const attributes = segment.readInt16BE(at + header.attributes);
    if ((attributes & controlBit) === 0)
      batches.push({
        firstOffset: segment.readBigInt64BE(at),
        codec: codecs[attributes & codecMask] ?? 'unknown',
        isTransactional: (attributes & transactionalBit) !== 0,
        payload: segment.subarray(at + header.end, end),
      });
    at = end;
  }
  return batches;
};
