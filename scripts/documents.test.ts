import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { trackedFiles } from './tracked-files.ts';

let repository: string;
beforeEach(() => {
  repository = mkdtempSync(join(tmpdir(), 'documents-'));
  spawnSync('git', ['init', '-q'], { cwd: repository });
});
afterEach(() => rmSync(repository, { recursive: true }));

function check(script: string, files: Record<string, string>) {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(repository, dirname(path)), { recursive: true });
    writeFileSync(join(repository, path), text);
  }
  const { status, stdout } = spawnSync(process.execPath, [join(import.meta.dirname, script)], {
    cwd: repository,
    encoding: 'utf8',
  });
  return { status, faults: stdout.trim().split('\n').slice(0, -1) };
}

describe('links', () => {
  const links = (markdown: string) =>
    check('check-links.ts', {
      'README.md': markdown,
      'docs/guide.md':
        '# The guide\n\n## Run `npm start`, twice!\n\n## Ports\n\n## Ports\n\n```\n# not a heading\n```\n',
      LICENSE: 'free',
    });

  test.each([
    '[file](LICENSE)',
    '[folder](docs/)',
    '[from the top](/docs/guide.md)',
    '[heading](docs/guide.md#the-guide)',
    '[punctuation](docs/guide.md#run-npm-start-twice)',
    '[repeated](docs/guide.md#ports-1)',
    '# Here\n\n[own heading](#here)',
    '![image](LICENSE "with a title")',
    '[reference][1]\n\n[1]: docs/guide.md',
    '[other site](https://example.com/nowhere)',
    'code: `[a](nowhere)`',
    '```\n[a](nowhere)\n```',
  ])('%s resolves', (markdown) => {
    expect(links(markdown)).toEqual({ status: 0, faults: [] });
  });

  test.each([
    ['[file](nowhere.md)', 'nowhere.md'],
    ['[heading](docs/guide.md#elsewhere)', 'docs/guide.md#elsewhere'],
    ['[heading in code](docs/guide.md#not-a-heading)', 'docs/guide.md#not-a-heading'],
    ['[own heading](#nowhere)', '#nowhere'],
    ['![image](nowhere.png "with a title")', 'nowhere.png'],
    ['[reference][1]\n\n[1]: nowhere.md', 'nowhere.md'],
  ])('%s is broken', (markdown, link) => {
    expect(links(markdown)).toEqual({ status: 1, faults: [`README.md: ${link}`] });
  });
});

describe('words', () => {
  // Put together here, so that this file does not hold what it may not.
  test.each([
    ['a path', ['const data = "', 'home/ann/data"'].join('/')],
    ['work put off', `// TO${'DO'}: later`],
    ['a silenced check', `// biome-${'ignore'} lint: because`],
  ])('%s is a fault', (_, line) => {
    const { status, faults } = check('check-words.ts', { 'src/a.ts': `\n${line}\n` });
    expect({ status, faults }).toEqual({ status: 1, faults: [expect.stringMatching(/^src\/a\.ts:2: /)] });
  });

  test.each(['https://example.com/home/page', '~/work/x', 'WORKDIR /srv', 'a /dev/null', 'the root/cause', 'todo'])(
    '%s is none',
    (line) => {
      expect(check('check-words.ts', { 'src/a.ts': line })).toEqual({ status: 0, faults: [] });
    },
  );
});

test('pnpm is called by the version that the project runs on: another one fetches that itself, not from every registry', () => {
  const { packageManager } = JSON.parse(readFileSync('package.json', 'utf8'));
  const called = trackedFiles('*.md').flatMap((path) => readFileSync(path, 'utf8').match(/\bpnpm@[\d.]*\d/g) ?? []);
  expect(called.length).toBeGreaterThan(1);
  expect(new Set(called)).toEqual(new Set([packageManager]));
});
