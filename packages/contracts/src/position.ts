import { z } from 'zod';

/** A partition of a topic. */
export interface LogPartition {
  readonly topic: string;
  readonly partition: number;
}

/** Where a record stands. */
export interface LogPosition extends LogPartition {
  readonly offset: bigint;
}

/** One of its own for each partition: a topic's name holds no slash. */
export const partitionName = ({ topic, partition }: LogPartition): string => `${topic}/${partition}`;

/** As operators read and write it. */
export const positionName = (position: LogPosition): string => `${partitionName(position)}/${position.offset}`;

const maxInt64 = 9_223_372_036_854_775_807n;

/** Kafka's own rule for topic names. */
export const LogTopic = z.string().regex(/^[A-Za-z0-9._-]{1,249}$/, 'must be a topic name');
export const PartitionNumber = z.int().min(0).max(100_000);
/** A 64-bit offset in decimal digits. */
export const LogOffset = z
  .string()
  .regex(/^\d{1,19}$/, { error: 'must be an offset in decimal digits', abort: true })
  .refine((digits) => BigInt(digits) <= maxInt64, 'must fit 64 bits');

/** Of a position as JSON writes it: the offset in decimal digits. */
export const toLogPosition = ({
  topic,
  partition,
  offset,
}: LogPartition & { readonly offset: string }): LogPosition => ({ topic, partition, offset: BigInt(offset) });

const Vector = z
  .array(
    z.tuple([
      LogTopic,
      z
        .array(z.tuple([PartitionNumber, LogOffset]))
        .min(1)
        .max(256),
    ]),
  )
  .min(1)
  .max(8);

/**
 * "The projection has seen at least this": per topic and partition, the offset of the newest fact that counts. Opaque
 * to callers: what the event route answers and the join takes as `at_least`. Holds 256 partitions.
 */
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
export const encodeAtLeast = (entries: readonly LogPosition[]): AtLeast => {
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
export const decodeAtLeast = (text: AtLeast): LogPosition[] | undefined => {
  try {
    const vector = Vector.parse(JSON.parse(atob(text)));
    return vector.flatMap(([topic, partitions]) =>
      partitions.map(([partition, offset]) => ({ topic, partition, offset: BigInt(offset) })),
    );
  } catch {
    return undefined;
  }
};
