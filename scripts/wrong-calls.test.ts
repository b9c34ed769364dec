import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

// Each takes minutes once it runs.
test.each([
  ['check', '--help', 0],
  ['check', '--fix', 2],
  ['mutants', '--help', 0],
  ['mutants', '--only', 2],
])('npm run %s -- %s runs nothing', (script, argument, status) => {
  const program = fileURLToPath(new URL(`${script}.ts`, import.meta.url));
  const { stdout, stderr, ...ended } = spawnSync(process.execPath, [program, argument], { encoding: 'utf8' });
  const told = expect.stringMatching(new RegExp(`^(?:Unknown option '${argument}'\\n)?npm run ${script}.*\\n$`));
  expect({ status: ended.status, told: stdout + stderr }).toEqual({ status, told });
});
