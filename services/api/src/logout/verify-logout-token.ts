import { boundedText, LoginId, UserId } from '@realtime-service/contracts';
import { type CryptoKey, decodeJwt, errors, type JWTHeaderParameters, type JWTPayload, jwtVerify } from 'jose';
import { z } from 'zod';
import type { ApiSettings } from '../config.ts';
import type { KeySet } from '../key-set.ts';
import { ProblemError } from '../problem.ts';
import { unfitOf } from '../unfit.ts';

const logoutEvent = 'http://schemas.openid.net/event/backchannel-logout';
const clockToleranceSeconds = 5;
/** A provider tells of a logout at once; what was signed earlier was kept by somebody. */
const maxAgeSeconds = 300;

/** Keycloak says `JWT`, the specification `logout+jwt`; an access token that says `at+jwt` is another thing. */
const Header = z.object({
  alg: z.string(),
  kid: z.string().min(1).max(256),
  typ: z
    .string()
    .regex(/^(?:JWT|logout\+jwt)$/i)
    .optional(),
});

/** What no other token says. */
const Events = z.object({ events: z.object({ [logoutEvent]: z.object({}) }) });

/** What makes a token a logout token, and what of it is used (OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6). */
const Claims = z
  .object({
    ...Events.shape,
    jti: boundedText(128).min(1),
    iat: z.int().min(0),
    exp: z.int().min(0),
    sub: UserId.optional(),
    sid: LoginId.optional(),
    /** Forbidden, so that no ID token passes for a logout token. */
    nonce: z.undefined().optional(),
    /** Keycloak's: access tokens say `Bearer` here, ID tokens `ID`. */
    typ: z.literal('Logout').optional(),
  })
  .refine(({ sub, sid }) => sub !== undefined || sid !== undefined, { path: ['sub'], error: 'must say sub or sid' });

/** A login that is over, or all of a person's where `loginId` is undefined. */
export interface Logout {
  /** Of the token: the same logout again is the same fact. */
  readonly id: string;
  readonly userId: string | undefined;
  readonly loginId: string | undefined;
  /** The end of the second that the token names: who joined within it may have done so before. */
  readonly issuedBy: Date;
}

const refused = (reason: string, cause?: unknown): ProblemError =>
  new ProblemError('invalid_logout_token', { reason, unfit: unfitOf(cause), cause });

/** What jose says by its codes, for operators; a claim by its name. */
const reasonOf = (error: unknown): string => {
  if (error instanceof errors.JWTExpired) return 'expired';
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'aud') return 'audience';
    // There, but later than our clock: the provider's is ahead.
    return ['iat', 'nbf'].includes(error.claim) && error.reason === 'check_failed' ? 'not_yet_valid' : 'claims';
  }
  return error instanceof errors.JOSEAlgNotAllowed ? 'algorithm' : 'invalid';
};

const noEvent = 'no_event';

/** Whether no provider tells of a logout so: the signature was checked and is wrong, or it says nothing of a logout. */
export const isForged = (error: Error): boolean =>
  error.cause instanceof errors.JWSSignatureVerificationFailed ||
  (error instanceof ProblemError && error.reason === noEvent);

interface VerifierOptions {
  readonly keys: Pick<KeySet, 'findForCertain'>;
  readonly oidc: ApiSettings['oidc'];
  readonly now: () => number;
}

/**
 * Verifies logout tokens as the specification says. A token counts once in each process; a repeat that reaches another
 * process appends the same fact again, which changes nothing.
 */
export const createLogoutVerifier = ({ keys, oidc, now }: VerifierOptions) => {
  const findKey = async (header: JWTHeaderParameters): Promise<CryptoKey> => {
    const parsed = Header.safeParse(header);
    if (!parsed.success) throw refused('header', parsed.error);
    const found = await keys.findForCertain(parsed.data);
    if (found === undefined) throw refused('unknown_key');
    return found.key;
  };

  const verify = async (token: string): Promise<JWTPayload> => {
    try {
      const unverified = decodeJwt(token);
      // Before a key is looked for: a stranger's token must not lead to a fetch.
      if (unverified.iss !== oidc.issuer) throw refused('issuer');
      // Nor to the check of a signature: a caller's access token has a good one.
      if (!Events.safeParse(unverified).success) throw refused(noEvent);
      const { payload } = await jwtVerify(token, findKey, {
        algorithms: [...oidc.algorithms],
        audience: [...oidc.logoutAudience],
        maxTokenAge: maxAgeSeconds,
        clockTolerance: clockToleranceSeconds,
        currentDate: new Date(now()),
      });
      return payload;
    } catch (error) {
      throw error instanceof ProblemError ? error : refused(reasonOf(error), error);
    }
  };

  /** @throws {ProblemError} 400, as the specification wants; 503 where the issuer may have the key and we do not */
  return async (token: string): Promise<Logout> => {
    const claims = Claims.safeParse(await verify(token));
    if (!claims.success) throw refused('claims', claims.error);
    const { jti, iat, sub, sid } = claims.data;
    return { id: jti, userId: sub, loginId: sid, issuedBy: new Date(iat * 1000 + 999) };
  };
};

/** Longer than any token counts. */
const rememberForMs = (maxAgeSeconds + 2 * clockToleranceSeconds) * 1000;
const maxRemembered = 100_000;

/** Remembers which tokens have done their work, for as long as they would count. */
export const createReplayGuard = (now: () => number) => {
  const done = new Map<string, number>();
  return {
    has: (id: string): boolean => done.has(id),
    add: (id: string): void => {
      const nowMs = now();
      done.set(id, nowMs);
      for (const [oldest, atMs] of done) {
        if (done.size <= maxRemembered && nowMs - atMs <= rememberForMs) return;
        done.delete(oldest);
      }
    },
  };
};
