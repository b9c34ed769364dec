/**
 * The dev issuer: the part of Keycloak that clients and services use, without Keycloak. It reads the realm file that a
 * real Keycloak imports, so that users keep their `sub` when one takes its place; `iss` and the keys are its own.
 */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import cors from '@fastify/cors';
import formbody from '@fastify/formbody';
import fastify from 'fastify';
import {
  calculateJwkThumbprint,
  createLocalJWKSet,
  exportJWK,
  generateKeyPair,
  type JSONWebKeySet,
  type JWK,
  type JWTPayload,
  jwtVerify,
  SignJWT,
} from 'jose';
import { z } from 'zod';
import { readOrMake } from './kept-file.ts';
import { freePort } from './ports.ts';

export interface IssuerOptions {
  /** By default a free one. */
  readonly port?: number;
  readonly host?: string;
  /** Where the private keys are kept from one start to the next. Without it they live as long as the issuer. */
  readonly keysFile?: string;
  /** In Keycloak's export format; by default the realm `dev`. */
  readonly realmFile?: string;
}

export interface Issuer {
  readonly url: string;
  readonly port: number;
  /** The realm's, as it stands in `iss`. */
  readonly issuer: string;
  readonly jwksUri: string;
  stop(): Promise<void>;
}

const defaultRealmFile = fileURLToPath(new URL('../../../deploy/keycloak/realm-dev.json', import.meta.url));

/** What is read of a realm in Keycloak's export format. */
const Realm = z.object({
  realm: z.string(),
  accessTokenLifespan: z.int(),
  ssoSessionIdleTimeout: z.int(),
  clientScopes: z.array(
    z.object({
      name: z.string(),
      attributes: z.object({ 'include.in.token.scope': z.enum(['true', 'false']) }),
      protocolMappers: z
        .array(z.object({ protocolMapper: z.string(), config: z.record(z.string(), z.string()) }))
        .default([]),
    }),
  ),
  clients: z.array(
    z.object({
      clientId: z.string(),
      secret: z.string().optional(),
      directAccessGrantsEnabled: z.boolean(),
      serviceAccountsEnabled: z.boolean().default(false),
      defaultClientScopes: z.array(z.string()),
    }),
  ),
  users: z.array(
    z.object({
      id: z.string(),
      username: z.string(),
      serviceAccountClientId: z.string().optional(),
      credentials: z.array(z.object({ type: z.literal('password'), value: z.string() })).default([]),
    }),
  ),
});
type Realm = z.infer<typeof Realm>;
type Client = Realm['clients'][number];
type User = Realm['users'][number];

/** A repeated parameter arrives as a list, and is refused as one (RFC 6749, 3.2). */
const Form = z.object({
  grant_type: z.string(),
  client_id: z.string().optional(),
  client_secret: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  refresh_token: z.string().optional(),
});
type Form = z.infer<typeof Form>;

interface Refusal {
  readonly status: 400 | 401;
  readonly error: string;
  readonly error_description: string;
}

/** Who is to get tokens. A login has a session; a service account has none, and so no refresh token. */
interface Grant {
  readonly client: Client;
  readonly user: User;
  readonly sid: string | undefined;
}

/** What the issuer is made of; everything below works on it. */
interface Issuing {
  readonly realm: Realm;
  readonly issuer: string;
  readonly keys: Keys;
}

interface Keys {
  readonly signing: PrivateKey;
  /** Like Keycloak's it holds a key for encryption too, which no token is ever signed with. */
  readonly published: JSONWebKeySet;
}

/** The rest of a private RSA key (RFC 7518, 6.3) is kept as it is. */
const PrivateKey = z.looseObject({
  kid: z.string(),
  kty: z.literal('RSA'),
  alg: z.string(),
  use: z.string(),
  n: z.string(),
  e: z.string(),
  d: z.string(),
});
type PrivateKey = z.infer<typeof PrivateKey>;

const PrivateKeys = z.object({ signing: PrivateKey, encryption: PrivateKey });

