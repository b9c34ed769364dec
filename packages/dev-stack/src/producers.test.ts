import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { PartAbsent, silently } from './part.ts';
import { prepareGoProducer, prepareJavaProducers, preparePython } from './producers.ts';

let machine: string;
beforeEach(() => {
  machine = mkdtempSync(join(tmpdir(), 'producers-'));
  vi.stubEnv('PATH', machine);
  vi.stubEnv('XDG_CACHE_HOME', machine);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(machine, { recursive: true });
});
const has = (...names: readonly string[]): void => {
  for (const name of names) symlinkSync('/bin/false', join(machine, name));
};

test.each([
  ['Java producers', prepareJavaProducers, 'there is no java, no javac, no mvn on the PATH.'],
  ['Python producers', preparePython, 'there is no python3, no pip3 on the PATH.'],
  ['Go producer', prepareGoProducer, 'there is no go on the PATH.'],
])('without its programs, a part is absent and says what is missing: %s', async (part, prepare, missing) => {
  await expect(prepare(silently)).rejects.toMatchObject({ name: 'PartAbsent', part, missing });
});

test('what a machine lacks alone is named', async () => {
  has('java', 'mvn');
  await expect(prepareJavaProducers(silently)).rejects.toMatchObject({ missing: 'there is no javac on the PATH.' });
});

test('libraries that cannot be fetched are absent too', async () => {
  has('java', 'javac', 'mvn', 'go');
  for (const prepare of [prepareJavaProducers, prepareGoProducer]) {
    const preparing = prepare(silently);
    await expect(preparing).rejects.toThrow('its libraries could not be fetched');
    await expect(preparing).rejects.toBeInstanceOf(PartAbsent);
  }
});
