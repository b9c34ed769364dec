/** The examples of `docs/producers`, ready to run. What their languages need is fetched once per machine. */
import { createHash } from 'node:crypto';
import { globSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cached } from './cache.ts';
import { copyDependencies } from './maven.ts';
import { PartAbsent, type Report } from './part.ts';
import { type Command, runCommand } from './process-part.ts';
import { findProgram } from './programs.ts';
import { pythonLibraries } from './python-libraries.ts';

const examples = fileURLToPath(new URL('../../../docs/producers', import.meta.url));

/** The producers of the folder `java`; the name of the class follows `args`. */
export async function prepareJavaProducers(report: Report): Promise<Command> {
  const [java, javac] = await programs('Java producers', ['java', 'javac', 'mvn']);
  const folder = join(examples, 'java');
  const pom = join(folder, 'pom.xml');
  const sources = globSync('*.java', { cwd: folder }).map((name) => join(folder, name));
  const built = await cached(await nameOf('java-producers', [pom, ...sources]), report, async (directory) => {
    report('fetching the libraries of the Java producers (25 MB), once …');
    const libraries = join(directory, 'libraries');
    await mkdir(libraries);
    await orAbsent('Java producers', copyDependencies(pom, libraries));
    await runCommand({ command: javac, args: ['-cp', join(libraries, '*'), '-d', directory, ...sources] });
  });
  const classpath = [built, join(built, 'libraries', '*')].join(delimiter);
  return { command: java, args: ['-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC', '-cp', classpath] };
}

/** Python with the libraries of the folder `python`; the path of a program follows. */
export async function preparePython(report: Report): Promise<Command> {
  const [python] = await programs('Python producers', ['python3', 'pip3']);
  const requirements = join(examples, 'python', 'requirements.txt');
  const name = await nameOf('producers', [requirements]);
  const libraries = await orAbsent('Python producers', pythonLibraries(python, name, ['-r', requirements], report));
  return { command: python, args: [], env: { PYTHONPATH: libraries } };
}

/** The producer of the folder `go`. */
export async function prepareGoProducer(report: Report): Promise<Command> {
  const [go] = await programs('Go producer', ['go']);
  const folder = join(examples, 'go');
  const sources = ['go.mod', 'go.sum', 'main.go'].map((name) => join(folder, name));
  const built = await cached(await nameOf('go-producer', sources), report, async (directory) => {
    report('building the Go producer, about 20 seconds, once …');
    await orAbsent('Go producer', runCommand({ command: go, args: ['mod', 'download'], cwd: folder }));
    await runCommand({ command: go, args: ['build', '-o', join(directory, 'producer'), '.'], cwd: folder });
  });
  return { command: join(built, 'producer'), args: [] };
}

async function programs<const Names extends readonly string[]>(
  part: string,
  names: Names,
): Promise<{ [At in keyof Names]: string }> {
  const found = await Promise.all(names.map((name) => findProgram(name)));
  const missing = names.filter((_, at) => found[at] === undefined);
  if (missing.length === 0) return found as { [At in keyof Names]: string };
  throw absent(part, `there is no ${missing.join(', no ')} on the PATH.`);
}

/** What cannot be fetched is absent; what cannot be compiled is a fault of ours. */
async function orAbsent<T>(part: string, fetching: Promise<T>): Promise<T> {
  try {
    return await fetching;
  } catch (cause) {
    throw absent(part, 'its libraries could not be fetched.', cause);
  }
}

function absent(part: string, missing: string, cause?: unknown): PartAbsent {
  const consequence = 'What services in that language send is not tested.';
  return new PartAbsent({ part, missing, consequence }, { cause });
}

/** Of a cached build, so that a change of what it was made from makes it anew. */
async function nameOf(part: string, files: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const file of files) hash.update(await readFile(file));
  return `${part}-${hash.digest('hex').slice(0, 12)}`;
}
