import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type Issuer, startIssuer } from './issuer.ts';

let issuer: Issuer;
beforeAll(async () => {
  issuer = await startIssuer();
});
afterAll(() => issuer.stop());

const ann = { grant_type: 'password', client_id: 'web', username: 'ann', password: 'ann' };
const domain = { grant_type: 'client_credentials', client_id: 'domain', client_secret: 'domain-secret' };
const annId = 'a0000000-0000-4000-8000-000000000001';

async function ask(form: Record<string, string> | URLSearchParams, headers: Record<string, string> = {}) {
  const response = await fetch(`${issuer.issuer}/protocol/openid-connect/token`, {
    method: 'POST',
    body: new URLSearchParams(form),
    headers,
  });
  const body = (await response.json()) as Record<string, string>;
  return { status: response.status, headers: response.headers, body };
}

async function claims(token = '') {
  const options = { issuer: issuer.issuer, algorithms: ['RS256'] };
  return (await jwtVerify(token, createRemoteJWKSet(new URL(issuer.jwksUri)), options)).payload;
}

describe('discovery', () => {
  test('names the endpoints where Keycloak has them', async () => {
    const response = await fetch(`${issuer.url}/realms/dev/.well-known/openid-configuration`);
    expect(await response.json()).toMatchObject({
      issuer: `${issuer.url}/realms/dev`,
      token_endpoint: `${issuer.url}/realms/dev/protocol/openid-connect/token`,
      jwks_uri: issuer.jwksUri,
    });
  });

  test('publishes a signing and an encryption key, and no private part of them', async () => {
    const { keys } = (await (await fetch(issuer.jwksUri)).json()) as { keys: Record<string, string>[] };
    expect(keys.map(({ use, alg }) => `${use} ${alg}`)).toEqual(['enc RSA-OAEP', 'sig RS256']);
    for (const key of keys) expect(Object.keys(key).sort()).toEqual(['alg', 'e', 'kid', 'kty', 'n', 'use']);
  });
});

describe('a password', () => {
  test('gives an access token with the claims of Keycloak', async () => {
    const { status, headers, body } = await ask(ann);
    expect({ status, cache: headers.get('cache-control') }).toEqual({ status: 200, cache: 'no-store' });
    expect(body).toMatchObject({ token_type: 'Bearer', expires_in: 300, scope: 'profile' });
    const token = await claims(body['access_token']);
    expect(token).toEqual({
      iss: issuer.issuer,
      aud: 'realtime-service',
      sub: annId,
      typ: 'Bearer',
      azp: 'web',
      sid: body['session_state'],
      scope: 'profile',
      preferred_username: 'ann',
      jti: expect.any(String),
      iat: expect.any(Number),
      exp: Number(token.iat) + 300,
    });
    expect(decodeProtectedHeader(body['access_token'] ?? '')).toMatchObject({ alg: 'RS256', typ: 'JWT' });
  });

  test('gives each login a session of its own, and each token an id', async () => {
    const [one, other] = await Promise.all(
      [ask(ann), ask(ann)].map(async (it) => claims((await it).body['access_token'])),
    );
    expect(one?.sub).toBe(other?.sub);
    expect(one?.['sid']).not.toBe(other?.['sid']);
    expect(one?.jti).not.toBe(other?.jti);
  });

  test('of a client without the audience mapper gives a token that names no audience', async () => {
    const { body } = await ask({ ...ann, client_id: 'web-no-audience' });
    expect(await claims(body['access_token'])).not.toHaveProperty('aud');
  });
});

describe('client credentials', () => {
  test.each([
    { client: 'domain', secret: 'domain-secret', scope: 'realtime:publish' },
    { client: 'ops', secret: 'ops-secret', scope: 'realtime:ops' },
  ])('of $client give its scope, without a login or a refresh token', async ({ client, secret, scope }) => {
    const { body } = await ask({ ...domain, client_id: client, client_secret: secret });
    expect(body).not.toHaveProperty('refresh_token');
    const token = await claims(body['access_token']);
    expect(token).toMatchObject({ azp: client, aud: 'realtime-service', scope, sub: expect.any(String) });
    expect(token).not.toHaveProperty('sid');
  });

  test('may come in the Authorization header', async () => {
    const authorization = `Basic ${btoa('domain:domain-secret')}`;
    expect(await ask({ grant_type: 'client_credentials' }, { authorization })).toMatchObject({ status: 200 });
  });
});

