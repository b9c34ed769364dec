import { isIP } from 'node:net';
import { LogSettings } from '@realtime-service/event-log';
import { LivekitSettings } from '@realtime-service/livekit';
import { DatabaseSettings } from '@realtime-service/room-store';
import { ServiceSettings } from '@realtime-service/telemetry';
import { z } from 'zod';

const number = (min: number, max: number, fallback: number) =>
  z.coerce.number().int().min(min).max(max).default(fallback);
const port = (fallback: number) => number(0, 65_535, fallback);

/** Values separated by commas, each of which must pass. */
const list = (isValid: (entry: string) => boolean, expected: string) =>
  z.string().transform((text, context) => {
    const entries = text.split(',').map((entry) => entry.trim());
    if (entries.every(isValid)) return entries;
    context.addIssue({ code: 'custom', message: `must be ${expected}, several separated by commas` });
    return z.NEVER;
  });

const isCidr = (text: string): boolean => {
  const [, address = '', prefix = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? [];
  const family = isIP(address);
  return family !== 0 && Number(prefix) <= (family === 4 ? 32 : 128);
};

/** Compared exactly, so a wildcard would never match. */
const isOrigin = (text: string): boolean => /^https?:[^*]+$/.test(text) && URL.parse(text)?.origin === text;

const asymmetric = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'] as const;
export type Algorithm = (typeof asymmetric)[number];
const isAlgorithm = (text: string): text is Algorithm => (asymmetric as readonly string[]).includes(text);

const OwnSettings = z
  .object({
    API_PORT: port(8080).describe('Port of the client and producer routes'),
    API_OPS_PORT: port(8081).describe('Port of the ops routes'),
    OIDC_ISSUER: z.url({ protocol: /^https?$/ }).describe("Issuer of the callers' tokens, compared exactly"),
    OIDC_JWKS_URI: z
      .url({ protocol: /^https?$/ })
      .optional()
      .describe("Where the issuer's keys are fetched; <issuer>/protocol/openid-connect/certs by default"),
    OIDC_AUDIENCE: z.string().min(1).default('realtime-service').describe('Must be in the `aud` of a token'),
    OIDC_AZP: list((entry) => entry !== '', 'client ids')
      .optional()
      .describe('Clients whose tokens count, separated by commas; any by default'),
    OIDC_LOGOUT_AUDIENCE: list((entry) => entry !== '', 'client ids')
      .optional()
      .describe(
        'Clients whose back-channel logout tokens count (their `aud`), separated by commas; OIDC_AZP by default, else none',
      ),
    LOGIN_MAX_SECONDS: z.coerce
      .number()
      .int()
      .min(60)
      .max(31_536_000)
      .optional()
      .describe(
        'Longest life of a login, counted from `auth_time` of its token, or `iat` where the provider does not say that: then its calls end; unlimited by default',
      ),
    OIDC_ALGORITHMS: list(isAlgorithm, `of ${asymmetric.join(' ')}`)
      .prefault('RS256,PS256,ES256,EdDSA')
      .describe(`Signature algorithms that count, separated by commas; of ${asymmetric.join(' ')}`),
    TOKEN_TTL_SECONDS: number(10, 600, 60).describe(
      'Life of a LiveKit token; it only has to open the connection. Clients reuse one that lives longer than 60 s',
    ),
    LIVEKIT_MAKE_ROOMS: z
      .stringbool()
      .default(true)
      .describe(
        'Whether a join makes the room in LiveKit, as the gate always does; false where LiveKit is to make rooms by itself: then no agents are dispatched that a join asks for',
      ),
    CORS_ORIGINS: list(isOrigin, 'origins such as https://app.example.org')
      .optional()
      .describe('Origins of web clients, separated by commas; none by default'),
    TRUST_PROXY: list(isCidr, 'address ranges such as 10.0.0.0/8')
      .optional()
      .describe(
        'Proxies whose X-Forwarded-For counts, as ranges such as 10.0.0.0/8, separated by commas; none by default',
      ),
    RATE_LIMIT_USER_PER_MINUTE: number(1, 1_000_000, 120).describe(
      'Joins of one person, and as many other requests of theirs; each process counts by itself, for every limit',
    ),
    RATE_LIMIT_PRODUCER_PER_MINUTE: number(1, 10_000_000, 6000).describe(
      'Requests of one producer to the event route; each may bring 1,000 events',
    ),
    RATE_LIMIT_ADDRESS_PER_MINUTE: number(1, 100_000_000, 6000).describe('Requests from one address (IPv6: one /64)'),
    RATE_LIMIT_GATE_PER_MINUTE: number(1, 1_000_000, 300).describe(
      'Attempts of one person at the gate of one process, whichever proxy asks',
    ),
    GATE_URI_HEADER: z
      .string()
      .regex(/^[\w-]+$/)
      .toLowerCase()
      .default('x-original-uri')
      .describe('The one header in which a proxy tells the gate what its client asked for'),
    GATE_MACHINE_KINDS: list((entry) => /^[a-z]+$/.test(entry), 'kinds of participants')
      .prefault('agent,egress,ingress')
      .describe(
        "Kinds of LiveKit participants that pass the gate with others' tokens of our keys, separated by commas",
      ),
    MAX_EVENT_LOOP_DELAY_MS: number(10, 60_000, 250).describe('Above this mean delay requests are shed with 503'),
    MAX_HEADER_BYTES: number(17_408, 65_536, 32_768).describe(
      'Most bytes of request headers, of which an access token takes 16,384 at most; proxies in front must allow as much',
    ),
    PROJECTION_MAX_AGE_SECONDS: number(1, 3600, 10).describe(
      'Above this age of its partition a room admits nobody, and a person is admitted nowhere',
    ),
    MIGRATE: z
      .stringbool()
      .default(true)
      .describe(
        'Whether to bring the schema up to date at start; with false it is ready once the schema holds what joins ask for',
      ),
    NODE_ENV: z.string().optional().describe('With `production` OIDC_ISSUER must be https'),
  })
  .transform((env, context) => {
    if (env.NODE_ENV === 'production' && !env.OIDC_ISSUER.startsWith('https:'))
      context.addIssue({ code: 'custom', path: ['OIDC_ISSUER'], message: 'must be https in production' });
    return {
      port: env.API_PORT,
      opsPort: env.API_OPS_PORT,
      oidc: {
        issuer: env.OIDC_ISSUER,
        jwksUri: env.OIDC_JWKS_URI ?? `${env.OIDC_ISSUER.replace(/\/$/, '')}/protocol/openid-connect/certs`,
        audience: env.OIDC_AUDIENCE,
        authorisedParties: env.OIDC_AZP,
        logoutAudience: env.OIDC_LOGOUT_AUDIENCE ?? env.OIDC_AZP ?? [],
        loginMaxSeconds: env.LOGIN_MAX_SECONDS,
        algorithms: env.OIDC_ALGORITHMS.filter(isAlgorithm),
      },
      tokenTtlSeconds: env.TOKEN_TTL_SECONDS,
      makesRooms: env.LIVEKIT_MAKE_ROOMS,
      corsOrigins: env.CORS_ORIGINS ?? [],
      trustProxy: env.TRUST_PROXY ?? false,
      userRequestsPerMinute: env.RATE_LIMIT_USER_PER_MINUTE,
      producerRequestsPerMinute: env.RATE_LIMIT_PRODUCER_PER_MINUTE,
      addressRequestsPerMinute: env.RATE_LIMIT_ADDRESS_PER_MINUTE,
      gate: {
        uriHeader: env.GATE_URI_HEADER,
        machineKinds: env.GATE_MACHINE_KINDS,
        requestsPerMinute: env.RATE_LIMIT_GATE_PER_MINUTE,
      },
      maxEventLoopDelayMs: env.MAX_EVENT_LOOP_DELAY_MS,
      maxHeaderBytes: env.MAX_HEADER_BYTES,
      projectionMaxAgeMs: env.PROJECTION_MAX_AGE_SECONDS * 1000,
      migrates: env.MIGRATE,
    };
  });

/** Every setting of the api, from the environment. */
export const ApiSettings = ServiceSettings.and(OwnSettings).and(DatabaseSettings).and(LogSettings).and(LivekitSettings);
export type ApiSettings = z.infer<typeof ApiSettings>;
