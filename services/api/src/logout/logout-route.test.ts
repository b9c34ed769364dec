import { createSign, KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Problem, readRoomEvent } from '@realtime-service/contracts';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { answerKeys, createSigningKey, issuer, now, type SigningKey, signToken } from '../../test/identity-provider.ts';
import { livekitToken } from '../../test/livekit-token.ts';
import { at, livekitKey, startTestApi, type TestApi, toldBy } from '../../test/test-api.ts';
import { createReplayGuard } from './verify-logout-token.ts';

const documented = JSON.parse(
  readFileSync(fileURLToPath(import.meta.resolve('@realtime-service/contracts/openapi.json')), 'utf8'),
) as { paths: Record<string, Record<string, { security: object[] }>> };

const event = 'http://schemas.openid.net/event/backchannel-logout';
const path = '/api/realtime/oidc/backchannel-logout';
type Changes = Record<string, unknown>;

let api: TestApi;
let foreign: SigningKey;
let elliptic: SigningKey;
let tokens = 0;

beforeAll(async () => {
  api = await startTestApi({ OIDC_LOGOUT_AUDIENCE: 'web,mobile' });
  [foreign, elliptic] = await Promise.all([createSigningKey('k1'), createSigningKey('k-ec', 'ES256')]);
  api.keyServer.answer = answerKeys(api.key.jwk, elliptic.jwk);
  api.situations.set(at('room-42'), {});
});
beforeEach(() => {
  api.appended.length = 0;
  api.kept.length = 0;
  api.liveLogins.length = 0;
  Object.assign(api.failing, { store: false, log: false });
});
afterAll(() => api.close());

/** As Keycloak writes them; undefined leaves a claim out. */
const claimsOf = (changes: Changes = {}): Changes => {
  tokens += 1;
  const base = { iss: issuer, aud: 'web', typ: 'Logout', sub: 'u-7', sid: 's-1', jti: `jti-${tokens}` };
  return { ...base, azp: undefined, iat: now(), exp: now() + 120, events: { [event]: {} }, ...changes };
};
const logoutToken = (changes: Changes = {}, header: Changes = {}, key = api.key): Promise<string> =>
  signToken(key, claimsOf(changes), { typ: 'logout+jwt', ...header });

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
/** Signed with the right key, whatever it says. */
const forge = (header: unknown, payload: unknown): string => {
  const input = `${encode(header)}.${encode(payload)}`;
  return `${input}.${createSign('sha256').update(input).sign(KeyObject.from(api.key.privateKey), 'base64url')}`;
};
const header = { alg: 'RS256', kid: 'k1', typ: 'logout+jwt' };

const form = 'application/x-www-form-urlencoded';
const post = (payload: string, contentType = form) =>
  api.app.inject({ method: 'POST', url: path, headers: { 'content-type': contentType }, payload });
const send = (token: string) => post(new URLSearchParams({ logout_token: token }).toString());

/** What the log would make of the records that were appended. */
const eventsIn = (records: TestApi['appended'] | TestApi['kept']) =>
  records.map(({ key, value, headers }) => {
    const context = {
      specversion: '1.0' as const,
      id: String(headers['ce_id']),
      source: String(headers['ce_source']),
      type: String(headers['ce_type']),
      subject: String(headers['ce_subject']),
    };
    const reading = readRoomEvent({ context, data: JSON.parse(String(value)) });
    return { key, reading };
  });
const ended = (userId: string, sid: string) => ({
  key: userId,
  reading: { kind: 'event', event: { type: 'login.ended', subject: userId, data: { userId, sid } } },
});

