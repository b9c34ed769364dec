// `npm run torture`: the long run of `torture.e2e.test.ts`. Prints its seed and what it found, and writes it down.
import { randomInt } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { endWithReader, readCall } from '@realtime-service/dev-stack/read-call';
import { startDevIdentity } from './identity.ts';
import { startSystem } from './system.ts';
import { type TortureResult, torture } from './torture.ts';
import { wholeNumber } from './whole-number.ts';

const file = fileURLToPath(new URL('../../docs/torture.md', import.meta.url));
const block = /(<!-- result -->\n)[\s\S]*?(\n<!-- \/result -->)/;

const options = readCall(
  'npm run torture -- [--seed N] [--events 20000] [--kills 45]; a whole run is written to docs/torture.md',
  (args) => {
    const { values } = parseArgs({
      args,
      options: {
        seed: { type: 'string', default: String(randomInt(1_000_000)) },
        events: { type: 'string', default: '20000' },
        kills: { type: 'string', default: '45' },
      },
    });
    return {
      seed: wholeNumber('seed', values.seed, 0),
      events: wholeNumber('events', values.events, 1),
      kills: wholeNumber('kills', values.kills, 1),
    };
  },
);
endWithReader();

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const describe = (
  { seed, events, kills }: Readonly<Record<'seed' | 'events' | 'kills', number>>,
  { killed, seconds, repeats, lost, phantom, double, divergence }: TortureResult,
): string => `\`npm run torture -- --seed ${seed} --events ${events} --kills ${kills}\`, ${new Date().toISOString().slice(0, 10)}, ${availableParallelism()} cores (${cpus()[0]?.model ?? 'unknown'}), ${seconds} s.

| facts | kills: worker, broker, database | repeats in the log | lost | phantom | double | divergence |
|---|---|---|---|---|---|---|
| ${events} | ${killed.worker}, ${killed.broker}, ${killed.database} | ${repeats} | ${lost} | ${phantom} | ${double} | ${divergence} |`;

say(`seed ${options.seed}`);
const identity = await startDevIdentity();
const system = await startSystem({ identity, env: { SWEEP_INTERVAL_SECONDS: '3600' } });
try {
  const result = await torture(system, { ...options, say });
  const text = describe(options, result);
  say(`\n${text}`);
  const isWhole = options.events >= 20_000 && options.kills >= 45;
  if (isWhole) await writeFile(file, (await readFile(file, 'utf8')).replace(block, `$1${text}$2`));
  if (result.lost + result.phantom + result.double + result.divergence > 0) process.exitCode = 1;
} finally {
  await system.stop();
  await identity.stop();
}
