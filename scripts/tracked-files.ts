import { spawnSync } from 'node:child_process';

/** The files that git tracks below the working directory, or would after `git add`. */
export function trackedFiles(pattern: string): string[] {
  const args = ['ls-files', '--cached', '--others', '--exclude-standard', '-z', '--', pattern];
  const { status, stdout, stderr } = spawnSync('git', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`git ls-files: ${stderr}`);
  return stdout.split('\0').filter((path) => path !== '');
}
