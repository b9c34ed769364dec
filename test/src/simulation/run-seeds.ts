import type { ChunkTransaction } from '@realtime-service/room-store';
import { roomIds, userIds } from './room-facts.ts';
import { type Outcome, simulate } from './simulate.ts';

export interface Seeds {
  readonly from: number;
  readonly count: number;
  readonly steps: number;
}

export interface Summary {
  readonly failures: readonly Outcome[];
  readonly turns: number;
  readonly joins: number;
  readonly removals: number;
  readonly mutes: number;
  /** How often a process died at each point, over all seeds. */
  readonly crashedAt: ReadonlyMap<string, number>;
}

/** More would say the same. */
const maxFailures = 3;

/** The awaits of the apply path: all that its port has. A crash before and after each must have been tried. */
const applyStatements: Readonly<Record<keyof ChunkTransaction | 'begin' | 'commit' | 'notifyMarks', true>> = {
  begin: true,
  readDeadLetters: true,
  lockPosition: true,
  knownFacts: true,
  lock: true,
  load: true,
  write: true,
  advance: true,
  commit: true,
  notifyMarks: true,
};
export const applyPoints = Object.keys(applyStatements).flatMap((name) => [`before ${name}`, `after ${name}`]);

/** `onFailure` is told of each as soon as it has been made short. */
export const runSeeds = async (
  { from, count, steps }: Seeds,
  onFailure: (failure: Outcome) => void = () => {},
): Promise<Summary> => {
  const failures: Outcome[] = [];
  const crashedAt = new Map<string, number>();
  let turns = 0;
  let joins = 0;
  let removals = 0;
  let mutes = 0;
  for (let seed = from; seed < from + count && failures.length < maxFailures; seed += 1) {
    const outcome = await simulate(seed, steps);
    turns += outcome.turns;
    joins += outcome.joins;
    removals += outcome.removals;
    mutes += outcome.mutes;
    for (const [point, times] of outcome.crashedAt) crashedAt.set(point, (crashedAt.get(point) ?? 0) + times);
    if (outcome.violation === null) continue;
    const failure = await shrink(outcome);
    failures.push(failure);
    onFailure(failure);
  }
  return { failures, turns, joins, removals, mutes, crashedAt };
};

/** The same seed with as few steps before the quiet as still fail. */
const shrink = async (outcome: Outcome): Promise<Outcome> => {
  for (let steps = 5; steps < outcome.steps; steps += 5) {
    const shorter = await simulate(outcome.seed, steps);
    if (shorter.violation !== null) return shorter;
  }
  return outcome;
};

const faults = /killed|restored|stands still|goes on|started|LiveKit|clock|lost|quiet|VIOLATION/;
const maxLines = 60;

/** What led to it: faults, and what concerns the rooms and people that the violation names. */
export const tell = ({ seed, steps, violation, story }: Outcome): string => {
  const named = [...roomIds, ...userIds].filter((id) => new RegExp(`\\b${id}\\b`).test(violation ?? ''));
  const isRelevant = (line: string): boolean =>
    named.length === 0 || faults.test(line) || named.some((id) => new RegExp(`\\b${id}\\b`).test(line));
  const lines = story.filter(isRelevant).slice(-maxLines);
  return [`seed ${seed}: ${violation}`, ...lines, `again: npm run sim -- --seed ${seed} --steps ${steps}`].join('\n');
};