describe('200: the login is ended', () => {
  test.each<[string, Changes, Changes]>([
    ['as the specification writes it', { typ: undefined }, {}],
    ['as Keycloak writes it', {}, { typ: 'JWT' }],
    ['without a type in its header', {}, { typ: undefined }],
    ['for several clients', { aud: ['other', 'mobile'] }, {}],
    ['signed a moment ahead of our clock', { iat: now() + 3 }, {}],
    ['that was under way for four minutes', { iat: now() - 240 }, {}],
    ['with claims that nobody knows', { tenant: 't', 'x:y': { z: 1 } }, {}],
    ['with a second event', { events: { [event]: {}, other: {} } }, {}],
    ['with an event that says more', { events: { [event]: { reason: 'admin' } } }, {}],
  ])('by a token %s', async (_, claims, more) => {
    const answer = await send(await logoutToken(claims, more));
    expect([answer.statusCode, answer.body, answer.headers['cache-control']]).toEqual([200, '', 'no-store']);
    expect(eventsIn(api.appended)).toEqual([ended('u-7', 's-1')]);
  });

  test('by a token of another algorithm that counts', async () => {
    expect((await send(await logoutToken({}, {}, elliptic))).statusCode).toBe(200);
  });

  test('whatever else the form says', async () => {
    expect((await post(`a=b&logout_token=${await logoutToken()}&a=c`, `${form}; charset=UTF-8`)).statusCode).toBe(200);
  });

  test('all that are inside a call, where the token names the person alone', async () => {
    api.liveLogins.push(
      { userId: 'u-7', loginId: 's-1' },
      { userId: 'u-7', loginId: 's-2' },
      { userId: 'u-8', loginId: 's-3' },
    );
    expect((await send(await logoutToken({ sid: undefined }))).statusCode).toBe(200);
    expect(eventsIn(api.appended)).toEqual([ended('u-7', 's-1'), ended('u-7', 's-2')]);
    expect(new Set(api.appended.map(({ headers }) => headers['ce_id'])).size).toBe(2);
  });

  test("that login's, where the token names it alone", async () => {
    api.liveLogins.push({ userId: 'u-7', loginId: 's-1' }, { userId: 'u-8', loginId: 's-3' });
    expect((await send(await logoutToken({ sub: undefined, sid: 's-3' }))).statusCode).toBe(200);
    expect(eventsIn(api.appended)).toEqual([ended('u-8', 's-3')]);
  });

  test("that login's, also a call that was joined by it after the token was signed", async () => {
    const iat = now() - 5;
    api.liveLogins.push({ userId: 'u-8', loginId: 's-3', joinedAtMs: iat * 1000 + 3_000 });
    expect((await send(await logoutToken({ sub: undefined, sid: 's-3', iat }))).statusCode).toBe(200);
    expect(eventsIn(api.appended)).toEqual([ended('u-8', 's-3')]);
  });

  test('also who joined within the second that the token names, and nobody who came after it', async () => {
    const iat = now() - 5;
    api.liveLogins.push(
      { userId: 'u-7', loginId: 's-1', joinedAtMs: iat * 1000 + 999 },
      { userId: 'u-7', loginId: 's-2', joinedAtMs: iat * 1000 + 1000 },
    );
    expect((await send(await logoutToken({ sid: undefined, iat }))).statusCode).toBe(200);
    expect(eventsIn(api.appended)).toEqual([ended('u-7', 's-1')]);
  });

  test("that login's, also a call by a `sub` that the provider's logout tokens do not know", async () => {
    api.liveLogins.push(
      { userId: 'u-7', loginId: 's-1' },
      { userId: 'ann', loginId: 's-1' },
      { userId: 'ann', loginId: 's-2' },
    );
    expect((await send(await logoutToken())).statusCode).toBe(200);
    expect(eventsIn(api.appended)).toEqual([ended('u-7', 's-1'), ended('ann', 's-1')]);
    expect(new Set(api.appended.map(({ headers }) => headers['ce_id'])).size).toBe(2);
  });

  test('that login, though the database cannot tell who is inside by it', async () => {
    api.failing.store = true;
    expect((await send(await logoutToken())).statusCode).toBe(200);
    expect(eventsIn(api.appended)).toEqual([ended('u-7', 's-1')]);
  });

  test('nothing, where nobody is inside', async () => {
    expect((await send(await logoutToken({ sid: undefined }))).statusCode).toBe(200);
    expect(api.appended).toEqual([]);
  });
});

