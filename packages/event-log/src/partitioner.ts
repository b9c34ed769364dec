/**
 * The partition of a key, as Java's default partitioner and kafkajs' `DefaultPartitioner` have it
 * (`org.apache.kafka.common.utils.Utils.murmur2`, sign bit cleared, modulo the partition count). librdkafka's default
 * differs: its producers must set `partitioner=murmur2_random`.
 */
export function partitionOf(key: string | Buffer | null, partitionCount: number): number {
  if (key === null) return 0;
  return (murmur2(typeof key === 'string' ? Buffer.from(key) : key) & 0x7fffffff) % partitionCount;
}

function murmur2(data: Buffer): number {
  const m = 0x5bd1e995;
  const blocksEnd = data.length & ~3;
  let h = 0x9747b28c ^ data.length;
  for (let i = 0; i < blocksEnd; i += 4) {
    const k = Math.imul(data.readInt32LE(i), m);
    h = Math.imul(h, m) ^ Math.imul(k ^ (k >>> 24), m);
  }
  if (blocksEnd < data.length) {
    h = Math.imul(h ^ data.readUIntLE(blocksEnd, data.length - blocksEnd), m);
  }
  h = Math.imul(h ^ (h >>> 13), m);
  return h ^ (h >>> 15);
}
