import { createHmac, createSign, KeyObject } from 'node:crypto';
import { Problem } from '@realtime-service/contracts';
import { exportSPKI } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  answerKeys,
  claimsOf,
  createSigningKey,
  issuer,
  now,
  type SigningKey,
  signToken,
} from '../test/identity-provider.ts';
import { at, startTestApi, type TestApi, toldBy } from '../test/test-api.ts';
import type { RefusalReason } from './authenticate.ts';

let api: TestApi;
/** A key of the same provider for encryption, one of another type, and one that is nobody's. */
let elliptic: SigningKey;
let edwards: SigningKey;
let foreign: SigningKey;
let publicPem: string;

beforeAll(async () => {
  api = await startTestApi({ OIDC_AZP: 'web,mobile,batch-job', RATE_LIMIT_USER_PER_MINUTE: '100000' });
  [elliptic, edwards, foreign] = await Promise.all([
    createSigningKey('k-ec', 'ES256'),
    createSigningKey('k-ed', 'EdDSA'),
    createSigningKey('k1'),
  ]);
  const encryption = { ...foreign.jwk, kid: 'k-enc', use: 'enc', alg: 'RSA-OAEP' };
  const broken = { kty: 'EC', crv: 'P-256', kid: 'k-broken', use: 'sig', alg: 'ES256', x: 'AA', y: 'AA' };
  const symmetric = {
    kty: 'oct',
    kid: 'k-oct',
    use: 'sig',
    alg: 'HS256',
    k: 'c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA',
  };
  api.keyServer.answer = answerKeys(encryption, api.key.jwk, elliptic.jwk, edwards.jwk, broken, symmetric);
  publicPem = await exportSPKI(api.key.publicKey);
  api.situations.set(at('room-42'), {});
  api.situations.set(at('room-42', 'caf\u00e9'), {});
});
afterAll(() => api.close());

const join = (authorization: string | undefined, room = 'room-42') =>
  api.app.inject({
    method: 'POST',
    url: `/api/realtime/rooms/${room}/join`,
    headers: authorization === undefined ? {} : { authorization },
  });

const encode = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/**
 * A token put together by hand, so that it may be wrong in any way; signed with the right key unless said otherwise.
 */
const forge = (header: unknown, payload: unknown, signature?: string): string => {
  const input = `${encode(header)}.${encode(payload)}`;
  return `${input}.${signature ?? createSign('sha256').update(input).sign(KeyObject.from(api.key.privateKey), 'base64url')}`;
};

const hmac = (secret: string): string => {
  const input = `${encode({ alg: 'HS256', kid: 'k1', typ: 'JWT' })}.${encode(claimsOf())}`;
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
};

const header = { alg: 'RS256', kid: 'k1', typ: 'JWT' };
const without = (name: string) => {
  const { [name]: _, ...rest } = { ...header } as Record<string, unknown>;
  return rest;
};
const good = () => api.token();
/** The right key, other claims. */
const claims = (changes: Record<string, unknown>) => () => api.token(changes);
/** The right key and claims, another header. */
const headed = (changes: Record<string, unknown>) => () => forge({ ...header, ...changes }, claimsOf());

/** With the parts of the token that the log line names. */
type Told = Exclude<RefusalReason, 'claims' | 'header'> | `${'claims' | 'header'} ${string}`;
type Row = readonly [name: string, told: Told, authorization: () => string | Promise<string | undefined> | undefined];
/** Rows whose value is the token alone. */
const bearer = (rows: readonly (readonly [string, Told, () => string | Promise<string>])[]): Row[] =>
  rows.map(([name, told, token]) => [name, told, async () => `Bearer ${await token()}`]);

