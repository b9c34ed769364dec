import { expect, test } from 'vitest';
import { applyPoints, runSeeds, type Seeds, tell } from './run-seeds.ts';

const minCrashes = 100;

/** Every seed holds, and a worker died often enough at each await of the apply path for that to say something. */
export const seedsHold = (seeds: Seeds): void => {
  test(`seeds ${seeds.from} to ${seeds.from + seeds.count - 1} hold`, async () => {
    const { failures, crashedAt } = await runSeeds(seeds);
    expect(failures.map(tell).join('\n\n')).toBe('');
    expect(applyPoints.filter((point) => (crashedAt.get(point) ?? 0) < minCrashes)).toEqual([]);
  });
};
