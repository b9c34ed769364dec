import { promisify } from 'node:util';
import { gunzip, zstdDecompress } from 'node:zlib';
import createSnappyCodec from 'kafkajs-snappy';
import { decompressBound, decompressFrame } from 'lz4js';

type Decompress = (buffer: Buffer) => Promise<Buffer>;

/** More than any fetch of ours may hold; a batch that claims more is not unpacked. */
const maxUnpackedBytes = 256 * 1024 * 1024;

/** What its blocks begin after, each with its length. */
const xerialMagic = Buffer.from('\x82SNAPPY\0', 'latin1');
const xerialHeaderBytes = 16;

/** No Kafka client writes them, and the library would take them for data. */
const lz4FlagsAt = 4;
const lz4BlockChecksums = 0x10;

const unpackGzip = promisify(gunzip);
const unpackZstd = promisify(zstdDecompress);
const snappy = createSnappyCodec();

export const decompressGzip = naming('gzip', (buffer) => unpackGzip(buffer, { maxOutputLength: maxUnpackedBytes }));
export const decompressZstd = naming('zstd', (buffer) => unpackZstd(buffer, { maxOutputLength: maxUnpackedBytes }));
/** Raw blocks (librdkafka) and xerial ones (Java, kafka-python). The library makes as much room as each one claims. */
export const decompressSnappy = naming('snappy', async (batch) => {
  const claimed = snappyBlocks(batch).reduce((sum, block) => sum + claimedBytes(block), 0);
  if (claimed > maxUnpackedBytes) throw new Error(`It claims to hold ${claimed} bytes`);
  return snappy.decompress(batch);
});
/** The library leaves out what there is no room for, and counts it all the same. */
export const decompressLz4Frame = naming('lz4', async (frame) => {
  if (((frame[lz4FlagsAt] ?? 0) & lz4BlockChecksums) !== 0) throw new Error('Its blocks have checksums');
  const room = new Uint8Array(Math.min(decompressBound(frame), maxUnpackedBytes));
  const bytes = decompressFrame(frame, room);
  if (bytes > room.length) throw new Error(`It holds ${bytes} bytes, which is more than it may or claims to`);
  return Buffer.copyBytesFrom(room, 0, bytes);
});

function* snappyBlocks(batch: Buffer): Generator<Buffer, void> {
  if (!batch.subarray(0, xerialMagic.length).equals(xerialMagic)) {
    yield batch;
    return;
  }
  let end = xerialHeaderBytes;
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
