/** Starts the parts that test files share, before the first of them runs. `REAL_PARTS=postgres,kafka` limits which. */
import type { TestProject } from 'vitest/node';
import { findChromium } from './chromium.ts';
import { startKafka } from './kafka.ts';
import { startKeycloak } from './keycloak.ts';
import { prepareLivekit } from './livekit.ts';
import { PartAbsent } from './part.ts';
import { startPostgres } from './postgres.ts';
import { prepareGoProducer, prepareJavaProducers, preparePython } from './producers.ts';
import { findProgram } from './programs.ts';
import type { RealPartName, RealParts, StartedPart } from './vitest.ts';
import { startZipkin } from './zipkin.ts';

type Stops = (() => Promise<void>)[];
type Starters = { readonly [Name in RealPartName]: (stops: Stops) => Promise<RealParts[Name]> };

const starters: Starters = {
  postgres: async (stops) => {
    const { url, port, stop } = await startPostgres();
    stops.push(stop);
    return { url, port };
  },
  kafka: async (stops) => {
    const { brokers, port, javaClasspath, stop } = await startKafka({ report });
    stops.push(stop);
    return { brokers, port, javaClasspath };
  },
  keycloak: async (stops) => {
    const { url, port, issuer, stop } = await startKeycloak({ report });
    stops.push(stop);
    return { url, port, issuer };
  },
  zipkin: async (stops) => {
    const { url, stop } = await startZipkin({ report });
    stops.push(stop);
    return { url };
  },
  livekit: async () => {
    await prepareLivekit(report);
    return { isInstalled: true };
  },
  chromium: async () => {
    const executablePath = await findChromium();
    if (executablePath !== undefined) return { executablePath };
    throw new PartAbsent({
      part: 'Chromium',
      missing: 'there is neither Chromium nor Chrome.',
      consequence: 'No browser joins a call.',
    });
  },
  nginx: async () => {
    const executablePath = await findProgram('nginx');
    if (executablePath !== undefined) return { executablePath };
    throw new PartAbsent({
      part: 'nginx',
      missing: 'it is not on the PATH.',
      consequence: 'The proxy in front of LiveKit is not tested.',
    });
  },
  java: () => prepareJavaProducers(report),
  python: () => preparePython(report),
  go: () => prepareGoProducer(report),
};

export default async function startSharedParts(project: TestProject): Promise<() => Promise<void>> {
  const isWanted = wantedParts();
  const stops: Stops = [];

  async function start<Name extends RealPartName>(name: Name): Promise<StartedPart<Name>> {
    if (!isWanted(name)) return { absent: `${name} is left out by REAL_PARTS.` };
    try {
      return { running: await starters[name](stops) };
    } catch (error) {
      if (error instanceof PartAbsent) return { absent: error.message };
      throw error;
    }
  }

  const [postgres, kafka, keycloak, zipkin, livekit, chromium, nginx, java, python, go] = await Promise.all([
    start('postgres'),
    start('kafka'),
    start('keycloak'),
    start('zipkin'),
    start('livekit'),
    start('chromium'),
    start('nginx'),
    start('java'),
    start('python'),
    start('go'),
  ]);
  const parts = { postgres, kafka, keycloak, zipkin, livekit, chromium, nginx, java, python, go };
  project.provide('startedParts', parts);

  return async () => {
    await Promise.all(stops.map((stop) => stop()));
  };
}

function wantedParts(): (name: RealPartName) => boolean {
  const wanted = process.env['REAL_PARTS']?.split(',').map((name) => name.trim());
  const unknown = wanted?.filter((name) => !(name in starters)) ?? [];
  if (unknown.length > 0) {
    throw new Error(`REAL_PARTS names ${unknown.join(', ')}; there are ${Object.keys(starters).join(', ')}`);
  }
  return (name) => wanted === undefined || wanted.includes(name);
}

function report(line: string): void {
  process.stderr.write(`${line}\n`);
}