const hostile: readonly Row[] = [
  ['no header', 'no_token', () => undefined],
  ['an empty header', 'malformed', () => ''],
  ['a scheme alone', 'malformed', () => 'Bearer'],
  ['a scheme and a blank', 'malformed', () => 'Bearer '],
  ['Basic', 'malformed', () => 'Basic dS03OnBhc3N3b3Jk'],
  ['no scheme', 'malformed', good],
  ['another scheme', 'malformed', async () => `DPoP ${await good()}`],
  ['two blanks', 'malformed', async () => `Bearer  ${await good()}`],
  ['two tokens', 'malformed', async () => `Bearer ${await good()} ${await good()}`],
  ['two tokens by comma', 'malformed', async () => `Bearer ${await good()}, Bearer ${await good()}`],
  ...bearer([
    ['one segment', 'malformed', () => 'eyJhbGciOiJSUzI1NiJ9'],
    ['two segments', 'malformed', async () => (await good()).split('.').slice(0, 2).join('.')],
    ['four segments', 'malformed', async () => `${await good()}.AA`],
    ['five segments', 'malformed', async () => `${await good()}.AA.AA`],
    ['an empty segment', 'malformed', async () => (await good()).replace(/\.[^.]*\./, '..')],
    ['no signature', 'malformed', async () => (await good()).replace(/[^.]*$/, '')],
    ['padding', 'malformed', async () => `${await good()}==`],
    ['base64 that is not for URLs', 'malformed', async () => `${await good()}+/`],
    ['a quoted token', 'malformed', async () => `"${await good()}"`],
    ['JSON serialisation', 'malformed', async () => JSON.stringify({ protected: (await good()).split('.')[0] })],
    ['a header that is no JSON', 'invalid', () => forge('{alg}', claimsOf())],
    ['a header that is an array', 'invalid', () => forge([header], claimsOf())],
    ['a header that is null', 'invalid', () => forge('null', claimsOf())],
    ['a payload that is no JSON', 'invalid', () => forge(header, 'u-7')],
    ['a payload that is an array', 'invalid', () => forge(header, [claimsOf()])],
    ['a payload that is null', 'invalid', () => forge(header, 'null')],

    ['alg none', 'algorithm', headed({ alg: 'none' })],
    ['alg None', 'algorithm', headed({ alg: 'None' })],
    ['alg nOnE without signature', 'algorithm', () => forge({ ...header, alg: 'nOnE' }, claimsOf(), 'AA')],
    ['alg in other case', 'algorithm', headed({ alg: 'rs256' })],
    ['alg that is not on the list', 'algorithm', headed({ alg: 'RS512' })],
    ['HMAC with the public key as secret', 'algorithm', () => hmac(publicPem)],
    ['HMAC with the JWK as secret', 'algorithm', () => hmac(JSON.stringify(api.key.jwk))],
    ['HMAC with an empty secret', 'algorithm', () => hmac('')],
    ['no alg', 'header alg', () => forge(without('alg'), claimsOf())],
    ['alg as a list', 'header alg', headed({ alg: ['RS256'] })],
    ['PS256 with a key for RS256', 'unknown_key', headed({ alg: 'PS256' })],
    ['ES256 with an RSA key', 'unknown_key', headed({ alg: 'ES256' })],
    ['EdDSA with an RSA key', 'unknown_key', headed({ alg: 'EdDSA' })],
    ['RS256 with an elliptic key', 'unknown_key', headed({ kid: 'k-ec' })],
    ['a key for encryption', 'unknown_key', headed({ kid: 'k-enc' })],
    ['a key that cannot be imported', 'unknown_key', headed({ alg: 'ES256', kid: 'k-broken' })],
    ['a symmetric key of the set', 'unknown_key', headed({ kid: 'k-oct' })],

    ['no kid', 'header kid', () => forge(without('kid'), claimsOf())],
    ['an empty kid', 'header kid', headed({ kid: '' })],
    ['a kid that is a number', 'header kid', headed({ kid: 1 })],
    ['a kid that is null', 'header kid', headed({ kid: null })],
    ['a kid of 300 characters', 'header kid', headed({ kid: 'k'.repeat(300) })],
    ['a kid that is a path', 'unknown_key', headed({ kid: '../../dev/null' })],
    ['a kid that is SQL', 'unknown_key', headed({ kid: "k1' or '1'='1" })],
    ['a kid that every object has', 'unknown_key', headed({ kid: 'constructor' })],
    ['a kid in other case', 'unknown_key', headed({ kid: 'K1' })],
    ['its own key as jwk', 'invalid', () => signToken(foreign, {}, { jwk: foreign.jwk })],
    ['its own key set as jku', 'invalid', () => signToken(foreign, {}, { jku: 'https://evil.example.test/jwks' })],
    ['its own certificate as x5u', 'invalid', () => signToken(foreign, {}, { x5u: 'https://evil.example.test/x' })],
    ['its own certificate as x5c', 'invalid', () => signToken(foreign, {}, { x5c: ['MIIB'] })],
    ['crit with exp', 'header crit', headed({ crit: ['exp'] })],
    ['crit with b64', 'header crit', headed({ crit: ['b64'], b64: false })],
    ['an empty crit', 'header crit', headed({ crit: [] })],
    ['crit null', 'header crit', headed({ crit: null })],
    ['no header typ', 'header typ', () => forge(without('typ'), claimsOf())],
    ['header typ of a logout token', 'header typ', headed({ typ: 'logout+jwt' })],
    ['header typ of a DPoP proof', 'header typ', headed({ typ: 'dpop+jwt' })],
    ['header typ that is no text', 'header typ', headed({ typ: ['JWT'] })],

    ["somebody else's key", 'invalid', () => signToken(foreign)],
    [
      'a payload changed after signing',
      'invalid',
      async () => {
        const [head, , signature] = (await good()).split('.');
        return `${head}.${encode(claimsOf({ sub: 'u-8' }))}.${signature}`;
      },
    ],
    [
      'a header changed after signing',
      'invalid',
      async () => {
        const [, payload, signature] = (await good()).split('.');
        return `${encode({ ...header, x: 1 })}.${payload}.${signature}`;
      },
    ],
    ['a signature cut short', 'invalid', async () => (await good()).slice(0, -8)],
    ['a signature of nothing', 'invalid', () => forge(header, claimsOf(), 'AA')],
    [
      'a signature of another token',
      'invalid',
      async () => {
        const [head, payload] = (await api.token({ jti: 'a' })).split('.');
        return `${head}.${payload}.${(await api.token({ jti: 'b' })).split('.')[2]}`;
      },
    ],
    [
      'an elliptic signature of zeros',
      'invalid',
      () => forge({ ...header, alg: 'ES256', kid: 'k-ec' }, claimsOf(), Buffer.alloc(64).toString('base64url')),
    ],
    [
      'an elliptic signature of zeros for EdDSA',
      'invalid',
      () => forge({ ...header, alg: 'EdDSA', kid: 'k-ed' }, claimsOf(), Buffer.alloc(64).toString('base64url')),
    ],

    ['expired beyond the tolerance', 'expired', claims({ exp: now() - 120 })],
    ['exp 0', 'expired', claims({ exp: 0 })],
    ['no exp', 'claims exp', claims({ exp: undefined })],
    ['exp as text', 'claims exp', () => forge(header, { ...claimsOf(), exp: String(now() + 300) })],
    ['exp null', 'claims exp', () => forge(header, { ...claimsOf(), exp: null })],
    [
      'exp without end',
      'claims exp',
      () => forge(header, JSON.stringify(claimsOf()).replace(/"exp":\d+/, '"exp":1e400')),
    ],
    ['exp with a fraction', 'claims exp', claims({ exp: now() + 300.5 })],
    ['nbf in two minutes', 'not_yet_valid', claims({ nbf: now() + 120 })],
    ['nbf as text', 'claims nbf', () => forge(header, { ...claimsOf(), nbf: 'now' })],
    ['iat in two minutes', 'not_yet_valid', claims({ iat: now() + 120 })],
    ['no iat', 'claims iat', claims({ iat: undefined })],
    ['a life of ten years', 'lifetime', claims({ exp: now() + 315_360_000 })],

    ["the provider's internal address as iss", 'issuer', claims({ iss: 'http://keycloak:8080/realms/rt' })],
    ['iss with a slash at the end', 'issuer', claims({ iss: `${issuer}/` })],
    ['iss of another realm', 'issuer', claims({ iss: 'https://id.example.test/realms/other' })],
    ['iss in other case', 'issuer', claims({ iss: issuer.replace('id.', 'ID.') })],
    ['iss with a longer host', 'issuer', claims({ iss: `${issuer}.evil.example.test` })],
    ['iss with a blank', 'issuer', claims({ iss: ` ${issuer}` })],
    ['iss with NUL', 'issuer', claims({ iss: `${issuer}\0` })],
    ['iss as a list', 'issuer', () => forge(header, { ...claimsOf(), iss: [issuer] })],
    ['no iss', 'issuer', claims({ iss: undefined })],

    ['aud account', 'audience', claims({ aud: 'account' })],
    ['aud of others', 'audience', claims({ aud: ['account', 'other-api'] })],
    ['aud in other case', 'audience', claims({ aud: 'REALTIME-SERVICE' })],
    ['aud with a blank', 'audience', claims({ aud: 'realtime-service ' })],
    ['aud as words', 'audience', claims({ aud: 'account realtime-service' })],
    ['no aud, but azp', 'no_audience', claims({ aud: undefined, azp: 'realtime-service' })],
    ['an empty aud', 'no_audience', claims({ aud: [] })],
    ['aud null', 'claims aud', () => forge(header, { ...claimsOf(), aud: null })],
    ['aud nested', 'claims aud', () => forge(header, { ...claimsOf(), aud: [['realtime-service']] })],
    ['aud as an object', 'claims aud', () => forge(header, { ...claimsOf(), aud: { 'realtime-service': true } })],

    ['an ID token', 'token_type', claims({ typ: 'ID' })],
    ['a refresh token', 'token_type', claims({ typ: 'Refresh' })],
    ['an offline token', 'token_type', claims({ typ: 'Offline' })],
    ['a logout token', 'token_type', claims({ typ: 'Logout' })],
    ['typ in other case', 'token_type', claims({ typ: 'bearer' })],
    [
      'a token bound to a certificate',
      'token_type',
      claims({ cnf: { 'x5t#S256': 'bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2' } }),
    ],
    ['a token bound to nobody knows what', 'token_type', claims({ cnf: null })],
    ['no typ', 'claims typ', claims({ typ: undefined })],
    ['typ as a list', 'claims typ', claims({ typ: ['Bearer'] })],

    ['azp of another client', 'authorised_party', claims({ azp: 'evil' })],
    ['no azp', 'authorised_party', claims({ azp: undefined })],
    ['azp as a list', 'claims azp', claims({ azp: ['web'] })],

    ['no sub', 'no_subject', claims({ sub: undefined, preferred_username: 'u-7' })],
    ['an empty sub', 'claims sub', claims({ sub: '' })],
    ['sub null', 'claims sub', () => forge(header, { ...claimsOf(), sub: null })],
    ['sub as a number', 'claims sub', () => forge(header, { ...claimsOf(), sub: 7 })],
    ['sub with NUL', 'claims sub', claims({ sub: 'u-7\0' })],
    [
      'sub with half a character',
      'claims sub',
      () => forge(header, JSON.stringify(claimsOf()).replace('u-7', '\\ud83c')),
    ],
    ['sub of 192 bytes', 'claims sub', claims({ sub: 'u'.repeat(192) })],
    ['sid as a number', 'claims sid', claims({ sid: 7 })],
    ['scope as a list', 'claims scope', claims({ scope: ['realtime:publish'] })],
  ]),
];

