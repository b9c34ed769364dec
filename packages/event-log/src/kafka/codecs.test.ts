import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import {
  decompressGzip,
  decompressLz4Frame,
  decompressSnappy,
  decompressZstd,
  UndecodableBatchError,
} from './codecs.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
const json = Buffer.from('{"a":1}');
const rawSnappy = '07 18 7B 22 61 22 3A 31 7D';
const xerialHeader = '82 53 4E 41 50 50 59 00 00 00 00 01 00 00 00 01';
const framed = `00 00 00 09 ${rawSnappy}`;
const tooManyBytes = 257 * 1024 * 1024;

describe('decompressGzip', () => {
  it.each([
    ['one member', gzipSync(json), '{"a":1}'],
    ['several members', Buffer.concat([gzipSync(json), gzipSync(json)]), '{"a":1}{"a":1}'],
  ])('unpacks %s', async (_, bytes, expected) => {
    expect(String(await decompressGzip(bytes))).toBe(expected);
  });

  it('unpacks no more than fits', async () => {
    const bomb = gzipSync(Buffer.alloc(tooManyBytes), { level: 1 });
    await expect(decompressGzip(bomb)).rejects.toThrow(UndecodableBatchError);
  });
});

describe('decompressSnappy', () => {
  it.each([
    ['a raw block, as librdkafka writes it', rawSnappy, '{"a":1}'],
    ['one xerial frame, as Java and kafka-python write it', `${xerialHeader} ${framed}`, '{"a":1}'],
    ['several xerial frames', `${xerialHeader} ${framed} ${framed} ${framed}`, '{"a":1}{"a":1}{"a":1}'],
  ])('unpacks %s', async (_, bytes, expected) => {
    expect(String(await decompressSnappy(hex(bytes)))).toBe(expected);
  });

  const claimOf257MiB = '80 80 C0 80 01';
  const claimOf129MiB = '80 80 C0 40';
  it.each([
    ['a raw block', claimOf257MiB, 257],
    ['several xerial frames', `${xerialHeader} 00 00 00 04 ${claimOf129MiB} 00 00 00 04 ${claimOf129MiB}`, 258],
  ])('makes no room for more than fits, which %s may claim', async (_, bytes, claimedMiB) => {
    const cause = expect.objectContaining({ message: `It claims to hold ${claimedMiB * 1024 * 1024} bytes` });
    await expect(decompressSnappy(hex(bytes))).rejects.toThrow(expect.objectContaining({ cause }));
  });
});

describe('decompressLz4Frame', () => {
  // Descriptor flags: version 01, independent blocks; then with content size and content checksum as well.
  const uncompressedBlock = `07 00 00 80 ${json.toString('hex')} 00 00 00 00`;
  it.each([
    ['a plain frame, as Java writes it', `04 22 4D 18 60 40 82 ${uncompressedBlock}`],
    [
      'a frame with its size and a checksum',
      `04 22 4D 18 6C 40 07 00 00 00 00 00 00 00 FF ${uncompressedBlock} 00 00 00 00`,
    ],
  ])('unpacks %s', async (_, bytes) => {
    expect(await decompressLz4Frame(hex(bytes))).toEqual(json);
  });

  it('refuses block checksums, which the library would read as data', async () => {
    const bytes = `04 22 4D 18 70 40 00 07 00 00 80 ${json.toString('hex')} 00 00 00 00 00 00 00 00`;
    await expect(decompressLz4Frame(hex(bytes))).rejects.toThrow(UndecodableBatchError);
  });

  it('unpacks no more than fits', async () => {
    // A zero, and the byte before it 4 MiB long.
    const block = Buffer.concat([hex('1F 00 01 00'), Buffer.alloc(16_448, 0xff), hex('C0')]);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(block.length);
    const blocks = Array.from({ length: 65 }, () => [size, block]).flat();
    const bomb = Buffer.concat([hex('04 22 4D 18 60 70 73'), ...blocks, Buffer.alloc(4)]);
    await expect(decompressLz4Frame(bomb)).rejects.toThrow(UndecodableBatchError);
  });

  it('refuses a frame that holds more than it says', async () => {
    const bytes = `04 22 4D 18 68 40 06 00 00 00 00 00 00 00 FF ${uncompressedBlock}`;
    await expect(decompressLz4Frame(hex(bytes))).rejects.toThrow(UndecodableBatchError);
  });
});

describe('decompressZstd', () => {
  it('unpacks a frame', async () => {
    expect(await decompressZstd(zstdCompressSync(json))).toEqual(json);
  });

  it('unpacks no more than fits', async () => {
    const bomb = zstdCompressSync(Buffer.alloc(tooManyBytes));
    await expect(decompressZstd(bomb)).rejects.toThrow(UndecodableBatchError);
  });
});

it.each([
  ['gzip', decompressGzip],
  ['snappy', decompressSnappy],
  ['lz4', decompressLz4Frame],
  ['zstd', decompressZstd],
])('names %s and the cause when it meets garbage', async (codec, decompress) => {
  const failure = decompress(Buffer.from('ffffffffffffffffffff', 'hex'));
  await expect(failure).rejects.toThrow(`A ${codec} batch of 10 bytes`);
  await expect(failure).rejects.toMatchObject({ retriable: false, cause: expect.any(Error) });
});
