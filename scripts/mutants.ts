// `npm run mutants`: breaks one guard after the other in a copy of the sources and sees that the named test turns red.
// A mutant that no longer applies, that no test catches, or whose test is red without it is a failure: then the proof
// itself is broken.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, globSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { readCall } from '../packages/dev-stack/src/read-call.ts';
import { applyMutant, type Mutant, mutants } from './mutant-list.ts';
import { trackedFiles } from './tracked-files.ts';

readCall('npm run mutants; there is nothing to say to it', (args) => parseArgs({ args }));
const root = fileURLToPath(new URL('../', import.meta.url));

/** The sources as they are, with links that lead to each other and not back. */
const copySources = (): string => {
  const copy = mkdtempSync(join(tmpdir(), 'realtime-service-mutants-'));
  for (const file of trackedFiles('.').filter((path) => existsSync(join(root, path))))
    cpSync(join(root, file), join(copy, file), { force: true });
  for (const folder of globSync('{packages,services}/*/node_modules', { cwd: root }).concat('test/node_modules'))
    cpSync(join(root, folder), join(copy, folder), { recursive: true, verbatimSymlinks: true });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  return copy;
};

interface Assertion {
  readonly fullName: string;
  readonly status: string;
  readonly failureMessages: readonly string[];
}

/** How the named test ends. */
const outcomesOf = (copy: string, { file, title, parts }: Mutant['caughtBy']): readonly Assertion[] => {
  const results = join(copy, 'results.json');
  rmSync(results, { force: true });
  const args = ['run', file, '-t', RegExp.escape(title), '--reporter=json', `--outputFile=${results}`];
  spawnSync(process.execPath, [join('node_modules', 'vitest', 'vitest.mjs'), ...args], {
    cwd: copy,
    env: { ...process.env, REAL_PARTS: parts, RACES: '200', DEADLOCK_SECONDS: '1' },
    stdio: 'ignore',
  });
  const { testResults } = JSON.parse(readFileSync(results, 'utf8')) as {
    testResults: readonly { readonly assertionResults: readonly Assertion[] }[];
  };
  return testResults
    .flatMap(({ assertionResults }) => assertionResults)
    .filter(({ fullName }) => fullName.includes(title));
};

const assertPasses = (outcomes: readonly Assertion[]): void => {
  if (outcomes.length === 0) throw new Error('the test is not there');
  const other = outcomes.find(({ status }) => status !== 'passed');
  if (other !== undefined) throw new Error(`without the mutant the test is ${other.status} as well`);
};

/** What the test says when it fails, or null. */
const complaintOf = (outcomes: readonly Assertion[]): string | null => {
  const failed = outcomes.find(({ status }) => status === 'failed');
  return failed === undefined ? null : (failed.failureMessages[0]?.split('\n')[0] ?? '');
};

const copy = copySources();
/** Applies the mutant, asks the test, and takes the mutant back; false where it does not apply or survives. */
const isCaught = (mutant: Mutant): boolean => {
  const intact = new Map<string, string>();
  try {
    for (const { path } of mutant.edits) intact.set(path, readFileSync(join(copy, path), 'utf8'));
    assertPasses(outcomesOf(copy, mutant.caughtBy));
    applyMutant(copy, mutant);
    const complaint = complaintOf(outcomesOf(copy, mutant.caughtBy));
    const { file, title } = mutant.caughtBy;
    console.log(`${complaint === null ? 'SURVIVED' : 'caught'}  ${mutant.name}\n    ${file} › ${title}`);
    if (complaint !== null) console.log(`    ${complaint}`);
    return complaint !== null;
  } catch (error) {
    console.log(`FAILED  ${mutant.name}\n    ${error instanceof Error ? error.message : String(error)}`);
    return false;
  } finally {
    for (const [path, text] of intact) writeFileSync(join(copy, path), text);
  }
};

try {
  const caught = mutants.filter(isCaught).length;
  console.log(`${caught} of ${mutants.length}`);
  process.exitCode = caught === mutants.length ? 0 : 1;
} finally {
  rmSync(copy, { recursive: true, force: true });
}
