import { afterEach, expect, test, vi } from 'vitest';
import { freePort } from './ports.ts';

afterEach(() => {
  vi.restoreAllMocks();
});

test('gives no port twice, though nothing listens there yet', async () => {
  const random = vi.spyOn(Math, 'random');
  const first = await freePort();
  random.mockReturnValueOnce(random.mock.results.at(-1)?.value);
  expect(await freePort()).not.toBe(first);
});
