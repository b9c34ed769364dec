import { RoomId } from '@realtime-service/contracts';
import { type LivekitKey, tokenLeewaySeconds } from '@realtime-service/livekit';
import { createDecoder, createVerifier } from 'fast-jwt';
import { z } from 'zod';
import { ProblemError } from '../problem.ts';
import { unfitOf } from '../unfit.ts';

export const leewayMs = tokenLeewaySeconds * 1000;

/** What is read of a LiveKit token; its rights are not, since today's are minted anew. */
export const LivekitClaims = z.object({
  sub: z.string().min(1),
  exp: z.number(),
  name: z.string().optional(),
  kind: z.string().toLowerCase().default('standard'),
  metadata: z.string().optional(),
  attributes: z.record(z.string(), z.string()).default({}),
  video: z.object({ room: RoomId, roomJoin: z.literal(true) }),
});
export type LivekitClaims = z.infer<typeof LivekitClaims>;

const refused = (reason: string, cause?: unknown): ProblemError =>
  new ProblemError('unauthenticated', { reason, unfit: unfitOf(cause), cause });

/** What the verifier says by its codes (fast-jwt's `TOKEN_ERROR_CODES`), for operators. */
const reasons: Readonly<Record<string, string>> = {
  FAST_JWT_EXPIRED: 'expired',
  FAST_JWT_INACTIVE: 'not_yet_valid',
  FAST_JWT_INVALID_ALGORITHM: 'algorithm',
  FAST_JWT_MISSING_REQUIRED_CLAIM: 'claims',
  FAST_JWT_INVALID_CLAIM_TYPE: 'claims',
};

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : '');

/**
 * Verifies tokens for LiveKit's signalling by LiveKit's rules (livekit/protocol auth/verifier.go): HS256 alone, any of
 * the keys by `iss`, a minute of leeway. A token without `exp`, which LiveKit takes for ever, does not count.
 */
export const createLivekitVerifier = (keys: readonly LivekitKey[]) => {
  const decode = createDecoder();
  const verifiers = new Map(
    keys.map(({ apiKey, secret }) => {
      const options = { algorithms: ['HS256' as const], clockTolerance: leewayMs };
      return [apiKey, createVerifier({ ...options, key: secret, cache: false })];
    }),
  );

  const verified = (token: string): unknown => {
    try {
      const { iss }: { readonly iss?: unknown } = decode(token);
      const verify = typeof iss === 'string' ? verifiers.get(iss) : undefined;
      if (verify === undefined) throw refused('unknown_key');
      return verify(token);
    } catch (error) {
      throw error instanceof ProblemError ? error : refused(reasons[codeOf(error)] ?? 'invalid', error);
    }
  };

  /** @throws {ProblemError} 401 */
  return (token: string): LivekitClaims => {
    const claims = LivekitClaims.safeParse(verified(token));
    if (!claims.success) throw refused('claims', claims.error);
    return claims.data;
  };
};
