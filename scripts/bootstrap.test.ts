import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

// A workspace of stand-ins: npm records how it was called and lays down the "workspace's Node"; the programs that
// the bootstrap hands over to say what they were given.
const npm = `
import { appendFileSync, mkdirSync, symlinkSync, existsSync } from 'node:fs';
appendFileSync('npm-calls', process.argv.slice(2).join(' ') + '\\n');
if (existsSync('registry-is-away')) process.exit(1);
mkdirSync('node_modules/node/bin', { recursive: true });
if (!existsSync('node_modules/node/bin/node')) symlinkSync(process.execPath, 'node_modules/node/bin/node');
`;
const start = `
process.exitCode = 7;
if (process.argv.includes('--stay')) {
  const staying = setInterval(() => {}, 1000);
  process.once('SIGTERM', () => clearInterval(staying));
}
console.log('started', ...process.argv.slice(2));
`;
const vitest = `
import { readFileSync, writeFileSync } from 'node:fs';
const results = readFileSync('results.json', 'utf8');
writeFileSync(process.argv.find((argument) => argument.startsWith('--outputFile.json=')).split('=')[1], results);
process.exitCode = JSON.parse(results).success ? 0 : 1;
`;

let folder: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bootstrap-'));
  const write = (path: string, text: string) => {
    mkdirSync(join(folder, path, '..'), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  write(
    'package.json',
    '{"type":"module","packageManager":"pnpm@1.2.3","scripts":{"start":"node scripts/bootstrap.mjs start"}}',
  );
  write('pnpm-lock.yaml', 'lockfileVersion: 9');
  write('pnpm-workspace.yaml', 'packages: []');
  write('npm-cli.js', npm);
  write('packages/dev-stack/src/start.ts', start);
  write('node_modules/vitest/vitest.mjs', vitest);
  mkdirSync(join(folder, 'scripts'));
  cpSync(join(import.meta.dirname, 'bootstrap.mjs'), join(folder, 'scripts', 'bootstrap.mjs'));
});

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

function bootstrap(...args: string[]) {
  const env = { ...process.env, npm_execpath: join(folder, 'npm-cli.js') };
  return spawnSync(process.execPath, ['scripts/bootstrap.mjs', ...args], { cwd: folder, encoding: 'utf8', env });
}

function npmCalls() {
  return existsSync(join(folder, 'npm-calls'))
    ? readFileSync(join(folder, 'npm-calls'), 'utf8').trim().split('\n')
    : [];
}

describe('installing', () => {
  test('happens at the first start, with the pinned pnpm and the frozen lockfile', () => {
    expect(bootstrap('start', '--reset').stdout).toMatch(/^started --reset$/m);
    expect(npmCalls()).toEqual(['exec --yes --package=pnpm@1.2.3 -- pnpm install --frozen-lockfile']);
  });

  test('is skipped while the lockfile stays as it is, and repeated when it changes', () => {
    bootstrap('start');
    bootstrap('start');
    expect(npmCalls()).toHaveLength(1);
    writeFileSync(join(folder, 'pnpm-lock.yaml'), 'lockfileVersion: 9\n# changed');
    bootstrap('start');
    expect(npmCalls()).toHaveLength(2);
  });

  test('that failed says why it may have, starts nothing, and is tried again', () => {
    writeFileSync(join(folder, 'registry-is-away'), '');
    const { status, stderr, stdout } = bootstrap('start');
    expect({ status, stdout }).toMatchObject({ status: 1, stdout: expect.not.stringMatching(/^started/m) });
    expect(stderr).toContain('npm registry must be reachable');
    rmSync(join(folder, 'registry-is-away'));
    expect(bootstrap('start').status).toBe(7);
  });
});

describe('handing over', () => {
  test('passes the exit code on', () => {
    expect(bootstrap('start').status).toBe(7);
  });

  test('leaves out the dashes that pnpm hands on', () => {
    expect(bootstrap('start', '--', '--reset').stdout).toMatch(/^started --reset$/m);
  });

  test('refuses a command that it does not know', () => {
    expect(bootstrap('stop')).toMatchObject({ status: 1, stderr: expect.stringContaining('start|test') });
    expect(npmCalls()).toEqual([]);
  });

  test.skipIf(process.platform === 'win32').each(['bootstrap', 'npm'])(
    'a SIGTERM to %s ends the program',
    async (target) => {
      bootstrap('start');
      const args = target === 'npm' ? ['start', '--', '--stay'] : ['scripts/bootstrap.mjs', 'start', '--stay'];
      const child = spawn(target === 'npm' ? 'npm' : process.execPath, args, {
        cwd: folder,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      children.push(child);
      createInterface({ input: child.stdout }).on('line', (line) => line === 'started --stay' && child.kill('SIGTERM'));
      // The pipe closes when the last process that holds it is gone: no orphan is left.
      const [code, signal] = await once(child, 'close');
      expect(signal ?? code).toBe(target === 'npm' ? 'SIGTERM' : 7);
    },
  );
});

describe('the closing line of the tests', () => {
  const results = (over: object) =>
    writeFileSync(
      join(folder, 'results.json'),
      JSON.stringify({
        success: true,
        numPassedTests: 3,
        numFailedTests: 0,
        numPendingTests: 0,
        numTodoTests: 0,
        testResults: [],
        ...over,
      }),
    );
  const lastLine = (text: string) => text.trim().split('\n').at(-1);

  test('counts what passed', () => {
    results({});
    const { status, stdout } = bootstrap('test');
    expect({ status, line: lastLine(stdout) }).toEqual({ status: 0, line: '3 passed, 0 failed' });
  });

  test('counts what failed, with files that broke before their first test, and what was skipped', () => {
    results({
      success: false,
      numFailedTests: 1,
      numPendingTests: 2,
      testResults: [
        { status: 'failed', assertionResults: [{ status: 'failed' }] },
        { status: 'failed', assertionResults: [] },
      ],
    });
    const { status, stdout } = bootstrap('test');
    expect({ status, line: lastLine(stdout) }).toEqual({ status: 1, line: '3 passed, 2 failed, 2 skipped' });
  });
});
