import { z } from 'zod';

/** "The projection has seen at least this": per topic and partition, the offset of the newest fact that counts. */
export interface PositionEntry {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
}

const Vector = z
  .array(z.tuple([z.string().min(1).max(249), z.int().min(0).max(100_000), z.string().regex(/^\d{1,19}$/)]))
  .min(1)
  .max(64);

/** Opaque to callers: what the event route answers and the join takes as `at_least`. */
export const AtLeast = z
  .string()
  .max(8192)
  .regex(/^[A-Za-z0-9_-]+$/)
  .meta({ id: 'AtLeast', description: 'Opaque log position, as answered by the event route.' });
export type AtLeast = z.infer<typeof AtLeast>;

/** Keeps the highest offset per topic and partition. */
export const encodeAtLeast = (entries: readonly PositionEntry[]): AtLeast => {
  const highest = new Map<string, PositionEntry>();
  for (const entry of entries) {
    const key = `${entry.topic} ${entry.partition}`;
    const known = highest.get(key);
    if (known === undefined || known.offset < entry.offset) highest.set(key, entry);
  }
  const vector = [...highest.values()].map((entry) => [entry.topic, entry.partition, entry.offset.toString()]);
  return Buffer.from(JSON.stringify(vector)).toString('base64url');
};

/** @returns undefined when it is not one of ours */
export const decodeAtLeast = (text: AtLeast): PositionEntry[] | undefined => {
  try {
    const vector = Vector.parse(JSON.parse(Buffer.from(text, 'base64url').toString('utf8')));
    return vector.map(([topic, partition, offset]) => ({ topic, partition, offset: BigInt(offset) }));
  } catch {
    return undefined;
  }
};
