/** Starts the parts that test files share, before the first of them runs. `REAL_PARTS=postgres,kafka` limits which. */
import type { TestProject } from 'vitest/node';
import { findChromium } from './chromium.ts';
import { prepareGateProxy } from './gate-proxies.ts';
import { startKafka } from './kafka.ts';
import { startKeycloak } from './keycloak.ts';
import { prepareLivekit } from './livekit.ts';
import { PartAbsent } from './part.ts';
import { startPostgres } from './postgres.ts';
import { prepareGoProducer, prepareJavaProducers, preparePython } from './producers.ts';
import { findProgram } from './programs.ts';
import { prepareSchemathesis } from './schemathesis.ts';
import type { RealPartName, RealParts, StartedPart, StartedParts } from './vitest.ts';
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
  pgbouncer: async () => {
    if ((await findProgram('pgbouncer')) !== undefined) return { isInstalled: true };
    throw new PartAbsent({
      part: 'PgBouncer',
      missing: 'it is not on the PATH.',
      consequence: 'Services behind a pooler are not tested.',
    });
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
  nginx: async () => ({ executablePath: await prepareGateProxy('nginx', report) }),
  haproxy: async () => ({ executablePath: await prepareGateProxy('haproxy', report) }),
  caddy: async () => ({ executablePath: await prepareGateProxy('caddy', report) }),
  envoy: async () => ({ executablePath: await prepareGateProxy('envoy', report) }),
  java: () => prepareJavaProducers(report),
  python: () => preparePython(report),
  go: () => prepareGoProducer(report),
  schemathesis: () => prepareSchemathesis(report),
};

/** Each project of the tests loads this file anew; what one has started serves all. */
const shared = globalThis as { realParts?: Promise<SharedParts> };

interface SharedParts {
  readonly parts: StartedParts;
  readonly stop: () => Promise<void>;
}

export default async function shareParts(project: TestProject): Promise<() => Promise<void>> {
  shared.realParts ??= startParts();
  const { parts, stop } = await shared.realParts;
  project.provide('startedParts', parts);
  return stop;
}

async function startParts(): Promise<SharedParts> {
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

  const names = Object.keys(starters) as RealPartName[];
  const parts = await Promise.all(names.map(async (name) => [name, await start(name)] as const));
  return {
    parts: Object.fromEntries(parts) as StartedParts,
    stop: async () => {
      await Promise.all(stops.splice(0).map((stop) => stop()));
    },
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
