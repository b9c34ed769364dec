import fastifyJwt from '@fastify/jwt';
import { LoginId, UserId } from '@realtime-service/contracts';
import type { FastifyInstance, FastifyRequest, onRequestHookHandler } from 'fastify';
import { z } from 'zod';
import type { ApiSettings } from './config.ts';
import type { KeySet } from './key-set.ts';
import { ProblemError } from './problem.ts';
import { unfitOf } from './unfit.ts';
import { createVerifiedCache } from './verified-cache.ts';

/** Who asks. The roles of a room come from the projection, never from here. */
export interface Caller {
  readonly userId: string;
  /** Keycloak's `sid`: the login that the token comes from. */
  readonly loginId: string | null;
  /** When that login ends by policy, milliseconds since the epoch. */
  readonly loginEndsAtMs: number | null;
  /** When the token or its login ends, whichever is first. */
  readonly endsAtMs: number;
  readonly scopes: ReadonlySet<string>;
}

declare module '@fastify/jwt' {
  interface FastifyJWT {
    user: Caller;
  }
}

/** Why a token does not count. For operators only; the caller always gets the same answer. */
export type RefusalReason =
  | 'no_token'
  | 'malformed'
  /** As `claims`: the log line says which, as `unfit`. */
  | 'header'
  | 'algorithm'
  | 'unknown_key'
  /** Cannot be decoded, or its signature does not fit. */
  | 'invalid'
  | 'expired'
  | 'not_yet_valid'
  | 'issuer'
  | 'no_audience'
  | 'audience'
  | 'authorised_party'
  | 'token_type'
  | 'no_subject'
  | 'lifetime'
  /** Of a login that is older than `LOGIN_MAX_SECONDS`. */
  | 'login_over'
  | 'claims';

const refused = (reason: RefusalReason, cause?: unknown): ProblemError =>
  new ProblemError('unauthenticated', { reason, unfit: unfitOf(cause), cause });

const maxTokenBytes = 16_384;
const maxLifeSeconds = 86_400;
const clockToleranceSeconds = 5;

const bearer = /^Bearer ([\w-]+\.[\w-]+\.[\w-]+)$/i;

/** @throws {ProblemError} */
const bearerOf = ({ headers: { authorization } }: FastifyRequest): string => {
  if (authorization === undefined) throw refused('no_token');
  // Not a verdict on the token: nothing was read of it.
  if (authorization.length > maxTokenBytes + 'Bearer '.length)
    throw new ProblemError('headers_too_large', { reason: 'token_too_long' });
  const token = bearer.exec(authorization)?.[1];
  if (token === undefined) throw refused('malformed');
  return token;
};

/** `jku`, `jwk`, `x5u` and `x5c` are not looked at: keys come from the configured address alone. */
const Header = z.object({
  alg: z.string(),
  kid: z.string().min(1).max(256),
  typ: z.string().regex(/^(?:JWT|at\+jwt)$/i),
  crit: z.undefined().optional(),
});

const NumericDate = z.int().min(0);
const Text = z.string().min(1);

/** What is used of an access token; Keycloak's roles are not. */
const Claims = z.object({
  sub: UserId.optional(),
  aud: z.union([Text, z.array(Text)]).optional(),
  azp: Text.optional(),
  typ: Text,
  /** What only its owner's certificate or key may present it with (RFC 7800): nobody here can see which was. */
  cnf: z.unknown().optional(),
  exp: NumericDate,
  iat: NumericDate,
  nbf: NumericDate.optional(),
  sid: LoginId.optional(),
  auth_time: NumericDate.optional(),
  scope: z.string().optional(),
});
type Claims = z.infer<typeof Claims>;

type OidcSettings = ApiSettings['oidc'];

/** What is still open: issuer, algorithm, signature, `exp` and `nbf` have been checked. */
const refusalOf = (claims: Claims, oidc: OidcSettings, nowMs: number): RefusalReason | undefined => {
  const audiences = [claims.aud ?? []].flat();
  if (claims.typ !== 'Bearer' || claims.cnf !== undefined) return 'token_type';
  if (audiences.length === 0) return 'no_audience';
  if (!audiences.includes(oidc.audience)) return 'audience';
  if (oidc.authorisedParties !== undefined && !oidc.authorisedParties.includes(claims.azp ?? ''))
    return 'authorised_party';
  if (claims.sub === undefined) return 'no_subject';
  if (claims.iat > nowMs / 1000 + clockToleranceSeconds) return 'not_yet_valid';
  if (claims.exp - claims.iat > maxLifeSeconds) return 'lifetime';
  const loginEndsAtMs = policyEndOf(claims, oidc);
  return loginEndsAtMs !== null && loginEndsAtMs <= nowMs ? 'login_over' : undefined;
};

