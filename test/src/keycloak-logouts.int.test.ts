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
const briefId = randomUUID();
const redirectUri = 'http://127.0.0.1:8000/';
const json = (body: unknown): RequestInit => ({ method: 'POST', body: JSON.stringify(body) });

describeWith(['keycloak'], 'Keycloak tells of a logout', ({ keycloak }) => {
  /** Client and `sid` of each logout token that came. */
  const told: string[] = [];
  const listener = createServer(async (request, response) => {
    let form = '';
    for await (const chunk of request) form += chunk;
    const { aud, sid } = decodeJwt(new URLSearchParams(form).get('logout_token') ?? '');
    told.push(`${aud} ${sid}`);
    response.end();
  });
  const toldAt = () => ({
    'backchannel.logout.url': `http://127.0.0.1:${(listener.address() as AddressInfo).port}/`,
    'backchannel.logout.session.required': 'true',
  });
  const endpoint = `${keycloak.url}/realms/${realm}/protocol/openid-connect`;

  const admin = async (path: string, init: RequestInit): Promise<void> => {
    const answer = await keycloakAdmin(keycloak.url, `/realms${path}`, init);
    expect({ path, ok: answer.ok }).toEqual({ path, ok: true });
  };

  beforeAll(async () => {
    await once(listener.listen(0, '127.0.0.1'), 'listening');
    const attributes = toldAt();
    const client = { publicClient: true, directAccessGrantsEnabled: true, redirectUris: [redirectUri], attributes };
    const clients = [
      { ...client, clientId: 'app' },
      { ...client, clientId: 'asking', consentRequired: true },
      { ...client, clientId: 'brief', id: briefId },
    ];
    await admin('', json({ realm, enabled: true, sslRequired: 'none', clients }));
  });
  afterAll(async () => {
    await admin(`/${realm}`, { method: 'DELETE' });
    listener.close();
  });

  const makePerson = async (): Promise<string> => {
    const name = randomUUID();
    const names = { username: name, email: `${name}@example.com`, firstName: 'A', lastName: 'B', emailVerified: true };
    const credentials = [{ type: 'password', value: name }];
    await admin(`/${realm}/users`, json({ ...names, enabled: true, credentials }));
    return name;
  };
  const postForm = (path: string, form: Record<string, string>): Promise<Response> =>
    fetch(`${endpoint}/${path}`, { method: 'POST', body: new URLSearchParams({ client_id: 'app', ...form }) });

  const tokensFor = async (form: Record<string, string>) => {
    const answer = (await (await postForm('token', form)).json()) as Record<string, string>;
    const { access_token = '', refresh_token = '' } = answer;
    const { sub = '', sid } = decodeJwt(access_token);
    return { user: `/${realm}/users/${sub}`, session: `/${realm}/sessions/${sid}`, sid, refreshToken: refresh_token };
  };
  /** A person who has logged in, for offline use or not. */
  const logIn = async (scope: string) => {
    const name = await makePerson();
    return tokensFor({ grant_type: 'password', username: name, password: name, scope });
  };

  /** A person's browser, which logs in at one client after the other: by form, then by its cookies. */
  const openBrowser = async () => {
    const name = await makePerson();
    const cookies = new Map<string, string>();
    const visit = async (url: string, init: RequestInit = {}) => {
      const headers = { cookie: [...cookies].map((pair) => pair.join('=')).join('; ') };
      const response = await fetch(new URL(url, keycloak.url), { ...init, headers, redirect: 'manual' });
      for (const line of response.headers.getSetCookie()) {
        const [, key = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
        cookies.set(key, value);
      }
      return { location: response.headers.get('location'), page: await response.text() };
    };
    return async (client_id: string) => {
      const asked = new URLSearchParams({
        client_id,
        response_type: 'code',
        scope: 'openid',
        redirect_uri: redirectUri,
      });
      let { location, page } = await visit(`${endpoint}/auth?${asked}`);
      for (let step = 0; step < 6 && !location?.startsWith(redirectUri); step += 1) {
        const action = /action="([^"]+)"/.exec(page)?.[1]?.replaceAll('&amp;', '&') ?? '';
        const body = new URLSearchParams({ username: name, password: name, accept: 'Yes' });
        ({ location, page } = await (location === null ? visit(action, { method: 'POST', body }) : visit(location)));
      }
      const code = new URL(location ?? '').searchParams.get('code') ?? '';
      return tokensFor({ grant_type: 'authorization_code', client_id, code, redirect_uri: redirectUri });
    };
  };
  type Login = Awaited<ReturnType<typeof logIn>>;
  type End = (login: Login) => Promise<unknown>;

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
    await until('Keycloak has told', () => Promise.resolve(told.includes(`app ${login.sid}`)));
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
    await until('Keycloak has told', () => Promise.resolve(told.includes(`app ${last.sid}`)));
    expect(told).not.toContain(`app ${login.sid}`);
  });

  test('once: a session that is over is not there to be ended again', async () => {
    const login = await logIn('openid');
    await signOut(login);
    expect(await signOutAgain(login)).toMatchObject({ status: 404 });
    expect(told.filter((each) => each === `app ${login.sid}`)).toHaveLength(1);
  });

  const isRefused = async (client_id: string, refresh_token: string): Promise<boolean> =>
    !(await postForm('token', { grant_type: 'refresh_token', client_id, refresh_token })).ok;

  test('but not to a client whose own session is over before the login is', async () => {
    const enter = await openBrowser();
    const [brief, app] = [await enter('brief'), await enter('app')];
    expect(brief.sid).toBe(app.sid);
    // Only now: logging in may take longer.
    const attributes = { ...toldAt(), 'client.session.max.lifespan': '1' };
    await admin(`/${realm}/clients/${briefId}`, { method: 'PUT', body: JSON.stringify({ attributes }) });
    await until('its session is over', () => isRefused('brief', brief.refreshToken));
    await signOut(app);
    await until('Keycloak has told', () => Promise.resolve(told.includes(`app ${app.sid}`)));
    expect(told).not.toContain(`brief ${app.sid}`);
  });

  test('also when consent is taken back from a client, and the login goes on', async () => {
    const enter = await openBrowser();
    const [asking, app] = [await enter('asking'), await enter('app')];
    await admin(`${asking.user}/consents/asking`, { method: 'DELETE' });
    await until('Keycloak has told', () => Promise.resolve(told.includes(`asking ${app.sid}`)));
    expect(await isRefused('app', app.refreshToken)).toBe(false);
    expect((await enter('asking')).sid).toBe(app.sid);
  });
});
