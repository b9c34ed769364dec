/** Of which ends of a login a real Keycloak tells, and of which it does not: what `docs/logins.md` says of it. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { keycloakAdmin, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { decodeJwt } from 'jose';
import { afterAll, beforeAll, expect, test } from 'vitest';

const realm = 'told';
const json = (body: unknown): RequestInit => ({ method: 'POST', body: JSON.stringify(body) });

describeWith(['keycloak'], 'Keycloak tells of a logout', ({ keycloak }) => {
  /** The `sid` of each logout token that came. */
  const told: unknown[] = [];
  const listener = createServer(async (request, response) => {
    let form = '';
    for await (const chunk of request) form += chunk;
    told.push(decodeJwt(new URLSearchParams(form).get('logout_token') ?? '')['sid']);
    response.end();
  });
  const endpoint = `${keycloak.url}/realms/${realm}/protocol/openid-connect`;

  const admin = async (path: string, init: RequestInit): Promise<void> => {
    const answer = await keycloakAdmin(keycloak.url, `/realms${path}`, init);
    expect({ path, ok: answer.ok }).toEqual({ path, ok: true });
  };

  beforeAll(async () => {
    await once(listener.listen(0, '127.0.0.1'), 'listening');
    const attributes = {
      'backchannel.logout.url': `http://127.0.0.1:${(listener.address() as AddressInfo).port}/`,
      'backchannel.logout.session.required': 'true',
    };
    const app = { clientId: 'app', publicClient: true, directAccessGrantsEnabled: true, attributes };
    await admin('', json({ realm, enabled: true, sslRequired: 'none', clients: [app] }));
  });
  afterAll(async () => {
    await admin(`/${realm}`, { method: 'DELETE' });
    listener.close();
  });

  /** A person who has logged in, for offline use or not. */
  const logIn = async (scope: string) => {
    const name = randomUUID();
    const names = { username: name, email: `${name}@example.com`, firstName: 'A', lastName: 'B', emailVerified: true };
    const credentials = [{ type: 'password', value: name }];
    await admin(`/${realm}/users`, json({ ...names, enabled: true, credentials }));
    const form = { grant_type: 'password', client_id: 'app', username: name, password: name, scope };
    const response = await fetch(`${endpoint}/token`, { method: 'POST', body: new URLSearchParams(form) });
    const { access_token = '', refresh_token = '' } = (await response.json()) as Record<string, string>;
    const { sub = '', sid } = decodeJwt(access_token);
    return { user: `/${realm}/users/${sub}`, session: `/${realm}/sessions/${sid}`, sid, refreshToken: refresh_token };
  };
  type Login = Awaited<ReturnType<typeof logIn>>;
  type End = (login: Login) => Promise<unknown>;

  const postForm = (path: string, form: Record<string, string>): Promise<Response> =>
    fetch(`${endpoint}/${path}`, { method: 'POST', body: new URLSearchParams({ client_id: 'app', ...form }) });
  const byTheApp: End = ({ refreshToken }) => postForm('logout', { refresh_token: refreshToken });
  const byRevokedToken: End = ({ refreshToken }) => postForm('revoke', { token: refreshToken });
  const signOut: End = ({ session }) => admin(session, { method: 'DELETE' });
  const revokeOffline: End = ({ session }) => admin(`${session}?isOffline=true`, { method: 'DELETE' });
  const signOutAgain: End = ({ session }) => keycloakAdmin(keycloak.url, `/realms${session}`, { method: 'DELETE' });
  const logOutAllSessions: End = ({ user }) => admin(`${user}/logout`, { method: 'POST' });
  const revokeConsent: End = ({ user }) => admin(`${user}/consents/app`, { method: 'DELETE' });
  const disable: End = ({ user }) => admin(user, { method: 'PUT', body: JSON.stringify({ enabled: false }) });
  const remove: End = ({ user }) => admin(user, { method: 'DELETE' });
  const endAllOfTheRealm: End = () => admin(`/${realm}/logout-all`, { method: 'POST' });
  const pushRevocation: End = async () => {
    const notBefore = Math.floor(Date.now() / 1000);
    await admin(`/${realm}`, { method: 'PUT', body: JSON.stringify({ notBefore }) });
    await admin(`/${realm}/push-revocation`, { method: 'POST' });
    await admin(`/${realm}`, { method: 'PUT', body: JSON.stringify({ notBefore: 0 }) });
  };

  test.each<[string, string, End]>([
    ['the app logs out', 'openid', byTheApp],
    ['an administrator signs the session out', 'openid', signOut],
    ['an administrator logs all sessions of the person out', 'openid', logOutAllSessions],
    ['the app logs out of a login for offline use', 'offline_access', byTheApp],
    ['an administrator revokes a login for offline use', 'offline_access', revokeOffline],
  ])('when %s', async (_, scope, end) => {
    const login = await logIn(scope);
    await end(login);
    await until('Keycloak has told', () => Promise.resolve(told.includes(login.sid)));
  });

  test.each<[string, string, End]>([
    ['the refresh token is revoked', 'openid', byRevokedToken],
    ['the person is disabled', 'openid', disable],
    ['the person is deleted', 'openid', remove],
    ['all sessions of the realm are signed out', 'openid', endAllOfTheRealm],
    ['all tokens so far are revoked', 'openid', pushRevocation],
    ['all sessions of a person are logged out, who has one for offline use', 'offline_access', logOutAllSessions],
    ['offline access is taken back from the app', 'offline_access', revokeConsent],
  ])('but not when %s', async (_, scope, end) => {
    const login = await logIn(scope);
    await end(login);
    // Keycloak tells within the request that ends a session: what it tells of afterwards comes later.
    const last = await logIn('openid');
    await signOut(last);
    await until('Keycloak has told', () => Promise.resolve(told.includes(last.sid)));
    expect(told).not.toContain(login.sid);
  });

  test('once: a session that is over is not there to be ended again', async () => {
    const login = await logIn('openid');
    await signOut(login);
    expect(await signOutAgain(login)).toMatchObject({ status: 404 });
    expect(told.filter((sid) => sid === login.sid)).toHaveLength(1);
  });
});
