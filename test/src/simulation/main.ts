// `npm run sim`: runs seeds of the simulation, for as long a night as is wanted. Ends with 1 when one of them fails.
import { parseArgs } from 'node:util';
import { runSeeds, tell } from './run-seeds.ts';
import { simulate } from './simulate.ts';

const number = { type: 'string' } as const;
const { values } = parseArgs({
  options: {
    seeds: { ...number, default: '1000' },
    from: { ...number, default: '1' },
    steps: { ...number, default: '200' },
    seed: number,
  },
});
const steps = Number(values.steps);
const startedAtMs = performance.now();
const write = (text: string): void => void process.stdout.write(`${text}\n`);

if (values.seed !== undefined) {
  const outcome = await simulate(Number(values.seed), steps);
  write(outcome.violation === null ? [...outcome.story, 'holds'].join('\n') : tell(outcome));
  process.exitCode = outcome.violation === null ? 0 : 1;
} else {
  const from = Number(values.from);
  const count = Number(values.seeds);
  const { failures, turns, joins, removals, mutes, crashedAt } = await runSeeds({ from, count, steps }, (failure) =>
    write(`\n${tell(failure)}`),
  );
  const crashes = [...crashedAt.values()].reduce((sum, times) => sum + times, 0);
  const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1);
  write(
    `\nseeds ${from} to ${from + count - 1}, ${steps} steps each, ${seconds} s: ${failures.length === 0 ? 'all hold' : 'FAILED'}`,
  );
  write(
    `${turns} turns, ${joins} joins, ${removals} removals, ${mutes} mutes, ${crashes} awaits at which a worker was killed`,
  );
  for (const [point, times] of [...crashedAt].sort()) write(`  ${String(times).padStart(6)}  ${point}`);
  process.exitCode = failures.length === 0 ? 0 : 1;
}
