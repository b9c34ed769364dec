import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from './process-part.ts';

/** `group:artifact:version[:packaging[:classifier]]` */
export type MavenCoordinates = string;

/** Copies artifacts with everything that they need at run time into `directory`, from Maven's repositories. */
export async function fetchWithDependencies(
  artifacts: readonly MavenCoordinates[],
  directory: string,
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
  await maven(['dependency:copy-dependencies', `-DoutputDirectory=${directory}`, '-DincludeScope=runtime', '-f', pom]);
  await rm(pom);
}

/** Copies one artifact alone into `directory`, under the name `fileName`. */
export async function fetchArtifact(coordinates: MavenCoordinates, directory: string, fileName: string): Promise<void> {
  const [, artifactId, version, packaging = 'jar', classifier] = coordinates.split(':');
  await maven([
    'dependency:copy',
    `-Dartifact=${coordinates}`,
    `-DoutputDirectory=${directory}`,
    '-Dmdep.useBaseVersion=true',
  ]);
  const suffix = classifier === undefined ? '' : `-${classifier}`;
  await rename(join(directory, `${artifactId}-${version}${suffix}.${packaging}`), join(directory, fileName));
}

async function maven(args: readonly string[]): Promise<void> {
  await runCommand(process.platform === 'win32' ? 'mvn.cmd' : 'mvn', ['--quiet', '--batch-mode', ...args]);
}
