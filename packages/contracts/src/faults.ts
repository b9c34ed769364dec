import type { z } from 'zod';
import type { ProblemFault } from './problems.ts';

/** The faults of a failed parse as problem documents show them; `at` is the path that leads to the parsed value. */
export const faultsOf = (error: z.ZodError, at = ''): ProblemFault[] =>
  error.issues.map((issue) => ({
    path: `${at}/${issue.path.map((part) => String(part).replaceAll('~', '~0').replaceAll('/', '~1')).join('/')}`.replace(
      /\/$/,
      '',
    ),
    message: issue.message,
  }));
