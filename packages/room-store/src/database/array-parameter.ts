/**
 * Writes an item's bytes into `scratch` at a place that has room for them, and answers how many they are. Throws at a
 * number that the type cannot hold.
 */
type Write = (item: unknown, at: number) => number;

/** A type whose values travel in binary: its oid (PostgreSQL's pg_type.dat) and how a value is written. */
interface BinaryType {
  readonly oid: number;
  readonly write: Write;
}

/** One column after the other is written here; the driver gets a copy. */
let scratch = Buffer.allocUnsafe(65_536);

const reserve = (end: number): void => {
  if (end <= scratch.length) return;
  const larger = Buffer.allocUnsafe(2 * end);
  scratch.copy(larger);
  scratch = larger;
};

const maxBytesPerUnit = 3;

const writeText: Write = (item, at) => {
  const text = item as string;
  reserve(at + maxBytesPerUnit * text.length);
  return scratch.write(text, at);
};

/** The version of the format comes first; it is 1. */
const writeJsonb: Write = (item, at) => {
  const size = writeText(item, at + 1);
  scratch[at] = 1;
  return 1 + size;
};

const writeInt: Write = (item, at) => scratch.writeInt32BE(item as number, at) - at;

const writeBigint: Write = (item, at) => scratch.writeBigInt64BE(BigInt(item as bigint | number | string), at) - at;

const writeBoolean: Write = (item, at) => {
  scratch[at] = item === true ? 1 : 0;
  return 1;
};

const postgresEpochMs = Date.UTC(2000, 0, 1);
const unit = 2 ** 32;

/** Microseconds, in two halves: a number holds them only for the years around 2000. */
const writeInstant: Write = (item, at) => {
  const elapsedMs = (item as Date).getTime() - postgresEpochMs;
  const high = Math.floor(elapsedMs / unit);
  const low = (elapsedMs - high * unit) * 1000;
  const carried = Math.floor(low / unit);
  scratch.writeInt32BE(high * 1000 + carried, at);
  return scratch.writeUInt32BE(low - carried * unit, at + 4) - at;
};

/** Bytes, or their hex. */
const writeBytes: Write = (item, at) => {
  const given = item as Buffer | string;
  reserve(at + given.length);
  return typeof given === 'string' ? scratch.write(given, at, 'hex') : given.copy(scratch, at);
};

const binaryTypes: ReadonlyMap<string, BinaryType> = new Map([
  ['boolean', { oid: 16, write: writeBoolean }],
  ['bytea', { oid: 17, write: writeBytes }],
  ['bigint', { oid: 20, write: writeBigint }],
  ['int', { oid: 23, write: writeInt }],
  ['text', { oid: 25, write: writeText }],
  ['timestamptz', { oid: 1184, write: writeInstant }],
  ['jsonb', { oid: 3802, write: writeJsonb }],
]);

/** What begins an array of one dimension, and what begins each of its items: 32-bit numbers. */
const headerBytes = 20;
const lengthBytes = 4;
/** Of types that have one length. */
const maxFixedBytes = 8;
/** Of what is not there. */
const nullSize = -1;

const isNull = (item: unknown): boolean => item === null || item === undefined;

const toBinary = (items: readonly unknown[], { oid, write }: BinaryType): Buffer => {
  let at = headerBytes;
  for (const item of items) {
    reserve(at + lengthBytes + maxFixedBytes);
    const size = isNull(item) ? nullSize : write(item, at + lengthBytes);
    scratch.writeInt32BE(size, at);
    at += lengthBytes + Math.max(size, 0);
  }
  // Dimensions, whether there may be nulls, what the items are; how many, and the number of the first.
  for (const [place, value] of [1, 1, oid, items.length, 1].entries()) scratch.writeInt32BE(value, 4 * place);
  return Buffer.copyBytesFrom(scratch, 0, at);
};

const quoted = (item: unknown): string => `"${String(item).replace(/["\\]/g, '\\$&')}"`;

/** For other types, of which PostgreSQL reads the text. */
const toText = (items: readonly unknown[]): string =>
  `{${items.map((item) => (isNull(item) ? 'null' : quoted(item))).join(',')}}`;

/**
 * A column of values, to be unnested: an array of one of PostgreSQL's types in its binary format (array_recv in its
 * arrayfuncs.c). Text, which the driver would write, takes Node and PostgreSQL twice as long. Instants are given as
 * dates, bytes as buffers or in hex, 64-bit numbers in whatever way is at hand.
 */
export class ArrayParameter {
  readonly items: readonly unknown[];
  readonly type: string;

  constructor(items: readonly unknown[], type: string) {
    this.items = items;
    this.type = type;
  }

  /** Asked for by the driver. If this threw, the statement would stay unusable on its connection. */
  toPostgres(): Buffer | string {
    const type = binaryTypes.get(this.type);
    if (type === undefined) return toText(this.items);
    try {
      return toBinary(this.items, type);
    } catch {
      // PostgreSQL refuses it as what can never be stored.
      return toText(this.items);
    }
  }
}