/** Starts the issuer on loopback. Refuses in production, where its secrets, all public, would open every door. */
export async function startIssuer(options: IssuerOptions = {}): Promise<Issuer> {
  if (process.env['NODE_ENV'] === 'production') throw new Error('the dev issuer does not run in production');
  const { host = '127.0.0.1', port = await freePort(), realmFile = defaultRealmFile, keysFile } = options;
  const realm = Realm.parse(JSON.parse(await readFile(realmFile, 'utf8')));
  const url = `http://${host}:${port}`;
  const issuer = `${url}/realms/${realm.realm}`;
  const issuing: Issuing = { realm, issuer, keys: await readOrMakeKeys(keysFile) };

  const app = fastify();
  await app.register(cors, { origin: /^http:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/ });
  await app.register(formbody);
  app.get(`/realms/${realm.realm}/.well-known/openid-configuration`, () => discovery(issuer));
  app.get(`/realms/${realm.realm}/protocol/openid-connect/certs`, () => issuing.keys.published);
  app.post(`/realms/${realm.realm}/protocol/openid-connect/token`, async (request, reply) => {
    const grant = await decide(issuing, request.body, request.headers.authorization);
    reply.header('cache-control', 'no-store');
    if (!('error' in grant)) return tokens(issuing, grant);
    const { status, ...answer } = grant;
    return reply.code(status).send(answer);
  });
  await app.listen({ host, port });
  return { url, port, issuer, jwksUri: discovery(issuer).jwks_uri, stop: () => app.close() };
}

/** The grant that a request asks for, or a refusal in Keycloak's own words. */
async function decide(issuing: Issuing, body: unknown, authorization: string | undefined): Promise<Grant | Refusal> {
  const parsed = Form.safeParse(body ?? {});
  if (!parsed.success) return refusal(400, 'invalid_request', 'Missing form parameter: grant_type');
  const form = parsed.data;
  const { id, secret } = clientCredentials(form, authorization);
  const client = issuing.realm.clients.find(({ clientId }) => clientId === id);
  if (client === undefined) return refusal(401, 'invalid_client', 'Invalid client or Invalid client credentials');
  if (client.secret !== undefined && client.secret !== secret) {
    return refusal(401, 'unauthorized_client', 'Invalid client or Invalid client credentials');
  }
  switch (form.grant_type) {
    case 'password':
      return passwordGrant(issuing.realm, client, form);
    case 'client_credentials':
      return clientCredentialsGrant(issuing.realm, client);
    case 'refresh_token':
      return refreshGrant(issuing, client, form.refresh_token);
    default:
      return refusal(400, 'unsupported_grant_type', 'Unsupported grant_type');
  }
}

function passwordGrant({ users }: Realm, client: Client, form: Form): Grant | Refusal {
  if (!client.directAccessGrantsEnabled) {
    return refusal(400, 'unauthorized_client', 'Client not allowed for direct access grants');
  }
  if (form.username === undefined) return refusal(401, 'invalid_request', 'Missing parameter: username');
  const user = users.find(({ username }) => username === form.username);
  if (user === undefined || !user.credentials.some(({ value }) => value === form.password)) {
    return refusal(400, 'invalid_grant', 'Invalid user credentials');
  }
  return { client, user, sid: randomUUID() };
}

function clientCredentialsGrant({ users }: Realm, client: Client): Grant | Refusal {
  if (client.secret === undefined) {
    return refusal(401, 'unauthorized_client', 'Public client not allowed to retrieve service account');
  }
  const user = users.find(({ serviceAccountClientId }) => serviceAccountClientId === client.clientId);
  if (user === undefined) {
    return refusal(401, 'unauthorized_client', 'Client not enabled to retrieve service account');
  }
  return { client, user, sid: undefined };
}

async function refreshGrant(
  { realm, issuer, keys }: Issuing,
  client: Client,
  token: string | undefined,
): Promise<Grant | Refusal> {
  if (token === undefined) return refusal(400, 'invalid_request', 'No refresh token');
  // Only refresh tokens are for the issuer itself.
  const verified = jwtVerify(token, createLocalJWKSet(keys.published), { issuer, audience: issuer });
  const { azp, sub, sid } = await verified.then(
    ({ payload }) => payload,
    (): JWTPayload => ({}),
  );
  const user = realm.users.find(({ id }) => id === sub);
  if (user === undefined || azp !== client.clientId || typeof sid !== 'string') {
    return refusal(400, 'invalid_grant', 'Invalid refresh token');
  }
  return { client, user, sid };
}

