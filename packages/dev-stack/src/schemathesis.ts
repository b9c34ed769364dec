import { join } from 'node:path';
import { PartAbsent, type Report } from './part.ts';
import type { Command } from './process-part.ts';
import { findProgram } from './programs.ts';
import { pythonLibraries } from './python-libraries.ts';

const version = '4.32.5';

/** Schemathesis asks an api for what its OpenAPI document says; its own arguments follow. @throws {PartAbsent} */
export async function prepareSchemathesis(report: Report): Promise<Command> {
  const [python, pip] = [await findProgram('python3'), await findProgram('pip3')];
  if (python === undefined || pip === undefined) throw absent('there is no python3 with pip3 on the PATH.');
  const name = `schemathesis-${version}`;
  const libraries = await pythonLibraries(python, name, [`schemathesis==${version}`], report).catch(
    (cause: unknown) => {
      throw absent('it could not be fetched.', cause);
    },
  );
  return { command: python, args: [join(libraries, 'bin', 'schemathesis')], env: { PYTHONPATH: libraries } };
}

function absent(missing: string, cause?: unknown): PartAbsent {
  const consequence = 'The api is not held to its OpenAPI document.';
  return new PartAbsent({ part: 'Schemathesis', missing, consequence }, { cause });
}
