import { type LogPartition, partitionName } from '@realtime-service/contracts';
import { within } from '../within.ts';

/** A batch that takes longer is finished aside. Longer than a full one of a busy partition takes. */
const asideAfterMs = 250;

interface Work extends LogPartition {
  readonly done: Promise<void>;
  /** When its handler was last heard of. */
  aliveAtMs: number;
}

/** What the handler works on: one batch of a partition at a time, and no more than `concurrency` of all. */
export class BatchesInHand {
  readonly concurrency: number;
  readonly #works = new Map<string, Work>();

  constructor(concurrency: number) {
    this.concurrency = concurrency;
  }

  /**
   * Has a batch carried out once a hand is free. Resolves when that is done, or is set aside: it takes long, and hands
   * are left for others. Where the partition's last batch is still in hand, that one is set aside, and this one is not
   * carried out.
   */
  async take(
    { topic, partition }: LogPartition,
    carryOut: (showLife: () => void) => Promise<void>,
    setAside: (done: Promise<void>) => void,
  ): Promise<void> {
    const works = this.#works;
    const name = partitionName({ topic, partition });
    while (!works.has(name) && works.size >= this.concurrency) await Promise.race(this.#endings());
    const unfinished = works.get(name);
    // It came back by a rebalance.
    if (unfinished !== undefined) return setAside(unfinished.done);
    const { promise: done, resolve } = Promise.withResolvers<void>();
    const work: Work = { topic, partition, done, aliveAtMs: performance.now() };
    const showLife = (): void => {
      work.aliveAtMs = performance.now();
    };
    works.set(name, work);
    void carryOut(showLife).then(() => {
      works.delete(name);
      resolve();
    });
    await within(asideAfterMs, done);
    if (works.get(name) === work && works.size < this.concurrency) setAside(done);
    else await done;
  }

  /** A partition whose handler has not been heard of since then. */
  silentSince(atMs: number): LogPartition | undefined {
    return [...this.#works.values()].find(({ aliveAtMs }) => aliveAtMs < atMs);
  }

  async allDone(): Promise<void> {
    await Promise.all(this.#endings());
  }

  #endings(): Promise<void>[] {
    return [...this.#works.values()].map(({ done }) => done);
  }
}
