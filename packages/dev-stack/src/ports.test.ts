import { afterEach, expect, test, vi } from 'vitest';
import { freePort } from './ports.ts';

afterEach(() => {
  vi.restoreAllMocks();
});

test('gives no port twice, though nothing listens there yet', async () => {
  vi.spyOn(Math, 'random').mockReturnValue(0.9).mockReturnValueOnce(0.5).mockReturnValueOnce(0.5);
  const [first, second] = [await freePort(), await freePort()];
  expect(second).not.toBe(first);
});
