import { z } from 'zod';

/** "The projection has seen at least this": per topic and partition, the offset of the newest fact that counts. */
export interface PositionEntry {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
}

const maxInt64 = 9_223_372_036_854_775_807n;

/** Kafka's own rule for topic names. */
export const LogTopic = z.string().regex(/^[A-Za-z0-9._-]{1,249}$/, 'must be a topic name');
export const LogPartition = z.int().min(0).max(100_000);
/** A 64-bit offset in decimal digits. */
export const LogOffset = z
  .string()
  .regex(/^\d{1,19}$/, { error: 'must be an offset in decimal digits', abort: true })
  .refine((digits) => BigInt(digits) <= maxInt64, 'must fit 64 bits');

const Vector = z
  .array(
    z.tuple([
      LogTopic,
      z
        .array(z.tuple([LogPartition, LogOffset]))
        .min(1)
        .max(256),
    ]),
  )
  .min(1)
  .max(8);

/** Opaque to callers: what the event route answers and the join takes as `at_least`. Holds 256 partitions. */
export const AtLeast = z
  .string()
  .max(12_288)
  .regex(/^[A-Za-z0-9_-]+$/)
  .meta({ id: 'AtLeast', description: 'Opaque log position, as answered by the event route.' });
export type AtLeast = z.infer<typeof AtLeast>;

/**
 * Keeps the highest offset per topic and partition. The answer is safe in URLs: JSON of topic names and digits never
 * comes to the two characters in which base64 and base64url differ.
 */
export const encodeAtLeast = (entries: readonly PositionEntry[]): AtLeast => {
  const highest = new Map<string, Map<number, bigint>>();
  for (const { topic, partition, offset } of entries) {
    const partitions = highest.get(topic) ?? new Map<number, bigint>();
    const known = partitions.get(partition);
    if (known === undefined || known < offset) partitions.set(partition, offset);
    highest.set(topic, partitions);
  }
  const vector = [...highest].map(([topic, partitions]) => [
    topic,
    [...partitions].map(([partition, offset]) => [partition, offset.toString()]),
  ]);
  return btoa(JSON.stringify(vector)).replaceAll('=', '');
};

/** @returns undefined when it is not one of ours */
export const decodeAtLeast = (text: AtLeast): PositionEntry[] | undefined => {
  try {
    const vector = Vector.parse(JSON.parse(atob(text)));
    return vector.flatMap(([topic, partitions]) =>
      partitions.map(([partition, offset]) => ({ topic, partition, offset: BigInt(offset) })),
    );
  } catch {
    return undefined;
  }
};
