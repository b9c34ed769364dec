type Strength = 'share' | 'update';

interface Waiter {
  readonly owner: Owner;
  readonly strength: Strength;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface Lock {
  readonly holders: Map<Owner, Strength>;
  readonly queue: Waiter[];
}

/** A transaction, as far as locks are concerned. */
export interface Owner {
  isOpen: boolean;
  /** The row that it waits for. */
  waitsFor: string | null;
}

export class ConnectionLostError extends Error {
  override readonly name = 'ConnectionLostError';
}

/** Who would wait for each other for ever. The locks' order excludes it, so one is a fault. */
class DeadlockError extends Error {
  override readonly name = 'DeadlockError';
}

/** Row locks, granted in the order in which they are asked for. */
export class Locks {
  readonly #locks = new Map<string, Lock>();

  async take(owner: Owner, key: string, strength: Strength): Promise<void> {
    assertOpen(owner);
    const lock: Lock = this.#locks.get(key) ?? { holders: new Map(), queue: [] };
    this.#locks.set(key, lock);
    if (lock.queue.length === 0 && isCompatible(lock, owner, strength)) {
      lock.holders.set(owner, strength);
      return;
    }
    owner.waitsFor = key;
    if (this.#leadsTo(owner, key, new Set())) throw new DeadlockError(`deadlock at ${key}`);
    await new Promise<void>((resolve, reject) => lock.queue.push({ owner, strength, resolve, reject }));
  }

  isHeld(key: string): boolean {
    return (this.#locks.get(key)?.holders.size ?? 0) > 0;
  }

  release(owner: Owner): void {
    for (const [key, lock] of this.#locks) {
      lock.holders.delete(owner);
      for (const [at, waiter] of [...lock.queue.entries()].toReversed())
        if (waiter.owner === owner)
          lock.queue.splice(at, 1)[0]?.reject(new ConnectionLostError('the transaction ended'));
      for (
        let next = lock.queue[0];
        next !== undefined && isCompatible(lock, next.owner, next.strength);
        next = lock.queue[0]
      ) {
        lock.queue.shift();
        lock.holders.set(next.owner, next.strength);
        next.owner.waitsFor = null;
        next.resolve();
      }
      if (lock.holders.size === 0 && lock.queue.length === 0) this.#locks.delete(key);
    }
  }

  #leadsTo(target: Owner, key: string, seen: Set<Owner>): boolean {
    const lock = this.#locks.get(key);
    const before = [...(lock?.holders.keys() ?? []), ...(lock?.queue ?? []).map(({ owner }) => owner)];
    return before.some((owner) => {
      if (seen.has(owner)) return false;
      seen.add(owner);
      if (owner.waitsFor === null) return false;
      const next = this.#locks.get(owner.waitsFor);
      return next?.holders.has(target) || this.#leadsTo(target, owner.waitsFor, seen);
    });
  }
}

const isCompatible = ({ holders }: Lock, owner: Owner, strength: Strength): boolean =>
  [...holders].every(([other, held]) => other === owner || (held === 'share' && strength === 'share'));

/** @throws {ConnectionLostError} */
export const assertOpen = ({ isOpen }: Owner): void => {
  if (!isOpen) throw new ConnectionLostError('the transaction ended');
};