describe('401: tokens that do not count', () => {
  test('there are enough of them', () => {
    expect(hostile.length).toBeGreaterThanOrEqual(70);
    expect(new Set(hostile.map(([name]) => name)).size).toBe(hostile.length);
  });

  let usual: object;
  beforeAll(async () => {
    const { trace_id: _, ...body } = (await join(undefined)).json();
    usual = body;
  });

  test.each(hostile)('%s (%s)', async (_name, told, authorization) => {
    api.lines.length = 0;
    const value = await authorization();
    const response = await join(value);

    expect(response.statusCode).toBe(401);
    expect(response.headers['www-authenticate']).toBe('Bearer realm="realtime-service"');
    const { trace_id: traceId, ...body } = Problem.parse(response.json());
    expect(body).toEqual(usual);
    expect(traceId).not.toBe('');
    const refusals = api.lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'request refused');
    expect(refusals).toEqual([expect.objectContaining({ code: 'unauthenticated' })]);
    expect(toldBy(refusals[0])).toBe(told);
    if (value !== undefined && value.length > 20) expect(api.lines.join('')).not.toContain(value.slice(-20));
  });

  test('a verified token is not good for a changed one', async () => {
    const token = await good();
    expect((await join(`Bearer ${token}`)).statusCode).toBe(200);
    expect((await join(`Bearer ${token.slice(0, -4)}AAAA`)).statusCode).toBe(401);
  });
});

