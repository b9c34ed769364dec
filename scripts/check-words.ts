// Says where the tree holds what it may not: a path of somebody's machine, work put off, a check silenced; or a
// comment that no formatter wraps.
import { existsSync, readFileSync } from 'node:fs';
import { trackedFiles } from './tracked-files.ts';

const forbidden = [
  { what: "a path of somebody's machine", pattern: /(?<![\w.~:/}])\/(?:home|root|Users|work)\/[\w.-]+/ },
  { what: 'a comment wider than 120 columns', pattern: /^(?=.{121})\s*(?:\/\/|\/?\*)/ },
  { what: 'work put off', pattern: /\b(?:TODO|FIXME|HACK)\b/ },
  {
    what: 'a check silenced',
    pattern: /biome-ignore|eslint-disable|@ts-(?:ignore|expect-error|nocheck)|\b(?:v8|c8|istanbul) ignore/,
  },
];
const excepted = new Set(['pnpm-lock.yaml', 'scripts/check-words.ts']);

const files = trackedFiles('.').filter((path) => !excepted.has(path) && existsSync(path));
const faults = files.flatMap((path) =>
  readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line, index) =>
      forbidden
        .filter(({ pattern }) => pattern.test(line))
        .map(({ what }) => `${path}:${index + 1}: ${what}: ${line.trim().slice(0, 120)}`),
    ),
);
for (const line of faults) console.log(line);
console.log(`${files.length} files, ${faults.length} faults`);
process.exitCode = faults.length === 0 ? 0 : 1;
