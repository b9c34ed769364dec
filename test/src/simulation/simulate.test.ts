import { expect, test } from 'vitest';
import { runSeeds, tell } from './run-seeds.ts';
import { simulate } from './simulate.ts';

test('the first seeds hold', { timeout: 60_000 }, async () => {
  const { failures, removals, mutes } = await runSeeds({ from: 1, count: 150, steps: 200 });
  expect(failures.map(tell).join('\n\n')).toBe('');
  expect(removals).toBeGreaterThan(50);
  expect(mutes).toBeGreaterThan(5);
});

test('a seed is played again step by step', async () => {
  const [first, second] = [await simulate(42, 200), await simulate(42, 200)];
  expect(second.story).toEqual(first.story);
  expect(second.turns).toBe(first.turns);
});
