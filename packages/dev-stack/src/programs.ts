import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

/** The full path of the first of these programs that PATH knows, as a shell would find it. */
export async function findProgram(...names: readonly string[]): Promise<string | undefined> {
  const extensions = process.platform === 'win32' ? ['.exe'] : [''];
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  for (const name of names) {
    for (const folder of folders) {
      for (const extension of extensions) {
        const candidate = join(folder, name + extension);
        if (await isExecutable(candidate)) return candidate;
      }
    }
  }
  return undefined;
}

export async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}
