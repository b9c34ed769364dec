import { describe, expect, test } from 'vitest';
import { environment } from '../test/test-api.ts';
import { ApiSettings } from './config.ts';

const read = (changes: Record<string, string | undefined> = {}) =>
  ApiSettings.safeParse({ ...environment, ...changes });

/** The variables that are named as wrong. */
const faulty = (changes: Record<string, string | undefined>): unknown[] => [
  ...new Set((read(changes).error?.issues ?? []).map(({ path }) => path[0])),
];

test('what is not set has a default', () => {
  expect(read().data).toMatchObject({
    host: '127.0.0.1',
    port: 8080,
    opsPort: 8081,
    oidc: {
      jwksUri: 'https://id.example.test/realms/rt/protocol/openid-connect/certs',
      audience: 'realtime-service',
      authorisedParties: undefined,
      algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA'],
    },
    tokenTtlSeconds: 60,
    projectionMaxAgeMs: 10_000,
    maxHeaderBytes: 32_768,
    trustProxy: false,
    makesRooms: true,
    migrates: true,
    log: { kind: 'embedded' },
    database: { url: environment.DATABASE_URL, directUrl: environment.DATABASE_URL },
  });
});

test('every fault is named at once', () => {
  const wrong = {
    DATABASE_URL: 'mysql://x',
    OIDC_ISSUER: undefined,
    LIVEKIT_URL: undefined,
    LIVEKIT_KEYS: 'nonsense',
    KAFKA_BROKERS: 'no-port',
    API_PORT: '99999',
    LOG_LEVEL: 'loud',
  };
  expect(faulty(wrong).sort()).toEqual(Object.keys(wrong).sort());
});

describe('where the database is', () => {
  const messagesOf = (url: string) => read({ DATABASE_URL: url }).error?.issues.map(({ message }) => message);
  test.each([
    'postgres://u:p@a,b/db?target_session_attrs=read-write',
    'postgres://u:p@a:5432,b:5432/db',
    'postgres://a,b',
  ])('%s names several hosts, and the message says so', (url) => {
    expect(messagesOf(url)).toEqual(['must name one host, by which the primary of the day is found']);
  });
  test.each(['postgres://u:p,q@a:5432/db', 'postgres://a/db?options=-c%20search_path=a,b', 'postgresql://a/d,b'])(
    '%s names one',
    (url) => {
      expect(messagesOf(url)).toBeUndefined();
    },
  );
});

test('a key that is wrong is not quoted', () => {
  expect(JSON.stringify(read({ LIVEKIT_KEYS: 'key secret-without-colon' }).error?.issues)).not.toContain(
    'secret-without-colon',
  );
});

describe('the keys of the issuer', () => {
  test('may have an address of their own', () => {
    const uri = 'http://keycloak:8080/realms/rt/protocol/openid-connect/certs';
    expect(read({ OIDC_JWKS_URI: uri }).data?.oidc).toMatchObject({ issuer: environment.OIDC_ISSUER, jwksUri: uri });
  });
  test('do not replace the issuer', () => {
    expect(faulty({ OIDC_ISSUER: undefined, OIDC_JWKS_URI: 'http://keycloak:8080/certs' })).toEqual(['OIDC_ISSUER']);
  });
  test.each(['HS256', 'none', 'RS256,HS512', ''])('cannot be of algorithm "%s"', (OIDC_ALGORITHMS) => {
    expect(faulty({ OIDC_ALGORITHMS })).toEqual(['OIDC_ALGORITHMS']);
  });
});

describe('the life of a token (C33)', () => {
  test.each(['10', '30', '60', '600'])('may be %s s', (TOKEN_TTL_SECONDS) => {
    expect(read({ TOKEN_TTL_SECONDS }).data?.tokenTtlSeconds).toBe(Number(TOKEN_TTL_SECONDS));
  });
  test.each(['0', '-1', '9', '601', '10m', '365d', '31536000', '59.5', 'NaN', ' '])(
    'may not be "%s"',
    (TOKEN_TTL_SECONDS) => {
      expect(faulty({ TOKEN_TTL_SECONDS })).toEqual(['TOKEN_TTL_SECONDS']);
    },
  );
});

