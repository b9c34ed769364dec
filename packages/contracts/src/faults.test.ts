import { expect, test } from 'vitest';
import { z } from 'zod';
import { faultsOf } from './faults.ts';

const faultsOfTexts = (count: number) => {
  const { error } = z.object({ texts: z.array(z.string()) }).safeParse({ texts: Array(count).fill(1) });
  return error === undefined ? [] : faultsOf(error, '/data');
};

test('a hundred faults are named', () => {
  expect(faultsOfTexts(100).map(({ path }) => path)).toEqual(Array.from({ length: 100 }, (_, n) => `/data/texts/${n}`));
});

test('of more, the first hundred are named, and a last entry says that there are others', () => {
  const faults = faultsOfTexts(5_000);
  expect(faults.slice(0, 100)).toEqual(faultsOfTexts(100));
  expect(faults.slice(100)).toEqual([{ path: '/data', message: 'has more faults than the 100 that are named' }]);
});
