import { partitionName } from '@realtime-service/contracts';
import type { LogPartition } from '../event-log.ts';
import { within } from '../within.ts';

/** A batch that takes longer is finished aside. Longer than a full one of a busy partition takes. */
const asideAfterMs = 250;

/** What the handler works on: one batch of a partition at a time, and no more than `concurrency` of all. */
export interface BatchesInHand {
  readonly concurrency: number;
  /**
   * Has a batch carried out once a hand is free. Resolves when that is done, or is set aside: it takes long, and hands
   * are left for others. Where the partition's last batch is still in hand, that one is set aside, and this one is not
   * carried out.
   */
  readonly take: (
    batch: LogPartition,
    carryOut: (showLife: () => void) => Promise<void>,
    setAside: (done: Promise<void>) => void,
  ) => Promise<void>;
  /** A partition whose handler has shown no life since then. */
  readonly silentSince: (atMs: number) => LogPartition | undefined;
  readonly allDone: () => Promise<unknown>;
}

interface Work extends LogPartition {
  readonly done: Promise<void>;
  aliveAtMs: number;
}

export function createBatchesInHand(concurrency: number): BatchesInHand {
  const works = new Map<string, Work>();
  const endings = (): Promise<void>[] => [...works.values()].map(({ done }) => done);

  return {
    concurrency,
    take: async ({ topic, partition }, carryOut, setAside) => {
      const name = partitionName({ topic, partition });
      while (!works.has(name) && works.size >= concurrency) await Promise.race(endings());
      const unfinished = works.get(name);
      // It came back by a rebalance.
      if (unfinished !== undefined) return setAside(unfinished.done);
      const { promise: done, resolve } = Promise.withResolvers<void>();
      const work: Work = { topic, partition, done, aliveAtMs: performance.now() };
      works.set(name, work);
      const showLife = (): void => {
        work.aliveAtMs = performance.now();
      };
      void carryOut(showLife).then(() => {
        works.delete(name);
        resolve();
      });
      await within(asideAfterMs, done);
      if (works.get(name) === work && works.size < concurrency) setAside(done);
      else await done;
    },
    silentSince: (atMs) => [...works.values()].find(({ aliveAtMs }) => aliveAtMs < atMs),
    allDone: () => Promise.all(endings()),
  };
}
