import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';

/** What a producer may get wrong, each on a line of its own, and what the compiler is to say of it. */
const mistakes: readonly (readonly [event: string, says: string | null])[] = [
  ["{ type: 'member.aded', subject: 'r', data: { userId: 'ann', role: 'host' } }", `Did you mean '"member.added"'?`],
  ["{ type: 'member.added', subject: 'r', data: { userid: 'ann', role: 'host' } }", "Did you mean to write 'userId'?"],
  ["{ type: 'member.added', subject: 'r', data: { userId: 'ann', role: 'hostt' } }", `Did you mean '"host"'?`],
  [
    "{ type: 'member.updated', subject: 'r', data: { userId: 'ann', displayname: 'Ann' } }",
    "Did you mean to write 'displayName'?",
  ],
  ["{ type: 'room.closed', subject: 'r', data: { raeson: 'over' } }", "Did you mean to write 'reason'?"],
  ["{ type: 'room.created', subject: 'r' }", "Property 'data' is missing"],
  ["{ type: 'room.locked', subject: 'r' }", null],
  ["{ type: 'room.locked', subject: 'r', data: {} }", null],
];

const source = fileURLToPath(new URL('../src/index.ts', import.meta.url));
const compiler = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc');
const folder = mkdtempSync(join(dirname(source), '..', 'node_modules', '.mistakes-'));
afterAll(() => rmSync(folder, { recursive: true }));

let complaints: string[] = [];
beforeAll(() => {
  const file = join(folder, 'mistakes.ts');
  const lines = mistakes.map(([event]) => `void publisher.publish([${event}]);`);
  const imports = `import type { RoomEventPublisher } from ${JSON.stringify(source)};`;
  writeFileSync(file, [`${imports} declare const publisher: RoomEventPublisher;`, ...lines].join('\n'));
  const flags = ['--noEmit', '--strict', '--allowImportingTsExtensions', '--ignoreConfig', '--pretty', 'false'];
  const modules = ['--module', 'nodenext', '--target', 'es2024', '--types', ''];
  const { stdout } = spawnSync(process.execPath, [compiler, ...flags, ...modules, file], { encoding: 'utf8' });
  complaints = stdout.split(/^(?=\S)/m);
}, 60_000);

const lineOf = (complaint: string): number => Number(/mistakes\.ts\((\d+),/.exec(complaint)?.[1]);

test.each(mistakes.map(([event, says], at) => ({ event, says, line: at + 2 })))('$event: $says', ({ says, line }) => {
  const told = complaints.filter((complaint) => lineOf(complaint) === line);
  expect(told).toEqual(says === null ? [] : [expect.stringContaining(says)]);
});

test('nothing else is wrong', () => {
  expect(complaints.filter((complaint) => !(lineOf(complaint) > 1))).toEqual([]);
});
