import { World } from './world.ts';

export interface Outcome {
  readonly seed: number;
  readonly steps: number;
  readonly violation: string | null;
  readonly story: readonly string[];
  readonly turns: number;
  readonly joins: number;
  readonly removals: number;
  readonly mutes: number;
  /** How often a process died at each point. */
  readonly crashedAt: ReadonlyMap<string, number>;
}

/** One run: so many steps with faults, then quiet. */
export const simulate = async (seed: number, steps: number): Promise<Outcome> => {
  const world = new World(seed);
  while (world.actions < steps && world.violation === null) await world.step();
  if (world.violation === null) await world.quiesce();
  const { violation, story, joins, removals, mutes, scheduler } = world;
  return {
    seed,
    steps: world.actions,
    violation,
    story,
    joins,
    removals,
    mutes,
    turns: scheduler.turns,
    crashedAt: scheduler.crashedAt,
  };
};