describe('tokens that count', () => {
  const accepted: readonly (readonly [string, () => Promise<string>])[] = [
    ['aud as text', claims({ aud: 'realtime-service' })],
    ['aud among others', claims({ aud: ['account', 'realtime-service'] })],
    ['header typ at+jwt', () => api.token({}, { typ: 'at+jwt' })],
    ['header typ in lower case', () => api.token({}, { typ: 'jwt' })],
    ['an elliptic key', () => signToken(elliptic)],
    ['an Edwards key', () => signToken(edwards)],
    ['a clock two seconds ahead', () => api.token({ iat: now() + 2, nbf: now() + 2 })],
    ['expired two seconds ago', () => api.token({ exp: now() - 2 })],
    ['another client', claims({ azp: 'mobile' })],
  ];

  test.each(accepted)('%s', async (_name, token) => {
    expect((await join(`Bearer ${await token()}`)).statusCode).toBe(200);
  });

  test('the scheme in any case', async () => {
    expect((await join(`bEARER ${await good()}`)).statusCode).toBe(200);
  });

  test('a service account is a caller like any other, and no member', async () => {
    const token = await api.token({ sub: '7c0e2c1e-8d5f-4d2b-9d61-0d6d9e4f4c55', azp: 'batch-job' });
    expect((await join(`Bearer ${token}`)).statusCode).toBe(404);
  });

  test('a user id in another normal form is another user', async () => {
    expect((await join(`Bearer ${await api.token({ sub: 'caf\u00e9' })}`)).statusCode).toBe(200);
    expect((await join(`Bearer ${await api.token({ sub: 'cafe\u0301' })}`)).statusCode).toBe(404);
  });
});