describe('503', () => {
  test('the log is away: the logout is kept, and the same token may come again', async () => {
    api.failing.log = true;
    const token = await logoutToken();
    const answer = await send(token);
    expect([answer.statusCode, answer.json<Problem>().code]).toEqual([503, 'store_unavailable']);
    expect(eventsIn(api.kept)).toEqual([ended('u-7', 's-1')]);
    api.failing.log = false;
    expect((await send(token)).statusCode).toBe(200);
    // The same fact, so that the second changes nothing.
    expect(api.appended[0]?.headers['ce_id']).toBe(api.kept[0]?.headers['ce_id']);
  });

  test.each<[string, { log: boolean; store: boolean }, Changes]>([
    ['the database is away, too: nothing is kept', { log: true, store: true }, {}],
    ['who is inside cannot be read, so nobody knows what to keep', { log: false, store: true }, { sid: undefined }],
  ])('%s, and log and metric say so', async (_, failing, changes) => {
    Object.assign(api.failing, failing);
    const lost = async () =>
      /kept_records_total\{outcome="lost"\} (\d+)/.exec(await api.metrics.registry.metrics())?.[1];
    const [before, lines] = [Number(await lost()), api.lines.length];
    expect((await send(await logoutToken(changes))).statusCode).toBe(503);
    expect(Number(await lost())).toBe(before + 1);
    expect(api.lines.slice(lines).some((line) => line.includes('could not be kept'))).toBe(true);
    expect([...api.appended, ...api.kept]).toEqual([]);
  });

  test.each([
    ['an unknown key', { kid: 'k9' }],
    ['an algorithm of another key', { alg: 'ES256' }],
  ])('%s, while the issuer is not to be asked again', async (_, changes) => {
    expect((await send(await logoutToken())).statusCode).toBe(200);
    api.appended.length = 0;
    const before = api.keyServer.requests();
    const answer = await send(forge({ ...header, ...changes }, claimsOf()));
    expect([answer.statusCode, answer.json<Problem>().code]).toEqual([503, 'store_unavailable']);
    expect(Number(answer.headers['retry-after'])).toBeLessThanOrEqual(30);
    expect(JSON.parse(api.lines.at(-1) ?? '')).toMatchObject({ reason: 'key_not_known_yet' });
    expect([...api.appended, ...api.kept]).toEqual([]);
    expect(api.keyServer.requests()).toBe(before);
  });
});

