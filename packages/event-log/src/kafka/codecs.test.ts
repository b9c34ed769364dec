import { zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { decompressLz4Frame, decompressSnappy, decompressZstd, UndecodableBatchError } from './codecs.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
const json = Buffer.from('{"a":1}');
const rawSnappy = '07 18 7B 22 61 22 3A 31 7D';
const xerialHeader = '82 53 4E 41 50 50 59 00 00 00 00 01 00 00 00 01';
const framed = `00 00 00 09 ${rawSnappy}`;

describe('decompressSnappy', () => {
  it.each([
    ['a raw block, as librdkafka writes it', rawSnappy, '{"a":1}'],
    ['one xerial frame, as Java and kafka-python write it', `${xerialHeader} ${framed}`, '{"a":1}'],
    ['several xerial frames', `${xerialHeader} ${framed} ${framed} ${framed}`, '{"a":1}{"a":1}{"a":1}'],
  ])('unpacks %s', async (_, bytes, expected) => {
    expect(String(await decompressSnappy(hex(bytes)))).toBe(expected);
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
});

describe('decompressZstd', () => {
  it('unpacks a frame', async () => {
    expect(await decompressZstd(zstdCompressSync(json))).toEqual(json);
  });

  it('unpacks no more than fits', async () => {
    const bomb = zstdCompressSync(Buffer.alloc(257 * 1024 * 1024));
    await expect(decompressZstd(bomb)).rejects.toThrow(UndecodableBatchError);
  });
});

it.each([
  ['snappy', decompressSnappy],
  ['lz4', decompressLz4Frame],
  ['zstd', decompressZstd],
])('names %s and the cause when it meets garbage', async (codec, decompress) => {
  const failure = decompress(Buffer.from('ffffffffffffffffffff', 'hex'));
  await expect(failure).rejects.toThrow(`A ${codec} batch of 10 bytes`);
  await expect(failure).rejects.toMatchObject({ retriable: false, cause: expect.any(Error) });
});
