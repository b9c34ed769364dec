// Writes docs/reference/cli.md from the table of commands; with --check it only compares.
import { readFile, writeFile } from 'node:fs/promises';
import { commands } from '../src/commands.ts';
import { referencePage } from '../src/help.ts';

const file = new URL('../../../docs/reference/cli.md', import.meta.url);
const page = referencePage(commands);
if (!process.argv.includes('--check')) await writeFile(file, page);
else if ((await readFile(file, 'utf8').catch(() => '')) !== page) {
  process.stderr.write(`${file.pathname} is not current: npm run generate makes it so\n`);
  process.exitCode = 1;
}
