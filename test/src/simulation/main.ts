import { parseArgs } from 'node:util';
import { simulate } from './simulate.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    from: { type: 'string', default: '1' },
    steps: { type: 'string', default: '200' },
  },
});
const t = performance.now();
let bad = 0;
let turns = 0;
let joins = 0;
let removals = 0;
const crashed = new Map<string, number>();
for (let seed = Number(values.from); seed < Number(values.from) + Number(values.seeds); seed += 1) {
  const outcome = await simulate(seed, Number(values.steps));
  turns += outcome.turns;
  joins += outcome.joins;
  removals += outcome.removals;
  for (const [p, n] of outcome.crashedAt) crashed.set(p, (crashed.get(p) ?? 0) + n);
  if (outcome.violation !== null) {
    bad += 1;
    if (bad <= 5) console.log(seed, outcome.steps, outcome.violation);
    if (Number(values.seeds) === 1) console.log(outcome.story.join('\n'));
  }
}
console.log({ bad, turns, joins, removals, ms: performance.now() - t });
console.log(crashed);
