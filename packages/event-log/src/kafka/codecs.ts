import { promisify } from 'node:util';
import { gunzip, zstdDecompress } from 'node:zlib';
import createSnappyCodec from 'kafkajs-snappy';
import { decompressBound, decompressFrame } from 'lz4js';

type Decompress = (buffer: Buffer) => Promise<Buffer>;

/** More than any fetch of ours may hold; a batch that claims more is not unpacked. */
const MAX_UNPACKED_BYTES = 256 * 1024 * 1024;

/** What its blocks begin after, each with its length. */
const XERIAL_MAGIC = Buffer.from('\x82SNAPPY\0', 'latin1');
const XERIAL_HEADER_BYTES = 16;

/** No Kafka client writes them, and the library would take them for data. */
const LZ4_FLAGS_AT = 4;
const LZ4_BLOCK_CHECKSUMS = 0x10;

const unpackGzip = promisify(gunzip);
const unpackZstd = promisify(zstdDecompress);
const snappy = createSnappyCodec();

export const decompressGzip = naming('gzip', (buffer) => unpackGzip(buffer, { maxOutputLength: MAX_UNPACKED_BYTES }));
export const decompressZstd = naming('zstd', (buffer) => unpackZstd(buffer, { maxOutputLength: MAX_UNPACKED_BYTES }));
/** Raw blocks (librdkafka) and xerial ones (Java, kafka-python). The library makes as much room as each one claims. */
export const decompressSnappy = naming('snappy', async (batch) => {
  const claimed = snappyBlocks(batch).reduce((sum, block) => sum + claimedBytes(block), 0);
  if (claimed > MAX_UNPACKED_BYTES) throw new Error(`It claims to hold ${claimed} bytes`);
  return snappy.decompress(batch);
});
/** The library leaves out what there is no room for, and counts it all the same. */
export const decompressLz4Frame = naming('lz4', async (frame) => {
  if (((frame[LZ4_FLAGS_AT] ?? 0) & LZ4_BLOCK_CHECKSUMS) !== 0) throw new Error('Its blocks have checksums');
  const room = new Uint8Array(Math.min(decompressBound(frame), MAX_UNPACKED_BYTES));
  const bytes = decompressFrame(frame, room);
  if (bytes > room.length) throw new Error(`It holds ${bytes} bytes, which is more than it may or claims to`);
  return Buffer.copyBytesFrom(room, 0, bytes);
});

function* snappyBlocks(batch: Buffer): Generator<Buffer, void> {
  if (!batch.subarray(0, XERIAL_MAGIC.length).equals(XERIAL_MAGIC)) {
    yield batch;
    return;
  }
  let end = XERIAL_HEADER_BYTES;
  while (end + 4 <= batch.length) {
    const start = end + 4;
    end = start + batch.readUInt32BE(end);
    yield batch.subarray(start, end);
  }
}

/** A block begins with its length when unpacked, in seven bits per byte. */
function claimedBytes(block: Buffer): number {
  const end = block.findIndex((byte) => byte < 0x80);
  return block.subarray(0, end + 1).reduce((sum, byte, place) => sum + (byte & 0x7f) * 2 ** (7 * place), 0);
}

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
