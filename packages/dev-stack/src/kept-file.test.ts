import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { readOrMake } from './kept-file.ts';
import { StartFailure } from './start-failure.ts';

const Key = z.object({ name: z.string() });

let directory: string;
let file: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'kept-file-'));
  file = join(directory, 'key.json');
});
afterEach(() => rmSync(directory, { recursive: true }));

test('is made once, for its owner alone, and leaves nothing beside it', async () => {
  expect(await readOrMake(file, Key, () => ({ name: 'first' }))).toEqual({ name: 'first' });
  expect(await readOrMake(file, Key, () => ({ name: 'second' }))).toEqual({ name: 'first' });
  expect(readdirSync(directory)).toEqual(['key.json']);
  if (process.platform !== 'win32') expect(statSync(file).mode & 0o777).toBe(0o600);
});

test.for(['{', '{}', '', 'null'])('is told to be damaged when it holds %j', async (content) => {
  writeFileSync(file, content);
  const reading = readOrMake(file, Key, () => ({ name: 'new' }));
  await expect(reading).rejects.toThrow(StartFailure);
  await expect(reading).rejects.toThrow(`${file} is damaged`);
  await expect(reading).rejects.toThrow('--reset');
});

test('is told to be unreadable where a folder has its name', async () => {
  mkdirSync(file);
  await expect(readOrMake(file, Key, () => ({ name: 'new' }))).rejects.toThrow(`${file} cannot be read (EISDIR)`);
});
