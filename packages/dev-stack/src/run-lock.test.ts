import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { forgetKept, takeRunLock } from './run-lock.ts';
import { StartFailure } from './start-failure.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'run-lock-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** Folders end with a slash. */
function fill(...names: readonly string[]): void {
  for (const name of names) {
    if (name.endsWith('/')) mkdirSync(join(directory, name));
    else writeFileSync(join(directory, name), '');
  }
}

describe('a reset', () => {
  test.for([[['thesis.txt']], [['postgres/', 'logs/']], [['compile-cache/', 'photos/']]])(
    'leaves a directory of somebody else as it is, and names it: %j',
    async ([names = []]) => {
      fill('start.lock', ...names);
      const before = readdirSync(directory);
      const reset = forgetKept(directory);
      await expect(reset).rejects.toThrow(StartFailure);
      await expect(reset).rejects.toThrow(directory);
      expect(readdirSync(directory)).toEqual(before);
    },
  );

  test.for(['issuer-keys.json', 'livekit-key.json', 'postgres.password', 'postgres.password.new'])(
    'knows its own directory by %s, and removes what was kept there, but nothing else',
    async (sign) => {
      fill('start.lock', 'postgres/', 'logs/', 'compile-cache/', 'thesis.txt', sign);
      fill('postgres/PG_VERSION', 'issuer-keys.json.new');
      await forgetKept(directory);
      expect(readdirSync(directory).toSorted()).toEqual(['start.lock', 'thesis.txt']);
    },
  );

  test.for([[[]], [['logs/', 'compile-cache/']]])(
    'has nothing to do where nothing was kept: %j',
    async ([names = []]) => {
      fill('start.lock', ...names);
      await forgetKept(directory);
      expect(readdirSync(directory)).toContain('start.lock');
    },
  );
});

test.for(['file', 'file/below'])('says that a file stands where the directory should be: %s', async (path) => {
  fill('file');
  const taking = takeRunLock(join(directory, path));
  await expect(taking).rejects.toThrow(StartFailure);
  await expect(taking).rejects.toThrow(`DATA_DIR is ${join(directory, path)}, where no directory can be made`);
});
