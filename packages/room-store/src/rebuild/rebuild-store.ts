import type { ProjectionPartition } from '../apply/chunk.ts';
import type { ChunkWrites } from '../apply/chunk-writes.ts';
import type { Touched } from '../apply/touched.ts';
import { writeState } from '../apply/write-chunk.ts';
import { inTransaction, type Pool } from '../database/database.ts';
import { transactionOf } from '../postgres-store.ts';
import type { ChunkStore, PositionNow } from '../store.ts';

const bits = 2 ** 27;

/**
 * What may have been written: false where it has not been, for certain. It answers most questions of a rebuild, which
 * begins with empty tables, without asking them. Its 16 MB stay the same; a longer log has it say "maybe" more often.
 */
class MaybeWritten {
  readonly #marked = new Uint8Array(bits / 8);

  add(hash: number): void {
    const bit = hash % bits;
    this.#marked[bit >>> 3] = (this.#marked[bit >>> 3] ?? 0) | (1 << (bit & 7));
  }

  has(hash: number): boolean {
    const bit = hash % bits;
    return ((this.#marked[bit >>> 3] ?? 0) & (1 << (bit & 7))) !== 0;
  }
}

/** FNV-1a over the ids' UTF-16 units. */
const hashOf = (left: string, right = ''): number => {
  let hash = 0x811c9dc5;
  for (let at = 0; at < left.length; at += 1) hash = Math.imul(hash ^ left.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ 0xffff, 0x01000193);
  for (let at = 0; at < right.length; at += 1) hash = Math.imul(hash ^ right.charCodeAt(at), 0x01000193);
  return hash >>> 0;
};

const hashOfBan = (roomId: string, userId: string): number => ~hashOf(roomId, userId) >>> 0;

const hashOfFact = (factKey: string): number => Number.parseInt(factKey.slice(0, 8), 16);

type Pairs = Touched['members'];

/** The part of what is touched that may be there to be loaded. */
const onlyWritten = (touched: Touched, written: MaybeWritten): Touched => {
  const ofPairs = (pairs: Pairs, hash: (roomId: string, userId: string) => number): Pairs => {
    const kept: Pairs = new Map();
    for (const [roomId, userIds] of pairs) {
      const maybe = [...userIds].filter((userId) => written.has(hash(roomId, userId)));
      if (maybe.length > 0) kept.set(roomId, new Set(maybe));
    }
    return kept;
  };
  const isWritten = (id: string): boolean => written.has(hashOf(id));
  return {
    ...touched,
    rooms: new Set([...touched.rooms].filter(isWritten)),
    headers: new Set([...touched.headers].filter(isWritten)),
    users: new Set([...touched.users].filter(isWritten)),
    members: ofPairs(touched.members, hashOf),
    bans: ofPairs(touched.bans, hashOfBan),
    logins: ofPairs(touched.logins, hashOf),
  };
};

const noteWritten = (written: MaybeWritten, { records, rooms, users, logins, members, bans }: ChunkWrites): void => {
  for (const { factKey } of records) if (factKey !== null) written.add(hashOfFact(factKey));
  for (const { roomId } of rooms.values()) written.add(hashOf(roomId));
  for (const { userId } of users.values()) written.add(hashOf(userId));
  for (const { userId, loginId } of logins.values()) written.add(hashOf(userId, loginId));
  for (const { roomId, userId } of members.values()) written.add(hashOf(roomId, userId));
  for (const { roomId, userId } of bans.values()) written.add(hashOfBan(roomId, userId));
};

/**
 * The store that `applyChunk` fills a second set of tables through; `pool` leads there (`rebuildUrlOf`). Only state is
 * written. Marks, orders, presence events and dead letters were made when the facts were new. Doubts stay with the dead
 * letters that raised them: one that a record under a wrong key has left is settled by facts of another partition, and
 * between partitions there is no order that could be repeated. Rows are not locked: each partition has one writer, who
 * is fenced by its position as everywhere, and each entity one partition, or else all partitions are written in turn.
 *
 * `isEmpty` says that the set is, so that what this store has not written is not there to be loaded. That ends where a
 * partition stands elsewhere than this store has left it: somebody else has written, too.
 */
export const createRebuildStore = (pool: Pool, isEmpty: boolean): ChunkStore => {
  let written = isEmpty ? new MaybeWritten() : undefined;
  const leftAt = new Map<number, bigint>();
  return {
    transaction: async (work) => {
      const left = new Map<number, bigint>();
      const result = await inTransaction(pool, (client) => {
        const transaction = transactionOf(client);
        const known = new Set<string>();
        let locked: Promise<PositionNow> | undefined;
        const lockPosition = async (at: ProjectionPartition): Promise<PositionNow> => {
          const position = await transaction.lockPosition(at);
          if (position.nextOffset !== (leftAt.get(at.partition) ?? 0n)) written = undefined;
          return position;
        };
        return work({
          ...transaction,
          lockPosition: (at) => {
            locked = lockPosition(at);
            return locked;
          },
          knownFacts: async (at, factKeys) => {
            await locked;
            const asked = factKeys.filter((factKey) => written?.has(hashOfFact(factKey)) ?? true);
            const facts = await transaction.knownFacts(at, asked);
            for (const { factKey } of facts) known.add(factKey);
            return facts;
          },
          lock: async () => {},
          load: async (touched) => {
            await locked;
            return transaction.load(written === undefined ? touched : onlyWritten(touched, written));
          },
          write: async (at, writes) => {
            if (written !== undefined) noteWritten(written, writes);
            await writeState(client, at, writes, known);
            return 0;
          },
          advance: async (at, next) => {
            await transaction.advance(at, next);
            left.set(at.partition, next.nextOffset);
          },
        });
      });
      for (const [partition, nextOffset] of left) leftAt.set(partition, nextOffset);
      return result;
    },
    notifyMarks: async () => {},
  };
};
