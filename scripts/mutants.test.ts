import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { applyMutant, mutants } from './mutant-list.ts';

const root = fileURLToPath(new URL('../', import.meta.url));

test.each(mutants)('the mutant "$name" applies, and the test that catches it is there', (mutant) => {
  const copy = mkdtempSync(join(tmpdir(), 'realtime-service-mutant-'));
  try {
    for (const { path } of mutant.edits) {
      mkdirSync(dirname(join(copy, path)), { recursive: true });
      writeFileSync(join(copy, path), readFileSync(join(root, path)));
    }
    applyMutant(copy, mutant);
  } finally {
    rmSync(copy, { recursive: true });
  }
  expect(globSync(mutant.caughtBy.file, { cwd: root })).toHaveLength(1);
});