describe('400: what is no logout token, or none of ours', () => {
  const rows: readonly (readonly [name: string, told: string, token: () => string | Promise<string>])[] = [
    ['nothing', 'invalid', () => ''],
    ['no token', 'invalid', () => 'x'],
    ['two segments', 'invalid', async () => (await logoutToken()).split('.').slice(0, 2).join('.')],
    ['four segments', 'invalid', async () => `${await logoutToken()}.AA`],
    ['an encrypted token', 'invalid', async () => `${await logoutToken()}.AA.AA`],
    ['a blank before it', 'invalid', async () => ` ${await logoutToken()}`],
    ['a payload that is no object', 'invalid', () => forge(header, 'u-7')],
    ['a payload that is a list', 'invalid', () => forge(header, [claimsOf()])],

    ['alg none', 'algorithm', () => forge({ ...header, alg: 'none' }, claimsOf())],
    ['alg HS256', 'algorithm', () => forge({ ...header, alg: 'HS256' }, claimsOf())],
    ['an algorithm that does not count', 'algorithm', () => forge({ ...header, alg: 'RS512' }, claimsOf())],
    ['no key id', 'header kid', () => forge({ ...header, kid: undefined }, claimsOf())],
    ['a foreign signature', 'invalid', () => logoutToken({}, {}, foreign)],
    ['a changed claim', 'invalid', async () => (await logoutToken()).replace(/\.[^.]*/, `.${encode(claimsOf())}`)],
    ['a critical extension', 'invalid', () => forge({ ...header, crit: ['x'], x: 1 }, claimsOf())],
    ['type at+jwt', 'header typ', () => logoutToken({}, { typ: 'at+jwt' })],
    ['type secevent+jwt', 'header typ', () => logoutToken({}, { typ: 'secevent+jwt' })],
    ['a type that is no text', 'header typ', () => forge({ ...header, typ: 7 }, claimsOf())],

    ['another issuer', 'issuer', () => logoutToken({ iss: 'https://evil.example.test/realms/rt' })],
    ['the issuer with a slash', 'issuer', () => logoutToken({ iss: `${issuer}/` })],
    ['no issuer', 'issuer', () => logoutToken({ iss: undefined })],
    ['another client', 'audience aud', () => logoutToken({ aud: 'billing' })],
    ['the audience of access tokens', 'audience aud', () => logoutToken({ aud: 'realtime-service' })],
    ['a client of almost the same name', 'audience aud', () => logoutToken({ aud: 'web ' })],
    ['no client', 'audience aud', () => logoutToken({ aud: undefined })],
    ['no clients', 'audience aud', () => logoutToken({ aud: [] })],

    ['expired', 'expired', () => logoutToken({ iat: now() - 100, exp: now() - 10 })],
    ['no expiry', 'claims exp', () => logoutToken({ exp: undefined })],
    ['an expiry that is text', 'claims exp', () => logoutToken({ exp: `${now() + 100}` })],
    ['no time', 'claims iat', () => logoutToken({ iat: undefined })],
    ['from the future', 'not_yet_valid iat', () => logoutToken({ iat: now() + 60 })],
    ['not yet valid', 'not_yet_valid nbf', () => logoutToken({ nbf: now() + 60 })],
    ['kept for an hour', 'expired', () => logoutToken({ iat: now() - 3_600, exp: now() + 3_600 })],

    ['no id', 'claims jti', () => logoutToken({ jti: undefined })],
    ['an empty id', 'claims jti', () => logoutToken({ jti: '' })],
    ['an endless id', 'claims jti', () => logoutToken({ jti: 'j'.repeat(129) })],
    ['no events', 'no_event', () => logoutToken({ events: undefined })],
    ['events that are null', 'no_event', () => logoutToken({ events: null })],
    ['events that are a list', 'no_event', () => logoutToken({ events: [event] })],
    ['another event', 'no_event', () => logoutToken({ events: { 'https://example.test/logout': {} } })],
    ['an event in other case', 'no_event', () => logoutToken({ events: { [event.toUpperCase()]: {} } })],
    ['an event that is no object', 'no_event', () => logoutToken({ events: { [event]: true } })],
    ['an event that is a list', 'no_event', () => logoutToken({ events: { [event]: [] } })],
    ['a nonce', 'claims nonce', () => logoutToken({ nonce: 'n' })],
    ['a nonce that is null', 'claims nonce', () => logoutToken({ nonce: null })],
    ['nobody', 'claims sub', () => logoutToken({ sub: undefined, sid: undefined })],
    ['an empty person', 'claims sub', () => logoutToken({ sub: '' })],
    ['an empty login', 'claims sid', () => logoutToken({ sid: '' })],
    ['a login that is no text', 'claims sid', () => logoutToken({ sid: 7 })],
    ['a person with a NUL', 'claims sub', () => logoutToken({ sub: 'u\0' })],
    ['a person too long', 'claims sub', () => logoutToken({ sub: 'u'.repeat(192) })],

    ['an access token', 'no_event', () => api.token({ aud: ['web', 'realtime-service'] })],
    ['an access token with the event', 'claims typ', () => logoutToken({ typ: 'Bearer' })],
    ['an ID token', 'no_event', () => api.token({ typ: 'ID', aud: 'web', nonce: 'n' })],
    ['an ID token with the event', 'claims typ', () => logoutToken({ typ: 'ID' })],
    ['a refresh token', 'no_event', () => api.token({ typ: 'Refresh', aud: 'web' })],
    ['an offline token', 'no_event', () => api.token({ typ: 'Offline', aud: 'web' })],
    ["LiveKit's token", 'issuer', async () => livekitToken(livekitKey)],
  ];

  test.each(rows)('%s', async (_, told, tokenOf) => {
    const answer = await send(await tokenOf());
    expect([answer.statusCode, answer.json<Problem>().code]).toEqual([400, 'invalid_logout_token']);
    expect(answer.headers['cache-control']).toBe('no-store');
    const line = JSON.parse(api.lines.at(-1) ?? '');
    expect(line).toMatchObject({ operation: 'backchannel_logout' });
    expect(toldBy(line)).toBe(told);
    expect([...api.appended, ...api.kept]).toEqual([]);
  });

  test('a token that has done its work', async () => {
    const token = await logoutToken();
    expect((await send(token)).statusCode).toBe(200);
    expect((await send(token)).statusCode).toBe(400);
    expect(api.appended).toHaveLength(1);
  });

  test('two tokens, though both are good', async () => {
    expect((await post(`logout_token=${await logoutToken()}&logout_token=${await logoutToken()}`)).statusCode).toBe(
      400,
    );
  });

  test.each(['', 'token=x', 'LOGOUT_TOKEN=x'])('the form "%s"', async (body) => {
    expect((await post(body)).statusCode).toBe(400);
  });

  test.each([
    ['an unknown key', { kid: 'k9' }],
    ['an algorithm of another key', { alg: 'ES256' }],
  ])('%s, where the issuer was asked for it', async (_, changes) => {
    const fresh = await startTestApi({ OIDC_LOGOUT_AUDIENCE: 'web' });
    try {
      const payload = `logout_token=${forge({ ...header, ...changes }, claimsOf())}`;
      const headers = { 'content-type': form };
      const answer = await fresh.app.inject({ method: 'POST', url: path, headers, payload });
      expect([answer.statusCode, answer.json<Problem>().code]).toEqual([400, 'invalid_logout_token']);
      expect(JSON.parse(fresh.lines.at(-1) ?? '')).toMatchObject({ reason: 'unknown_key' });
    } finally {
      await fresh.close();
    }
  });

  test('no stranger makes us fetch keys', async () => {
    const before = api.keyServer.requests();
    await send(forge({ ...header, kid: 'strange' }, claimsOf({ iss: 'https://evil.example.test' })));
    expect(api.keyServer.requests()).toBe(before);
  });
});

