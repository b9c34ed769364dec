import { spawnSync } from 'node:child_process';
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));
const biome = join(root, 'node_modules', '@biomejs', 'biome', 'bin', 'biome');

/** One violation each. */
const violations: readonly (readonly [path: string, rule: string, code: string])[] = [
  [
    'packages/room-model/src/input.ts',
    'noRestrictedImports',
    "import { readFile } from 'node:fs';\nreadFile('x', console.log);",
  ],
  ['packages/room-model/src/clock.ts', 'noJsRestrictedProperties', 'export const nowMs = Date.now();'],
  ['packages/room-model/src/chance.ts', 'noJsRestrictedProperties', 'export const chance = Math.random();'],
  ['packages/room-model/src/timer.ts', 'noRestrictedGlobals', 'setTimeout(() => undefined, 1);'],
  ['packages/contracts/src/server.ts', 'noRestrictedImports', "export { fastify } from 'fastify';"],
  ['packages/contracts/src/platform.ts', 'noRestrictedImports', "export { readFile } from 'node:fs';"],
  ['packages/room-store/src/log.ts', 'noRestrictedImports', "export { topics } from '@realtime-service/event-log';"],
  [
    'packages/event-log/src/store.ts',
    'noRestrictedImports',
    "export { readFacts } from '@realtime-service/room-store';",
  ],
  [
    'packages/telemetry/src/store.ts',
    'noRestrictedImports',
    "export { readFacts } from '@realtime-service/room-store';",
  ],
  ['services/api/src/other.ts', 'noRestrictedImports', "export { sweep } from '@realtime-service/room-worker';"],
  ['services/api/src/dev.ts', 'noRestrictedImports', "export { startIssuer } from '@realtime-service/dev-stack';"],
  [
    'services/cli/src/for-tests.ts',
    'noRestrictedImports',
    "export { readProjection } from '@realtime-service/room-store/read-projection';",
  ],
  ['services/room-worker/src/kafka.ts', 'noRestrictedImports', "export { Kafka } from 'kafkajs';"],
  ['services/api/src/environment.ts', 'noProcessEnv', "export const host = process.env['HOST'];"],
  ['services/api/src/print.ts', 'noConsole', "console.log('hello');"],
  ['services/api/src/default.ts', 'noDefaultExport', 'export default 1;'],
  ['services/api/src/any.ts', 'noExplicitAny', 'export const anything = (value: any): unknown => value;'],
  ['services/api/src/CamelCase.ts', 'useFilenamingConvention', 'export const one = 1;'],
  ['services/api/src/extension.ts', 'useImportExtensions', "export { one } from './exhaustive';"],
  [
    'services/api/src/floating.ts',
    'noFloatingPromises',
    'async function later(): Promise<number> {\n  return 1;\n}\nexport function now(): void {\n  later();\n}',
  ],
  [
    'services/api/src/exhaustive.ts',
    'useExhaustiveSwitchCases',
    "export function name(kind: 'a' | 'b'): string {\n  switch (kind) {\n    case 'a':\n      return 'A';\n  }\n  return '';\n}",
  ],
];

/** What the same rules must let pass. */
const allowed: readonly (readonly [path: string, code: string])[] = [
  ['packages/room-model/src/parse.ts', "export const atMs = Date.parse('2026-01-01T00:00:00Z') + Math.max(1, 2);"],
  [
    'packages/room-model/src/neighbour.ts',
    "export { atMs } from './parse.ts';\nexport { topics } from '@realtime-service/contracts';",
  ],
  ['packages/room-model/src/clock.test.ts', 'export const nowMs = Date.now();'],
  ['packages/contracts/src/schema.ts', "export { z } from 'zod';"],
  [
    'packages/room-store/src/database/database.ts',
    "export { Pool } from 'pg';\nexport { authorise } from '@realtime-service/room-model';",
  ],
  ['services/api/src/config.ts', "export const host = process.env['HOST'];"],
  ['services/api/src/app.test.ts', "export { startIssuer } from '@realtime-service/dev-stack';"],
  ['vitest.config.ts', 'export default {};'],
];

let folder: string;
let diagnostics: { readonly category: string; readonly location: { readonly path: string } }[];
const rulesBroken = (path: string) =>
  diagnostics.filter(({ location }) => location.path === path).map(({ category }) => category.split('/').at(-1));

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'lint-rules-'));
  const write = (path: string, text: string) => {
    mkdirSync(join(folder, dirname(path)), { recursive: true });
    writeFileSync(join(folder, path), `${text}\n`);
  };
  for (const [path, , code] of violations) write(path, code);
  for (const [path, code] of allowed) write(path, code);
  const own = globSync(['biome.json', '{packages,services}/*/package.json'], { cwd: root });
  for (const path of own) write(path, readFileSync(join(root, path), 'utf8'));
  spawnSync('git', ['init', '-q'], { cwd: folder });

  const args = [biome, 'lint', '--reporter=json', '--max-diagnostics=1000', '.'];
  const { stdout } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
  diagnostics = JSON.parse(stdout).diagnostics;
}, 30_000);
afterAll(() => rmSync(folder, { recursive: true }));

describe('the linter refuses', () => {
  test.each(violations)('%s (%s)', (path, rule) => {
    expect(rulesBroken(path)).toContain(rule);
  });
});

describe('the linter lets pass', () => {
  test.each(allowed)('%s', (path) => {
    expect(rulesBroken(path)).toEqual([]);
  });
});
