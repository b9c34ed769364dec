// Installs the packed package into an empty project, and compiles and runs the README's example there.
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

const [tarball] = process.argv.slice(2);
if (tarball === undefined) throw new Error('Usage: node scripts/try-package.ts <tarball>');

const packageOf = (name: string): string => dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
const node = (cwd: string, ...args: string[]): string =>
  execFileSync(process.execPath, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
const example = /```ts\n(.*?)```/s.exec(readme)?.[1];
if (example === undefined) throw new Error('README.md has no example in TypeScript');

const project = realpathSync(mkdtempSync(join(tmpdir(), 'contracts-consumer-')));
try {
  const scope = join(project, 'node_modules', '@realtime-service');
  mkdirSync(scope, { recursive: true });
  execFileSync('tar', ['-xzf', resolve(tarball), '-C', scope]);
  renameSync(join(scope, 'package'), join(scope, 'contracts'));
  symlinkSync(realpathSync(packageOf('zod')), join(project, 'node_modules', 'zod'), 'junction');

  const compilerOptions = {
    target: 'es2024',
    lib: ['es2024', 'dom'],
    types: [],
    module: 'nodenext',
    strict: true,
    exactOptionalPropertyTypes: true,
  };
  writeFileSync(join(project, 'package.json'), JSON.stringify({ type: 'module' }));
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
  writeFileSync(join(project, 'example.ts'), example);
  node(project, join(packageOf('typescript'), 'bin', 'tsc'));
  const printed = node(project, 'example.js');
  for (const expected of ['"ce_type": "room.created"', '"key": "standup"', 'join with at_least = W1sicm'])
    if (!printed.includes(expected)) throw new Error(`The example did not print ${expected}`);
} finally {
  rmSync(project, { recursive: true, force: true });
}