describe('where LiveKit is (C34)', () => {
  test.each([
    ['wss://rtc.example.test', 'wss://rtc.example.test', 'https://rtc.example.test'],
    ['wss://rtc.example.test/', 'wss://rtc.example.test', 'https://rtc.example.test'],
    [
      'wss://rtc.example.test/livekit/sfu',
      'wss://rtc.example.test/livekit/sfu',
      'https://rtc.example.test/livekit/sfu',
    ],
    [
      'wss://rtc.example.test/livekit/sfu/',
      'wss://rtc.example.test/livekit/sfu',
      'https://rtc.example.test/livekit/sfu',
    ],
    ['https://rtc.example.test', 'wss://rtc.example.test', 'https://rtc.example.test'],
    ['ws://localhost:7880', 'ws://localhost:7880', 'http://localhost:7880'],
    [' wss://rtc.example.test', 'wss://rtc.example.test', 'https://rtc.example.test'],
  ])('%s', (LIVEKIT_URL, publicUrl, apiUrl) => {
    expect(read({ LIVEKIT_URL }).data?.livekit).toMatchObject({ publicUrl, apiUrl });
  });

  test.each([
    ['http://livekit:7880/', 'http://livekit:7880'],
    ['wss://livekit.example.test', 'https://livekit.example.test'],
  ])('for us at %s', (LIVEKIT_API_URL, apiUrl) => {
    expect(read({ LIVEKIT_API_URL }).data?.livekit).toMatchObject({ publicUrl: 'wss://rtc.example.test', apiUrl });
  });

  test.each([
    'rtc.example.test',
    'ftp://x',
    '',
    'wss://',
    'wss://u:p@rtc.example.test',
    'wss://rtc.example.test/?a=b',
    '/rtc',
  ])('cannot be "%s"', (LIVEKIT_URL) => {
    expect(faulty({ LIVEKIT_URL })).toEqual(['LIVEKIT_URL']);
  });

  test('several keys', () => {
    const LIVEKIT_KEYS = 'first: aaaa\nsecond: bbbb, third:cccc\n';
    expect(read({ LIVEKIT_KEYS }).data?.livekit.keys).toEqual([
      { apiKey: 'first', secret: 'aaaa' },
      { apiKey: 'second', secret: 'bbbb' },
      { apiKey: 'third', secret: 'cccc' },
    ]);
  });
  test.each(['', 'a', 'a:', ':b', 'a: b\na: c'])('no keys in "%s"', (LIVEKIT_KEYS) => {
    expect(faulty({ LIVEKIT_KEYS })).toEqual(['LIVEKIT_KEYS']);
  });
});

describe('what stands before us', () => {
  test.each(['10.0.0.0/8', '10.0.0.0/8, fd00::/8', '127.0.0.1/32'])('proxies of %s', (TRUST_PROXY) => {
    expect(read({ TRUST_PROXY }).success).toBe(true);
  });
  test.each(['true', '*', '10.0.0.1', '10.0.0.0/33', 'fd00::/129', 'loopback', '10.0.0.0/8,'])(
    'no proxies of "%s"',
    (TRUST_PROXY) => {
      expect(faulty({ TRUST_PROXY })).toEqual(['TRUST_PROXY']);
    },
  );
  test.each([
    '*',
    'null',
    'app.example.test',
    'https://app.example.test/',
    'https://app.example.test/x',
    'https://*.example.test',
  ])('no web clients of "%s"', (CORS_ORIGINS) => {
    expect(faulty({ CORS_ORIGINS })).toEqual(['CORS_ORIGINS']);
  });
});

describe('in production', () => {
  const production = { NODE_ENV: 'production', KAFKA_BROKERS: 'kafka:9092' };
  test('the real parts are enough', () => {
    expect(faulty(production)).toEqual([]);
  });
  test.each([
    ['KAFKA_BROKERS', undefined],
    ['OIDC_ISSUER', 'http://127.0.0.1:8180/realms/dev'],
    ['LIVEKIT_KEYS', 'devkey: secret'],
  ])('%s may not be %s', (name, value) => {
    expect(faulty({ ...production, [name]: value })).toEqual([name]);
  });
});