describe('a refresh token', () => {
  test('gives new tokens of the same login', async () => {
    const { body: login } = await ask(ann);
    const refresh = { grant_type: 'refresh_token', client_id: 'web', refresh_token: login['refresh_token'] ?? '' };
    const { status, body } = await ask(refresh);
    expect(status).toBe(200);
    expect(await claims(body['access_token'])).toMatchObject({ sub: annId, sid: login['session_state'] });
  });

  test('cannot pass for an access token', async () => {
    const token = await claims((await ask(ann)).body['refresh_token']);
    expect(token).toMatchObject({ typ: 'Refresh', aud: issuer.issuer });
  });
});

describe('refusals, in the words of Keycloak', () => {
  const badLogin = '400 invalid_grant: Invalid user credentials';
  const unknownClient = '401 invalid_client: Invalid client or Invalid client credentials';
  const badSecret = '401 unauthorized_client: Invalid client or Invalid client credentials';
  const publicService = '401 unauthorized_client: Public client not allowed to retrieve service account';
  const noPasswords = '400 unauthorized_client: Client not allowed for direct access grants';
  const badRefresh = '400 invalid_grant: Invalid refresh token';

  test.each([
    ['wrong password', { ...ann, password: 'bob' }, badLogin],
    ['unknown user', { ...ann, username: 'zoe' }, badLogin],
    ['no password', { grant_type: 'password', client_id: 'web', username: 'ann' }, badLogin],
    ['a service account as user', { ...ann, username: 'service-account-domain' }, badLogin],
    ['no username', { grant_type: 'password', client_id: 'web' }, '401 invalid_request: Missing parameter: username'],
    ['unknown client', { ...ann, client_id: 'nobody' }, unknownClient],
    ['no client', { grant_type: 'client_credentials' }, unknownClient],
    ['wrong secret', { ...domain, client_secret: 'guess' }, badSecret],
    ['no secret', { grant_type: 'client_credentials', client_id: 'domain' }, badSecret],
    ['a public client for itself', { grant_type: 'client_credentials', client_id: 'web' }, publicService],
    ['a password at a service', { ...domain, ...ann, client_id: 'domain' }, noPasswords],
    ['no grant type', { client_id: 'web' }, '400 invalid_request: Missing form parameter: grant_type'],
    ['unknown grant type', { ...ann, grant_type: 'implicit' }, '400 unsupported_grant_type: Unsupported grant_type'],
    ['no refresh token', { grant_type: 'refresh_token', client_id: 'web' }, '400 invalid_request: No refresh token'],
    ['no real one', { grant_type: 'refresh_token', client_id: 'web', refresh_token: 'x' }, badRefresh],
  ])('%s', async (_, form, refusal) => {
    const { status, body } = await ask(form);
    expect(`${status} ${body['error']}: ${body['error_description']}`).toBe(refusal);
  });

  test.each([
    ['an access token', 'web', 'access_token'],
    ['another client’s refresh token', 'web-no-audience', 'refresh_token'],
  ])('%s as refresh token', async (_, client_id, kind) => {
    const { body } = await ask(ann);
    const answer = await ask({ grant_type: 'refresh_token', client_id, refresh_token: body[kind] ?? '' });
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
  });

  test('a parameter twice', async () => {
    const form = new URLSearchParams([...Object.entries(ann), ['username', 'bob']]);
    expect(await ask(form)).toMatchObject({ status: 400, body: { error: 'invalid_request' } });
  });
});

describe('a page in a browser', () => {
  test.each([
    ['http://localhost:8080', 'http://localhost:8080'],
    ['http://127.0.0.1:5173', 'http://127.0.0.1:5173'],
    ['https://example.com', null],
    ['http://localhost.example.com', null],
  ])('of %s', async (origin, allowed) => {
    expect((await ask(ann, { origin })).headers.get('access-control-allow-origin')).toBe(allowed);
  });
});

describe('keys', () => {
  test('outlive a restart where a file keeps them, for its owner alone', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'issuer-'));
    const keysFile = join(folder, 'data', 'issuer-keys.json');
    const published = async () => {
      const started = await startIssuer({ keysFile });
      const keys = await (await fetch(started.jwksUri)).json();
      await started.stop();
      return keys;
    };
    try {
      expect(await published()).toEqual(await published());
      if (process.platform !== 'win32') expect(statSync(keysFile).mode & 0o777).toBe(0o600);
      expect(JSON.parse(readFileSync(keysFile, 'utf8')).signing).toHaveProperty('d');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('are fresh without one', async () => {
    const other = await startIssuer();
    const [ours, theirs] = await Promise.all([issuer, other].map(async ({ jwksUri }) => (await fetch(jwksUri)).text()));
    await other.stop();
    expect(ours).not.toBe(theirs);
  });
});

test('production refuses it', async () => {
  vi.stubEnv('NODE_ENV', 'production');
  await expect(startIssuer()).rejects.toThrow('production');
  vi.unstubAllEnvs();
});
