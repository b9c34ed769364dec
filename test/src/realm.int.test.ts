/** A real Keycloak and the dev issuer read one realm file: what clients and services get is the same from both. */
import { type Issuer, keycloakAdmin, startIssuer } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

type Form = Record<string, string>;

const user = (username: string, client_id = 'web') => ({
  grant_type: 'password',
  client_id,
  username,
  password: username,
});
const service = (client_id: string) => ({
  grant_type: 'client_credentials',
  client_id,
  client_secret: `${client_id}-secret`,
});

/** Keycloak reads its clock for each figure anew: a second may begin between two, and between token and answer. */
const minutes = (seconds: unknown) => Math.round(Number(seconds) / 60);

describeWith(['keycloak'], 'the realm in Keycloak', ({ keycloak }) => {
  let devIssuer: Issuer;
  beforeAll(async () => {
    devIssuer = await startIssuer();
  });
  afterAll(() => devIssuer.stop());

  async function ask(issuer: string, form: Form, headers: Form = {}) {
    const response = await fetch(`${issuer}/protocol/openid-connect/token`, {
      method: 'POST',
      body: new URLSearchParams(form),
      headers,
    });
    return { status: response.status, body: (await response.json()) as Form };
  }

  async function claims(issuer: string, form: Form) {
    const { access_token = '' } = (await ask(issuer, form)).body;
    const keys = createRemoteJWKSet(new URL(`${issuer}/protocol/openid-connect/certs`));
    return (await jwtVerify(access_token, keys, { issuer })).payload;
  }

  describe('gives tokens', () => {
    test.each([
      ['ann', 'a0000000-0000-4000-8000-000000000001'],
      ['bob', 'a0000000-0000-4000-8000-000000000002'],
      ['cleo', 'a0000000-0000-4000-8000-000000000003'],
      ['dan', 'a0000000-0000-4000-8000-000000000004'],
    ])('to %s, for the api and five minutes', async (name, sub) => {
      const { iat = 0, exp = 0, ...token } = await claims(keycloak.issuer, user(name));
      expect(token).toMatchObject({
        typ: 'Bearer',
        azp: 'web',
        aud: 'realtime-service',
        sub,
        preferred_username: name,
      });
      expect(token['sid']).toEqual(expect.any(String));
      expect(minutes(exp - iat)).toBe(5);
    });

    test.each([
      ['domain', 'realtime:publish'],
      ['ops', 'realtime:ops'],
    ])('to the service %s, with the scope %s alone', async (client, scope) => {
      const token = await claims(keycloak.issuer, service(client));
      expect(token).toMatchObject({ typ: 'Bearer', azp: client, aud: 'realtime-service', scope });
      expect(token.sub).toEqual(expect.any(String));
    });

    test('that say for whom and whose they are to a client with lightweight ones, too', async () => {
      const client = {
        ...{ id: '70000000-0000-4000-8000-000000000001', clientId: 'lightweight' },
        ...{ publicClient: true, directAccessGrantsEnabled: true },
        attributes: { 'client.use.lightweight.access.token.enabled': 'true' },
        defaultClientScopes: ['basic', 'profile', 'realtime-service'],
      };
      const clients = '/realms/dev/clients';
      await keycloakAdmin(keycloak.url, clients, { method: 'POST', body: JSON.stringify(client) });
      try {
        const token = await claims(keycloak.issuer, user('ann', client.clientId));
        expect(token).toMatchObject({ aud: 'realtime-service', sub: 'a0000000-0000-4000-8000-000000000001' });
        expect(token).not.toHaveProperty('preferred_username');
      } finally {
        await keycloakAdmin(keycloak.url, `${clients}/${client.id}`, { method: 'DELETE' });
      }
    });

    test('that name no audience to a client without the mapper', async () => {
      const token = await claims(keycloak.issuer, user('ann', 'web-no-audience'));
      expect(token).not.toHaveProperty('aud');
    });
  });

  describe('gives the same as the dev issuer', () => {
    /** Claims without those that differ from token to token, whoever issues them. */
    const lasting = async (issuer: string, form: Form) => {
      const { iss: _, jti, iat, exp, ...claimed } = await claims(issuer, form);
      return { ...claimed, lifespan: minutes(Number(exp) - Number(iat)), jti: typeof jti, sid: typeof claimed['sid'] };
    };

    test.each([user('ann'), user('dan', 'web-no-audience'), service('domain'), service('ops')])(
      'for $client_id $username',
      async (form) => {
        expect(await lasting(devIssuer.issuer, form)).toEqual(await lasting(keycloak.issuer, form));
      },
    );

    test('and as much beside the token', async () => {
      const shape = async (issuer: string, form: Form) => {
        const { access_token: _, refresh_token, session_state, ...rest } = (await ask(issuer, form)).body;
        return {
          ...rest,
          expires_in: minutes(rest['expires_in']),
          refresh_expires_in: minutes(rest['refresh_expires_in']),
          refresh_token: typeof refresh_token,
          session_state: typeof session_state,
        };
      };
      for (const form of [user('ann'), service('domain')]) {
        expect(await shape(devIssuer.issuer, form)).toEqual(await shape(keycloak.issuer, form));
      }
    });

    test('when it refreshes: one login, new tokens', async () => {
      for (const { issuer } of [keycloak, devIssuer]) {
        const { refresh_token = '', access_token = '' } = (await ask(issuer, user('ann'))).body;
        const refreshed = await claims(issuer, { grant_type: 'refresh_token', client_id: 'web', refresh_token });
        const { sid, sub, jti } = decodeJwt(access_token);
        expect(refreshed).toMatchObject({ sid, sub });
        expect(refreshed.jti).not.toBe(jti);
      }
    });

    test.each<[string, Form]>([
      ['wrong password', { ...user('ann'), password: 'bob' }],
      ['unknown user', user('zoe')],
      ['no username', { grant_type: 'password', client_id: 'web' }],
      ['unknown client', user('ann', 'nobody')],
      ['no client', { grant_type: 'client_credentials' }],
      ['wrong secret', { ...service('domain'), client_secret: 'guess' }],
      ['no secret', { grant_type: 'client_credentials', client_id: 'domain' }],
      ['a public client for itself', { grant_type: 'client_credentials', client_id: 'web' }],
      ['a password at a service', { ...service('domain'), ...user('ann', 'domain') }],
      ['no grant type', { client_id: 'web' }],
      ['unknown grant type', { ...user('ann'), grant_type: 'implicit' }],
      ['no refresh token', { grant_type: 'refresh_token', client_id: 'web' }],
      ['a broken refresh token', { grant_type: 'refresh_token', client_id: 'web', refresh_token: 'x' }],
    ])('when it refuses: %s', async (_, form) => {
      const fromKeycloak = await ask(keycloak.issuer, form);
      expect(fromKeycloak.status).toBeGreaterThanOrEqual(400);
      expect(await ask(devIssuer.issuer, form)).toEqual(fromKeycloak);
    });

    test('when a secret comes in the header', async () => {
      const authorization = `Basic ${btoa('domain:domain-secret')}`;
      for (const { issuer } of [keycloak, devIssuer]) {
        expect(await ask(issuer, { grant_type: 'client_credentials' }, { authorization })).toMatchObject({
          status: 200,
        });
      }
    });
  });
});
