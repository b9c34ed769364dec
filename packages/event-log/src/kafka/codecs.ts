import { promisify } from 'node:util';
import { zstdDecompress } from 'node:zlib';
import createSnappyCodec from 'kafkajs-snappy';
import { decompress as decompressLz4 } from 'lz4js';

type Decompress = (buffer: Buffer) => Promise<Buffer>;

/** More than any fetch of ours may hold; a batch that claims more is not unpacked. */
const MAX_UNPACKED_BYTES = 256 * 1024 * 1024;

/** No Kafka client writes them, and the library would take them for data. */
const LZ4_FLAGS_AT = 4;
const LZ4_BLOCK_CHECKSUMS = 0x10;

const unpackZstd = promisify(zstdDecompress);
const snappy = createSnappyCodec();

/** Raw frames (librdkafka) and xerial ones (Java, kafka-python). */
export const decompressSnappy = naming('snappy', (buffer) => snappy.decompress(buffer));
export const decompressLz4Frame = naming('lz4', async (frame) => {
  if (((frame[LZ4_FLAGS_AT] ?? 0) & LZ4_BLOCK_CHECKSUMS) !== 0) throw new Error('Its blocks have checksums');
  const { buffer, byteOffset, byteLength } = decompressLz4(frame);
  return Buffer.from(buffer, byteOffset, byteLength);
});
export const decompressZstd = naming('zstd', (buffer) => unpackZstd(buffer, { maxOutputLength: MAX_UNPACKED_BYTES }));

/** A batch that cannot be unpacked stops the consumer with this error instead of being fetched for ever. */
export class UndecodableBatchError extends Error {
  override readonly name = 'UndecodableBatchError';
  /** Read by kafkajs. */
  readonly retriable = false;
}

function naming(codec: string, decompress: Decompress): Decompress {
  return async (buffer) => {
    try {
      return await decompress(buffer);
    } catch (cause) {
      throw new UndecodableBatchError(`A ${codec} batch of ${buffer.length} bytes cannot be unpacked`, { cause });
    }
  };
}