describe('tokens with hundreds of roles', () => {
  const roles = (count: number) => ({
    realm_access: { roles: Array.from({ length: count }, (_, n) => `tenant-${String(n).padStart(4, '0')}-editor`) },
  });
  let url: string;
  beforeAll(async () => {
    url = await api.app.listen({ port: 0, host: '127.0.0.1' });
  });
  const joinOverHttp = async (headers: Record<string, string>) =>
    fetch(`${url}/api/realtime/rooms/room-42/join`, { method: 'POST', headers });

  test.each([300, 400])('%i roles enter, and none of them is in the LiveKit token', async (count) => {
    const response = await joinOverHttp({ authorization: `Bearer ${await api.token(roles(count))}` });
    expect(response.status).toBe(200);
    const { participant_token: token } = (await response.json()) as { participant_token: string };
    expect(token.length).toBeLessThan(2_048);
    expect(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()).not.toContain('tenant-');
  });

  test('so do 400 roles beside 6 KiB of cookies', async () => {
    const response = await joinOverHttp({
      authorization: `Bearer ${await api.token(roles(400))}`,
      cookie: `a=${'b'.repeat(6_144)}`,
    });
    expect(response.status).toBe(200);
  });

  test('a token of 16,384 characters is looked at, as the settings say, and no longer one', async () => {
    const statusOf = async (length: number) =>
      (await joinOverHttp({ authorization: `Bearer ${'x'.repeat(length)}` })).status;
    expect([await statusOf(16_384), await statusOf(16_385)]).toEqual([401, 431]);
  });

  test.each([
    ['a token above 16 KiB', async () => ({ authorization: `Bearer ${await api.token(roles(700))}` })],
    ['headers above 32 KiB', async () => ({ cookie: `a=${'b'.repeat(33_000)}` })],
  ])('%s gets 431, and the next request is answered', async (_name, headers) => {
    const refused = await joinOverHttp(await headers());
    expect(refused.status).toBe(431);
    expect(refused.headers.get('connection')).toBe('close');
    expect(Problem.parse(await refused.json()).code).toBe('headers_too_large');
    expect((await joinOverHttp({ authorization: `Bearer ${await good()}` })).status).toBe(200);
  });
});

test('an api that has no keys of the provider says that of itself, and nothing of the token', async () => {
  const keyless = await startTestApi();
  keyless.keyServer.answer = (response) => response.writeHead(503).end();
  const headers = { authorization: `Bearer ${await keyless.token()}` };
  const response = await keyless.app.inject({ method: 'POST', url: '/api/realtime/rooms/room-42/join', headers });
  expect(response.headers['retry-after']).toBe('1');
  expect(Problem.parse(response.json())).toMatchObject({ status: 503, code: 'store_unavailable' });
  expect(keyless.lines.filter((line) => line.includes('"reason":"no_keys"'))).toHaveLength(1);
  await keyless.close();
});
