import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const sources = new URL('../src/', import.meta.url);
const names = readdirSync(sources).filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'));

/** Two equal sets of facts must give one answer, on every machine and at every time. */
const impure =
  /\bDate\.now\b|\bnew Date\b|\bDate\(\)|\bMath\.random\b|\b(?:performance|process|crypto|console|globalThis)\b|\bset(?:Timeout|Interval|Immediate)\b|\bfetch\(|\bimport\(|\brequire\(/;

test.each(names)('%s has no clock, chance or input of its own', (name) => {
  const code = readFileSync(new URL(name, sources), 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, '');
  expect(code).not.toMatch(impure);
});

test.each(names)('%s imports only its neighbours and the contracts', (name) => {
  const imports = readFileSync(new URL(name, sources), 'utf8').matchAll(/\bfrom '([^']+)'/g);
  const foreign = [...imports]
    .map(([, from]) => from ?? '')
    .filter((from) => !/^\.\/[a-z-]+\.ts$|^@realtime-service\/contracts$/.test(from));
  expect(foreign).toEqual([]);
});