async function tokens(issuing: Issuing, { client, user, sid }: Grant) {
  const { accessTokenLifespan, ssoSessionIdleTimeout, clientScopes } = issuing.realm;
  const scopes = clientScopes.filter(({ name }) => client.defaultClientScopes.includes(name));
  const scope = scopes
    .filter(({ attributes }) => attributes['include.in.token.scope'] === 'true')
    .map(({ name }) => name)
    .join(' ');
  const mappers = new Map(
    scopes.flatMap(({ protocolMappers }) => protocolMappers).map((it) => [it.protocolMapper, it]),
  );
  const audience = mappers.get('oidc-audience-mapper')?.config['included.custom.audience'];
  const login = { azp: client.clientId, scope, ...(sid !== undefined && { sid }) };
  const access = {
    ...login,
    typ: 'Bearer',
    ...(audience !== undefined && { aud: audience }),
    ...(mappers.has('oidc-usermodel-attribute-mapper') && { preferred_username: user.username }),
  };
  const refresh = { ...login, typ: 'Refresh', aud: issuing.issuer };
  return {
    access_token: await sign(issuing, { ...access, sub: user.id }, accessTokenLifespan),
    expires_in: accessTokenLifespan,
    token_type: 'Bearer',
    'not-before-policy': 0,
    scope,
    ...(sid === undefined
      ? { refresh_expires_in: 0 }
      : {
          refresh_token: await sign(issuing, { ...refresh, sub: user.id }, ssoSessionIdleTimeout),
          refresh_expires_in: ssoSessionIdleTimeout,
          session_state: sid,
        }),
  };
}

async function sign({ issuer, keys }: Issuing, payload: JWTPayload, lifespanSeconds: number): Promise<string> {
  return new SignJWT(payload)
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT', kid: keys.signing.kid })
    .setIssuer(issuer)
    .setJti(randomUUID())
    .setIssuedAt()
    .setExpirationTime(`${lifespanSeconds}s`)
    .sign(keys.signing);
}

/** From the Authorization header where there is one, else from the form. */
function clientCredentials(form: Form, authorization: string | undefined) {
  const basic = /^Basic (.+)$/i.exec(authorization ?? '')?.[1];
  if (basic === undefined) return { id: form.client_id, secret: form.client_secret };
  const [id, secret] = Buffer.from(basic, 'base64').toString().split(':');
  return { id, secret };
}

function refusal(status: Refusal['status'], error: string, description: string): Refusal {
  return { status, error, error_description: description };
}

function discovery(issuer: string) {
  return {
    issuer,
    jwks_uri: `${issuer}/protocol/openid-connect/certs`,
    token_endpoint: `${issuer}/protocol/openid-connect/token`,
    grant_types_supported: ['password', 'client_credentials', 'refresh_token'],
    token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
    response_types_supported: ['none'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256'],
  };
}

async function readOrMakeKeys(file: string | undefined): Promise<Keys> {
  return keysOf(await (file === undefined ? makeKeys() : readOrMake(file, PrivateKeys, makeKeys)));
}

function keysOf({ signing, encryption }: z.infer<typeof PrivateKeys>): Keys {
  const published = [encryption, signing].map(({ kid, kty, alg, use, n, e }): JWK => ({ kid, kty, alg, use, n, e }));
  return { signing, published: { keys: published } };
}

async function makeKeys(): Promise<z.infer<typeof PrivateKeys>> {
  return { signing: await makeKey('RS256', 'sig'), encryption: await makeKey('RSA-OAEP', 'enc') };
}

async function makeKey(alg: string, use: 'sig' | 'enc'): Promise<PrivateKey> {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = await exportJWK(privateKey);
  return PrivateKey.parse({ ...jwk, alg, use, kid: await calculateJwkThumbprint(jwk) });
}
