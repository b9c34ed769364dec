import kafkajs from 'kafkajs';
import { describe, expect, it } from 'vitest';
import { partitionOf } from './partitioner.ts';

// From Apache Kafka's own UtilsTest.testMurmur2; a count above 2^31 − 1 shows the hash with its sign bit cleared.
const javaVectors: [key: string, hash: number][] = [
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
];

const kafkajsPartition = (key: string | Buffer, count: number): number =>
  kafkajs.Partitioners.DefaultPartitioner()({
    topic: 't',
    message: { key, value: null },
    partitionMetadata: Array.from({ length: count }, (_, partitionId) => ({
      partitionId,
      partitionErrorCode: 0,
      leader: 0,
      replicas: [0],
      isr: [0],
    })),
  });

describe('partitionOf', () => {
  it.each(javaVectors)('hashes %j as Java does', (key, hash) => {
    expect(partitionOf(key, 2 ** 31)).toBe(hash & 0x7fffffff);
  });

  it('agrees with kafkajs for keys of every length up to 256 bytes and beyond ASCII', () => {
    const keys = Array.from({ length: 257 }, (_, length) =>
      Buffer.from(Array.from({ length }, (_, i) => (i * 151 + length * 31) & 0xff)),
    );
    for (const key of [...keys, 'raum-42', 'café', '\u{1F3A5}', '']) {
      expect(partitionOf(key, 12)).toBe(kafkajsPartition(key, 12));
    }
  });
});
