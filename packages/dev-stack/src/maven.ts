import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PartAbsent } from './part.ts';
import { runCommand } from './process-part.ts';
import { findProgram } from './programs.ts';

/** `group:artifact:version[:packaging[:classifier]]` */
export type MavenCoordinates = string;

/**
 * The path of `java`, for a part that comes from Maven's repositories.
 * @throws {PartAbsent} when Java or Maven is missing
 */
export async function findJava(part: string, consequence: string): Promise<string> {
  const java = await findProgram('java');
  const maven = await findProgram('mvn');
  if (java !== undefined && maven !== undefined) return java;
  const missing = 'it needs Java 17 or newer and Maven (`java` and `mvn`) on the PATH.';
  throw new PartAbsent({ part, missing, consequence });
}

/** Copies artifacts with everything that they need at run time into `directory`, from Maven's repositories. */
export async function fetchWithDependencies(artifacts: readonly MavenCoordinates[], directory: string): Promise<void> {
  await maven(directory, copyGoal(directory), artifacts);
}

/** Copies what a project that exists needs at run time into `directory`. */
export async function copyDependencies(pom: string, directory: string): Promise<void> {
  await runMaven(pom, copyGoal(directory));
}

/** Copies one artifact alone into `directory`, under the name `fileName`. */
export async function fetchArtifact(coordinates: MavenCoordinates, directory: string, fileName: string): Promise<void> {
  const [, artifactId, version, packaging = 'jar', classifier] = coordinates.split(':');
  await maven(directory, ['dependency:copy', `-Dartifact=${coordinates}`, `-DoutputDirectory=${directory}`]);
  const suffix = classifier === undefined ? '' : `-${classifier}`;
  await rename(join(directory, `${artifactId}-${version}${suffix}.${packaging}`), join(directory, fileName));
}

/** Unpacks an archive artifact into `directory`. */
export async function unpackArtifact(coordinates: MavenCoordinates, directory: string): Promise<void> {
  await maven(directory, ['dependency:unpack', `-Dartifact=${coordinates}`, `-DoutputDirectory=${directory}`]);
}

/** Runs a goal on a project that is made for it in `directory` and leaves nothing behind but what the goal fetched. */
async function maven(
  directory: string,
  goal: readonly string[],
  artifacts: readonly MavenCoordinates[] = [],
): Promise<void> {
  const dependencies = artifacts.map((coordinates) => {
    const [groupId, artifactId, version] = coordinates.split(':');
    return `<dependency><groupId>${groupId}</groupId><artifactId>${artifactId}</artifactId><version>${version}</version></dependency>`;
  });
  const pom = join(directory, 'pom.xml');
  await writeFile(
    pom,
    `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>realtime-service</groupId><artifactId>fetch</artifactId><version>1</version>
<dependencies>${dependencies.join('\n')}</dependencies></project>`,
  );
  await runMaven(pom, goal);
  await rm(pom);
  await rm(join(directory, 'target'), { recursive: true, force: true });
}

function copyGoal(directory: string): string[] {
  return ['dependency:copy-dependencies', `-DoutputDirectory=${directory}`, '-DincludeScope=runtime'];
}

async function runMaven(pom: string, goal: readonly string[]): Promise<void> {
  await runCommand({ command: 'mvn', args: ['--quiet', '--batch-mode', '-f', pom, ...goal] });
}
