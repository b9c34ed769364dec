import { afterEach, expect, test, vi } from 'vitest';
import { freePort, reservePorts } from './ports.ts';

afterEach(() => {
  vi.restoreAllMocks();
});

test('gives no port twice, though nothing listens there yet', async () => {
  const random = vi.spyOn(Math, 'random');
  const first = await freePort();
  random.mockReturnValueOnce(random.mock.results.at(-1)?.value);
  expect(await freePort()).not.toBe(first);
});

test('gives none that somebody else was promised', async () => {
  const random = vi.spyOn(Math, 'random');
  const first = await freePort();
  const promised = first + 1;
  reservePorts([promised]);
  random.mockReturnValueOnce(random.mock.results.at(-1)?.value + 1 / 4_000);
  expect(await freePort()).not.toBe(promised);
});
