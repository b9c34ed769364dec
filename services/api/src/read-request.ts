import { faultsOf } from '@realtime-service/contracts';
import type { z } from 'zod';
import { ProblemError } from './problem.ts';

/**
 * Reads the parts of a request (`params`, `query`, `body`) by one schema.
 * @throws {ProblemError} 422 that names the first hundred faults by their path within its part
 */
export const readRequest = <T extends z.ZodType>(schema: T, parts: z.input<T> | object): z.output<T> => {
  const parsed = schema.safeParse(parts);
  if (parsed.success) return parsed.data;
  const faults = faultsOf(parsed.error).map(({ path, message }) => ({ path: path.replace(/^\/\w+/, ''), message }));
  throw new ProblemError('invalid_request', { reason: 'schema', faults });
};
