// `npm run sim`: runs seeds of the simulation, for as long a night as is wanted. Ends with 1 when one of them fails.
import { parseArgs } from 'node:util';
import { endWithReader, readCall } from '@realtime-service/dev-stack/read-call';
import { wholeNumber } from '../whole-number.ts';
import { runSeeds, tell } from './run-seeds.ts';
import { simulate } from './simulate.ts';

const number = { type: 'string' } as const;
const call = readCall(
  'npm run sim -- [--seeds 1000] [--from 1] [--steps 200]; one again, with its story: --seed N',
  (args) => {
    const { values } = parseArgs({
      args,
      options: {
        seeds: { ...number, default: '1000' },
        from: { ...number, default: '1' },
        steps: { ...number, default: '200' },
        seed: number,
      },
    });
    return {
      count: wholeNumber('seeds', values.seeds, 1),
      from: wholeNumber('from', values.from, 0),
      steps: wholeNumber('steps', values.steps, 1),
      seed: values.seed === undefined ? null : wholeNumber('seed', values.seed, 0),
    };
  },
);
endWithReader();
const { steps } = call;
const startedAtMs = performance.now();
const write = (text: string): void => void process.stdout.write(`${text}\n`);

if (call.seed !== null) {
  const outcome = await simulate(call.seed, steps);
  write(outcome.violation === null ? [...outcome.story, 'holds'].join('\n') : tell(outcome));
  process.exitCode = outcome.violation === null ? 0 : 1;
} else {
  const { from, count } = call;
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
