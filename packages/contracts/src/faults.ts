import type { z } from 'zod';
import type { ProblemFault } from './problems.ts';

/** A program that errs does so in each of its thousands of entries: more of them would say nothing new. */
export const maxFaults = 100;

/** The first hundred, and a last entry at `at` where there are more. */
export const firstFaults = (faults: readonly ProblemFault[], at = ''): readonly ProblemFault[] =>
  faults.length <= maxFaults
    ? faults
    : [...faults.slice(0, maxFaults), { path: at, message: `has more faults than the ${maxFaults} that are named` }];

/**
 * The faults of a failed parse as problem documents show them, the first hundred; `at` is the path that leads to the
 * parsed value.
 */
export const faultsOf = (error: z.ZodError, at = ''): readonly ProblemFault[] => {
  const faults = error.issues.slice(0, maxFaults + 1).map((issue) => ({
    path: `${at}/${issue.path.map((part) => String(part).replaceAll('~', '~0').replaceAll('/', '~1')).join('/')}`.replace(
      /\/$/,
      '',
    ),
    message: issue.message,
  }));
  return firstFaults(faults, at);
};

/**
 * Finds facts that have an id of another one before them: they would count as its repeats, and be lost. The same fact
 * again, as `isSame` tells, is one.
 */
export const createIdCheck = <Fact>(isSame: (known: Fact, fact: Fact) => boolean) => {
  const factsById = new Map<string, Fact>();
  return (id: string, fact: Fact): readonly ProblemFault[] => {
    const known = factsById.get(id) ?? fact;
    factsById.set(id, known);
    return isSame(known, fact) ? [] : [{ path: '/id', message: 'is that of another event before it' }];
  };
};