describe('429', () => {
  const startStrict = async () => {
    const strict = await startTestApi({ OIDC_LOGOUT_AUDIENCE: 'web', RATE_LIMIT_ADDRESS_PER_MINUTE: '2' });
    const tell = async (token: string | Promise<string>, remoteAddress: string) => {
      const payload = new URLSearchParams({ logout_token: await token }).toString();
      const headers = { 'content-type': form };
      return strict.app.inject({ method: 'POST', url: path, headers, payload, remoteAddress });
    };
    return { strict, tell };
  };

  test.each<[string, (key: SigningKey) => Promise<string>]>([
    ['signatures that are wrong', () => logoutToken({}, {}, foreign)],
    ["a caller's own access token", (key) => signToken(key, { aud: ['web', 'realtime-service'] })],
    ["a caller's own ID token", (key) => signToken(key, { typ: 'ID', aud: 'web', nonce: 'n' })],
  ])('an address that shows again and again %s', async (_, tokenOf) => {
    const { strict, tell } = await startStrict();
    try {
      const statuses: number[] = [];
      for (let n = 0; n < 5; n += 1) statuses.push((await tell(tokenOf(strict.key), '2001:db8::1')).statusCode);
      expect(statuses).toEqual([400, 400, 400, 429, 429]);
      const neighbours = await tell(logoutToken({}, {}, strict.key), '2001:db8::2');
      expect(neighbours.json<Problem>().code).toBe('rate_limited');
      expect(Number(neighbours.headers['retry-after'])).toBeGreaterThan(0);
      expect((await tell(logoutToken({}, {}, strict.key), '192.0.2.1')).statusCode).toBe(200);
    } finally {
      await strict.close();
    }
  });

  test.each<[string, (key: SigningKey) => string | Promise<string>]>([
    ['another client', (key) => logoutToken({ aud: 'billing' }, {}, key)],
    ['another issuer', (key) => logoutToken({ iss: 'https://evil.example.test' }, {}, key)],
    ['a login long over', (key) => logoutToken({ iat: now() - 3_600 }, {}, key)],
    ['nobody', (key) => logoutToken({ sub: undefined, sid: undefined }, {}, key)],
    ['a header of another kind', (key) => logoutToken({}, { typ: 'at+jwt' }, key)],
    ['no token', () => 'x'],
  ])('never the provider, though its tokens are refused: %s', async (_, tokenOf) => {
    const { strict, tell } = await startStrict();
    try {
      for (let n = 0; n < 3; n += 1) expect((await tell(tokenOf(strict.key), '192.0.2.1')).statusCode).toBe(400);
      const token = await logoutToken({}, {}, strict.key);
      for (const status of [200, 400, 400, 400])
        expect([status, (await tell(token, '192.0.2.1')).statusCode]).toEqual([status, status]);
      expect((await tell(logoutToken({}, {}, strict.key), '192.0.2.1')).statusCode).toBe(200);
    } finally {
      await strict.close();
    }
  });

  test('never the provider, where we do not know its key yet', async () => {
    const { strict, tell } = await startStrict();
    try {
      for (const status of [400, 503, 503, 503])
        expect((await tell(logoutToken({}, { kid: 'k9' }, strict.key), '192.0.2.1')).statusCode).toBe(status);
      expect((await tell(logoutToken({}, {}, strict.key), '192.0.2.1')).statusCode).toBe(200);
    } finally {
      await strict.close();
    }
  });

  test("never the provider: what counts is not counted, nor what fails for others' troubles", async () => {
    const { strict, tell } = await startStrict();
    try {
      for (let n = 0; n < 5; n += 1)
        expect((await tell(logoutToken({}, {}, strict.key), '192.0.2.1')).statusCode).toBe(200);
      Object.assign(strict.failing, { log: true });
      for (let n = 0; n < 5; n += 1)
        expect((await tell(logoutToken({}, {}, strict.key), '192.0.2.1')).statusCode).toBe(503);
      // Nor do other requests from there stand in the way of a logout.
      Object.assign(strict.failing, { log: false });
      for (let n = 0; n < 5; n += 1) await strict.app.inject({ url: '/nowhere', remoteAddress: '192.0.2.1' });
      expect((await tell(logoutToken({}, {}, strict.key), '192.0.2.1')).statusCode).toBe(200);
    } finally {
      await strict.close();
    }
  });
});

