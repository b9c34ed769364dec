/** Starts the parts that test files share, before the first of them runs. `REAL_PARTS=postgres,kafka` limits which. */
import type { TestProject } from 'vitest/node';
import { startKafka } from './kafka.ts';
import { prepareLivekit } from './livekit.ts';
import { PartAbsent } from './part.ts';
import { startPostgres } from './postgres.ts';
import type { RealPartName, RealParts, StartedPart } from './vitest.ts';

type Starters = { readonly [Name in RealPartName]: (stops: Stops) => Promise<RealParts[Name]> };
type Stops = (() => Promise<void>)[];

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
  livekit: async () => {
    await prepareLivekit(report);
    return { isInstalled: true };
  },
};

export default async function startSharedParts(project: TestProject): Promise<() => Promise<void>> {
  const stops: Stops = [];
  const wanted = process.env['REAL_PARTS']?.split(',').map((name) => name.trim());
  const unknown = wanted?.filter((name) => !(name in starters)) ?? [];
  if (unknown.length > 0) {
    throw new Error(`REAL_PARTS names ${unknown.join(', ')}; there are ${Object.keys(starters).join(', ')}`);
  }

  const isWanted = (name: RealPartName) => wanted === undefined || wanted.includes(name);
  const start = async <Name extends RealPartName>(name: Name): Promise<StartedPart<Name>> => {
    if (!isWanted(name)) return { absent: `${name} is left out by REAL_PARTS.` };
    try {
      return { running: await starters[name](stops) };
    } catch (error) {
      if (error instanceof PartAbsent) return { absent: error.message };
      throw error;
    }
  };
  const [postgres, kafka, livekit] = await Promise.all([start('postgres'), start('kafka'), start('livekit')]);
  project.provide('startedParts', { postgres, kafka, livekit });

  return async () => {
    await Promise.all(stops.map((stop) => stop()));
  };
}

function report(line: string): void {
  process.stderr.write(`${line}\n`);
}
