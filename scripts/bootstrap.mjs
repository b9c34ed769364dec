// `npm start` and `npm test` on a machine that has Node ≥ 20 and npm, and nothing else: installs the workspace when
// it is not current, then hands over to the Node 24 that the workspace brings along. Plain JavaScript, since the Node
// that runs it may not know types; no shell, since Windows has another one.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const node24 = join(root, 'node_modules', 'node', 'bin', process.platform === 'win32' ? 'node.exe' : 'node');

/** An outcome to be told in one sentence, without a stack. */
class Failure extends Error {}

const commands = {
  start: (args) => run(node24, ['packages/dev-stack/src/start.ts', ...args]),
  test: runTests,
};

try {
  const [name, ...said] = process.argv.slice(2);
  // pnpm hands on the `--` that npm takes for itself.
  const args = said[0] === '--' ? said.slice(1) : said;
  if (!Object.hasOwn(commands, name ?? ''))
    throw new Failure('Usage: node scripts/bootstrap.mjs start|test [arguments]');
  await installUnlessCurrent();
  process.exitCode = await commands[name](args);
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`\n${error.message}`);
  process.exitCode = 1;
}

/** Installs what the lockfile says, unless a complete installation of that very lockfile is there. */
async function installUnlessCurrent() {
  const installed = join(root, 'node_modules', '.installed-lockfile');
  const wanted = createHash('sha256')
    .update(readFileSync(join(root, 'pnpm-lock.yaml')))
    .update(readFileSync(join(root, 'pnpm-workspace.yaml')))
    .digest('hex');
  if (existsSync(node24) && existsSync(installed) && readFileSync(installed, 'utf8') === wanted) return;

  const nodeMajor = Number.parseInt(process.versions.node, 10);
  if (nodeMajor < 20)
    throw new Failure(`Node ${process.versions.node} is too old to install the project: it takes 20.`);
  console.log('Installing the dependencies (a minute or two the first time) …');
  const exitCode = await run(process.execPath, [...packageManager(), 'install', '--frozen-lockfile']);
  if (exitCode > 128) process.exit(exitCode); // A signal, Ctrl-C most likely: nothing to explain.
  if (exitCode !== 0) {
    throw new Failure(
      'The dependencies could not be installed; the reason is above. The npm registry must be reachable: behind a ' +
        'proxy or with a mirror, `npm config set proxy` or `npm config set registry` tells where it is.',
    );
  }
  writeFileSync(installed, wanted);
}

/** Arguments for Node that run pnpm: the one that runs us, else the pinned version by way of npm. */
function packageManager() {
  const runner = process.env.npm_execpath ?? '';
  if (/[/\\]pnpm\.[cm]?js$/.test(runner)) return [runner];
  const nodeFolder = dirname(process.execPath);
  const npm = [
    runner,
    join(nodeFolder, '..', 'lib', 'node_modules', 'npm', 'bin', 'npm-cli.js'),
    join(nodeFolder, 'node_modules', 'npm', 'bin', 'npm-cli.js'),
  ].find((path) => path.endsWith('npm-cli.js') && existsSync(path));
  if (npm === undefined) throw new Failure('npm was not found. Start this through npm: `npm start` or `npm test`.');
  const { packageManager: pnpm } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return [npm, 'exec', '--yes', `--package=${pnpm}`, '--', 'pnpm'];
}

/** Runs every test; the closing line is the one that continuous integration reads. */
async function runTests(args) {
  const folder = mkdtempSync(join(tmpdir(), 'realtime-service-test-'));
  const results = join(folder, 'results.json');
  try {
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${results}`];
    // The tests start hundreds of processes: each source is compiled once for all of them.
    const env = { ...process.env, NODE_COMPILE_CACHE: join(folder, 'compiled') };
    const exitCode = await run(node24, ['node_modules/vitest/vitest.mjs', 'run', ...reporters, ...args], env);
    if (existsSync(results)) console.log(summary(JSON.parse(readFileSync(results, 'utf8'))));
    return exitCode;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A file that fails before its first test (an import, a hook) holds no failed test, and still counts as one. */
function summary({ numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults }) {
  const isBroken = (file) =>
    file.status === 'failed' && !file.assertionResults.some((assertion) => assertion.status === 'failed');
  const failed = numFailedTests + testResults.filter(isBroken).length;
  const skipped = numPendingTests + numTodoTests;
  return `${numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

/** Resolves to the child's exit code, as a shell counts it: 128 + n after signal n. */
function run(file, args, env = process.env) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { cwd: root, stdio: 'inherit', env });
    const forward = (signal) => child.kill(signal);
    // A terminal sends Ctrl-C to the child as well; a second one would read as impatience.
    const onInterrupt = (signal) => process.stdin.isTTY || forward(signal);
    process.on('SIGINT', onInterrupt).on('SIGTERM', forward).on('SIGHUP', forward);
    // npm passes a signal to the shell between it and us, which dies of it and tells nobody.
    const parent = process.ppid;
    const watch = () => process.ppid === parent || forward('SIGTERM');
    const watching = process.env.npm_lifecycle_event && setInterval(watch, 250);
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      clearInterval(watching);
      process.off('SIGINT', onInterrupt).off('SIGTERM', forward).off('SIGHUP', forward);
      resolve(code ?? 128 + constants.signals[signal]);
    });
  });
}
