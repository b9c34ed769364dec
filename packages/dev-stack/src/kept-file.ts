import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { z } from 'zod';
import { errorCode } from './error-code.ts';
import { StartFailure } from './start-failure.ts';

/**
 * What the file holds as JSON, for its owner alone; where there is none, it is made, whole or not at all.
 * @throws {StartFailure} when it holds anything else
 */
export async function readOrMake<T>(file: string, schema: z.ZodType<T>, make: () => T | Promise<T>): Promise<T> {
  const text = await readIfThere(file);
  if (text !== undefined) return parse(file, schema, text);
  const made = await make();
  await mkdir(dirname(file), { recursive: true });
  await writeFile(`${file}.new`, JSON.stringify(made), { mode: 0o600 });
  await rename(`${file}.new`, file);
  return made;
}

/** Makes a file that is not there yet; false where it is. */
export async function writeNew(file: string, content: string): Promise<boolean> {
  try {
    await writeFile(file, content, { flag: 'wx' });
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  }
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    const code = errorCode(error) ?? error;
    if (code === 'ENOENT') return undefined;
    throw new StartFailure(`${file} cannot be read (${code}).`, { cause: error });
  }
}

function parse<T>(file: string, schema: z.ZodType<T>, text: string): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new StartFailure(
      `${file} is damaged: it does not hold the keys that an earlier start wrote. Remove it and new ones are made; ` +
        '"npm start -- --reset" throws away everything that was kept.',
      { cause },
    );
  }
}
