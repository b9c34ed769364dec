// `npm run bench -- <name>`: measures on this machine, prints what was found and writes it down.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { readCall } from '@realtime-service/dev-stack/read-call';
import type { Benchmark, Report } from './benchmark.ts';
import { readConditions } from './conditions.ts';
import { freshness } from './freshness.ts';
import { gate } from './join/gate.ts';
import { join } from './join/join.ts';
import { rebuild } from './rebuild/rebuild.ts';
import { removal } from './removal.ts';
import { start } from './start.ts';
import { sweep } from './sweep/sweep.ts';
import { worker } from './worker/worker.ts';

const benchmarks: Readonly<Record<string, Benchmark>> = {
  join,
  gate,
  worker,
  rebuild,
  start,
  freshness,
  removal,
  sweep,
};

const help = `Measures the services against what they stand on, on this machine, on loopback.

Usage: npm run bench -- <name> [--seconds N] [--runs N] [--json FILE]

${Object.entries(benchmarks)
  .map(
    ([name, { summary, defaults }]) =>
      `  ${name.padEnd(10)}${summary} [--seconds ${defaults.seconds} --runs ${defaults.rounds}]`,
  )
  .join('\n')}

  --seconds N   of each measurement, 1 to 120 (for \`worker\` and \`rebuild\`: tens of thousands of records)
  --runs N      rounds, 1 to 50; each measures every side once
  --json FILE   where the figures go; bench/results/<name>.json by default`;

const numberOf = (text: string | undefined, fallback: number, max: number): number => {
  const number = text === undefined ? fallback : Number(text);
  if (Number.isInteger(number) && number >= 1 && number <= max) return number;
  throw new Error(`${text} is not a whole number from 1 to ${max}`);
};

const { name, benchmark, effort, file } = readCall(help, (args) => {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { seconds: { type: 'string' }, runs: { type: 'string' }, json: { type: 'string' } },
  });
  const [name = '', ...more] = positionals;
  const benchmark = Object.hasOwn(benchmarks, name) ? benchmarks[name] : undefined;
  if (benchmark === undefined || more.length > 0) throw new Error('Say the name of one benchmark.');
  const effort = {
    seconds: numberOf(values.seconds, benchmark.defaults.seconds, 120),
    rounds: numberOf(values.runs, benchmark.defaults.rounds, 50),
  };
  const file = resolve(values.json ?? fileURLToPath(new URL(`../results/${name}.json`, import.meta.url)));
  return { name, benchmark, effort, file };
});

const conditions = readConditions();
console.log(`${name}: ${JSON.stringify(conditions)}`);
const report: Report = { benchmark: name, conditions, effort, ...(await benchmark.run(effort, console.log)) };
console.log(`\n${report.lines.join('\n')}`);
await mkdir(dirname(file), { recursive: true });
await writeFile(file, `${JSON.stringify(report, null, 2)}\n`);
