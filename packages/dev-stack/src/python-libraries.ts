import { cached } from './cache.ts';
import type { Report } from './part.ts';
import { runCommand } from './process-part.ts';

/** A folder with what pip makes of these arguments, fetched once per machine and version of Python. */
export async function pythonLibraries(
  python: string,
  name: string,
  wanted: readonly string[],
  report: Report,
): Promise<string> {
  const version = (await runCommand({ command: python, args: ['--version'] })).trim().replace(' ', '-').toLowerCase();
  return cached(`${version}-${name}`, report, async (directory) => {
    report(`fetching what Python needs for ${name}, once …`);
    const quietly = ['--quiet', '--disable-pip-version-check', '--root-user-action=ignore'];
    const args = ['-m', 'pip', 'install', ...quietly, '--target', directory, ...wanted];
    await runCommand({ command: python, args });
  });
}
