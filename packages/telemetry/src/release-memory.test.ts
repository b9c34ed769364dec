import { expect, it } from 'vitest';
import { releaseMemory } from './release-memory.ts';

const garbageBytes = 64 * 1024 * 1024;

it('gives back what nobody holds any more', () => {
  let garbage: number[] | undefined = Array.from({ length: garbageBytes / 8 }, (_, at) => at + 0.5);
  const before = process.memoryUsage().heapTotal;
  expect(garbage.length).toBe(garbageBytes / 8);
  garbage = undefined;
  releaseMemory();
  expect(process.memoryUsage().heapTotal).toBeLessThan(before - garbageBytes / 2);
});