/** What the verifier says by its codes (@fastify/jwt and, beneath it, fast-jwt's `TOKEN_ERROR_CODES`). */
const verifierReasons: Readonly<Record<string, RefusalReason>> = {
  FST_JWT_AUTHORIZATION_TOKEN_EXPIRED: 'expired',
  FST_JWT_AUTHORIZATION_TOKEN_INVALID: 'invalid',
  FAST_JWT_INACTIVE: 'not_yet_valid',
  FAST_JWT_INVALID_ALGORITHM: 'algorithm',
  FAST_JWT_INVALID_CLAIM_TYPE: 'claims',
};

const reasonOf = (error: unknown): RefusalReason => {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return verifierReasons[code] ?? 'invalid';
};

interface AuthenticateOptions {
  readonly keys: Pick<KeySet, 'find'>;
  readonly oidc: OidcSettings;
  readonly now: () => number;
}

/**
 * Registers the verification of callers' access tokens and returns the hook that does it: afterwards `request.user` is
 * the caller. It runs before the body is read. Every refusal of a token is the same 401; without the issuer's keys the
 * answer is 503, since nothing is known of any token then.
 */
export const registerAuthentication = async (
  app: FastifyInstance,
  { keys, oidc, now }: AuthenticateOptions,
): Promise<onRequestHookHandler> => {
  const verified = createVerifiedCache<Caller>();

  const findKey = async ({ header, payload }: { header: unknown; payload: unknown }): Promise<string> => {
    const parsed = Header.safeParse(header);
    if (!parsed.success) throw refused('header', parsed.error);
    // Before a key is looked for: a stranger's token must not lead to a fetch.
    if (!isFrom(payload, oidc.issuer)) throw refused('issuer');
    if (!(oidc.algorithms as readonly string[]).includes(parsed.data.alg)) throw refused('algorithm');
    const { alg, kid } = parsed.data;
    const found = await keys.find({ alg, kid });
    if (found === undefined) throw refused('unknown_key');
    return found.pem;
  };

  await app.register(fastifyJwt, {
    secret: (_request: FastifyRequest, token: unknown) => findKey(token as { header: unknown; payload: unknown }),
    decode: { complete: true },
    verify: {
      algorithms: oidc.algorithms,
      clockTolerance: clockToleranceSeconds * 1000,
      cache: false,
      extractToken: (request) => bearerOf(request as FastifyRequest),
    },
  });

  /** The claims of a token that counts. */
  const verify = async (request: FastifyRequest): Promise<Claims & { sub: string }> => {
    const payload = await request.jwtVerify<object>().catch((error: unknown) => {
      throw error instanceof ProblemError ? error : refused(reasonOf(error), error);
    });
    const claims = Claims.safeParse(payload);
    if (!claims.success) throw refused('claims', claims.error);
    const reason = refusalOf(claims.data, oidc, now());
    if (reason !== undefined) throw refused(reason);
    return claims.data as Claims & { sub: string };
  };

  const authenticate = async (request: FastifyRequest, authorization: string | undefined): Promise<void> => {
    const claims = await verify(request);
    const { sub, sid, scope, exp } = claims;
    const loginEndsAtMs = policyEndOf(claims, oidc);
    const endsAtMs = Math.min(exp * 1000, loginEndsAtMs ?? Number.POSITIVE_INFINITY);
    const scopes = new Set(scope?.split(' '));
    request.user = { userId: sub, loginId: sid ?? null, loginEndsAtMs, endsAtMs, scopes };
    if (authorization !== undefined) verified.set(authorization, request.user, endsAtMs, now());
  };

  return (request, _reply, done) => {
    const { authorization } = request.headers;
    const known = authorization === undefined ? undefined : verified.get(authorization, now());
    if (known === undefined) {
      authenticate(request, authorization).then(() => done(), done);
      return;
    }
    request.user = known;
    done();
  };
};

/**
 * Keycloak tells of no session that has expired: its longest life is told to us. A service's token has no login. An
 * older Keycloak says `auth_time: 0` of logins outside a browser.
 */
const policyEndOf = ({ sid, auth_time, iat }: Claims, { loginMaxSeconds }: OidcSettings): number | null =>
  sid === undefined || loginMaxSeconds === undefined ? null : ((auth_time || iat) + loginMaxSeconds) * 1000;

const isFrom = (payload: unknown, issuer: string): boolean =>
  typeof payload === 'object' && payload !== null && 'iss' in payload && payload.iss === issuer;

/** @throws {ProblemError} 403 when the caller's token has none of these scopes */
export const requireScope = ({ scopes }: Caller, accepted: readonly string[]): void => {
  if (!accepted.some((scope) => scopes.has(scope))) throw new ProblemError('forbidden', { reason: 'scope' });
};
