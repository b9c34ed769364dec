import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { cached } from './cache.ts';
import { silently } from './part.ts';
import { runDirectory } from './process-part.ts';

describe('the cache of parts', () => {
  let folder: string;

  beforeEach(() => {
    const root = runDirectory('cache-test');
    vi.stubEnv('XDG_CACHE_HOME', root);
    folder = join(root, 'realtime-service');
  });
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  test('builds once and finds it the next time', async () => {
    const build = vi.fn((directory: string) => writeFile(join(directory, 'program'), 'built'));
    const first = await cached('part-1.0', silently, build);
    const second = await cached('part-1.0', silently, build);
    expect(second).toBe(first);
    expect(await readFile(join(second, 'program'), 'utf8')).toBe('built');
    expect(build).toHaveBeenCalledTimes(1);
    expect(await readdir(folder)).toEqual(['part-1.0']);
  });

  test('keeps others waiting while one builds, and tells them', async () => {
    const told: string[] = [];
    const building = Promise.withResolvers<void>();
    const finish = Promise.withResolvers<void>();
    const first = cached('part-1.0', silently, async () => {
      building.resolve();
      await finish.promise;
    });
    await building.promise;
    const second = cached(
      'part-1.0',
      (line) => told.push(line),
      () => expect.unreachable(),
    );
    await expect.poll(() => told).toEqual(['waiting for another process that prepares part-1.0']);
    finish.resolve();
    expect(await second).toBe(await first);
  });

  test('leaves nothing behind when the build fails, and builds anew', async () => {
    const failing = async (directory: string) => {
      await writeFile(join(directory, 'half'), '');
      throw new Error('no network');
    };
    await expect(cached('part-1.0', silently, failing)).rejects.toThrow('no network');
    expect(await readdir(folder)).toEqual([]);
    expect(existsSync(await cached('part-1.0', silently, async () => undefined))).toBe(true);
  });

  test('takes over the lock of a builder that died', async () => {
    await mkdir(folder, { recursive: true });
    const lock = join(folder, 'part-1.0.lock');
    await writeFile(lock, '1');
    const longAgo = new Date(Date.now() - 60_000);
    await utimes(lock, longAgo, longAgo);
    await cached('part-1.0', silently, async () => undefined);
    expect(await readdir(folder)).toEqual(['part-1.0']);
  });
});