test('each answer closes its connection: none is kept by a provider, to be closed by us as it tells the next', async () => {
  const answers = [await send(await logoutToken()), await send(await logoutToken({ aud: 'billing' }))];
  api.failing.log = true;
  answers.push(await send(await logoutToken()), await api.app.inject({ url: path }));
  expect(answers.map(({ statusCode, headers }) => [statusCode, headers.connection])).toEqual(
    [200, 400, 503, 405].map((status) => [status, 'close']),
  );
});

test('tokens that have done their work are remembered for as long as they count, and no longer', () => {
  let nowMs = 0;
  const done = createReplayGuard(() => nowMs);
  done.add('first');
  // The greatest age, and twice the difference of clocks that is tolerated.
  nowMs = 310_000;
  done.add('second');
  expect(done.has('first')).toBe(true);
  nowMs += 1;
  done.add('third');
  expect(['first', 'second', 'third'].map(done.has)).toEqual([false, true, true]);
});

test('of 100,000 tokens that are remembered the oldest goes', () => {
  const done = createReplayGuard(() => 0);
  for (let n = 0; n <= 100_000; n += 1) done.add(`jti-${n}`);
  expect(['jti-0', 'jti-1'].map(done.has)).toEqual([false, true]);
});

test('without a client whose logouts count, none does', async () => {
  const unset = await startTestApi();
  try {
    const token = await signToken(unset.key, claimsOf(), { typ: 'logout+jwt' });
    const answer = await unset.app.inject({
      method: 'POST',
      url: path,
      headers: { 'content-type': form },
      payload: `logout_token=${token}`,
    });
    expect(answer.statusCode).toBe(400);
  } finally {
    await unset.close();
  }
});

describe('requests that are not forms', () => {
  test('JSON: 415', async () => {
    const answer = await post(JSON.stringify({ logout_token: await logoutToken() }), 'application/json');
    expect(answer.statusCode).toBe(415);
  });

  test('larger than 16 KiB: 413', async () => {
    expect((await post(`logout_token=${'x'.repeat(16_400)}`)).statusCode).toBe(413);
  });

  test('GET: 405', async () => {
    expect((await api.app.inject({ url: path })).statusCode).toBe(405);
  });
});

describe('a token of another kind opens no route', () => {
  const kinds: readonly (readonly [name: string, token: (aud: string) => string | Promise<string>])[] = [
    ['logout token', (aud) => logoutToken({ aud, azp: 'web', scope: 'realtime:publish' })],
    ['logout token of type JWT', (aud) => logoutToken({ aud, azp: 'web', scope: 'realtime:publish' }, { typ: 'JWT' })],
    ['ID token', (aud) => api.token({ typ: 'ID', aud, nonce: 'n' })],
    ['refresh token', (aud) => api.token({ typ: 'Refresh', aud })],
    ['offline token', (aud) => api.token({ typ: 'Offline', aud })],
  ];
  const livekits = ["LiveKit's token", () => livekitToken(livekitKey)] as const;
  const access = ['access token', (aud: string) => api.token({ aud })] as const;
  const ofCallers = Object.entries(documented.paths).flatMap(([template, methods]) =>
    Object.entries(methods)
      .filter(([, { security }]) => security.some((each) => 'user' in each || 'service' in each))
      .map(([method]) => [method, template] as const),
  );

  test.each(ofCallers)('%s %s', async (method, template) => {
    const url = template.replaceAll(/\{\w+\}/g, 'room-42');
    for (const [name, tokenOf] of [...kinds, livekits])
      for (const aud of ['web', 'realtime-service']) {
        const headers = { authorization: `Bearer ${await tokenOf(aud)}` };
        const answer = await api.app.inject({ method: method.toUpperCase() as 'GET', url, headers });
        expect({ name, aud, status: answer.statusCode }).toEqual({ name, aud, status: 401 });
      }
  });

  test('get /api/realtime/gate', async () => {
    for (const [name, tokenOf] of [...kinds, access]) {
      const headers = { 'x-original-uri': '/rtc', authorization: `Bearer ${await tokenOf('realtime-service')}` };
      const answer = await api.app.inject({ url: '/api/realtime/gate', headers });
      expect({ name, status: answer.statusCode }).toEqual({ name, status: 401 });
    }
  });
});
