import { TokenError } from 'fast-jwt';
import { errors } from 'jose';
import { z } from 'zod';

/**
 * Which parts of a token's header or claims a schema or a verifier did not take, for operators: names that we look for,
 * and never values. Undefined where the fault has no name.
 */
export const unfitOf = (error: unknown): readonly string[] | undefined => {
  if (error instanceof z.ZodError) return [...new Set(error.issues.map(({ path: [name] }) => String(name)))];
  if (error instanceof errors.JWTClaimValidationFailed) return [error.claim];
  // It names the claim in its message alone.
  const name = error instanceof TokenError ? /^The (\w+) claim/.exec(error.message)?.[1] : undefined;
  return name === undefined ? undefined : [name];
};
