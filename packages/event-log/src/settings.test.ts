import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LogSettings } from './settings.ts';

const faulty = (env: Record<string, string>): unknown[] =>
  (LogSettings.safeParse(env).error?.issues ?? []).map(({ path }) => path[0]);

test('without brokers the log is in PostgreSQL, but not in production', () => {
  expect(LogSettings.parse({})).toEqual({ log: { kind: 'embedded' } });
  expect(faulty({ NODE_ENV: 'production' })).toEqual(['KAFKA_BROKERS']);
});

test.each([
  ['kafka:9092', ['kafka:9092']],
  ['a:1, b:2,[::1]:9092', ['a:1', 'b:2', '[::1]:9092']],
])('brokers %s', (KAFKA_BROKERS, brokers) => {
  expect(LogSettings.parse({ KAFKA_BROKERS, NODE_ENV: 'production' })).toEqual({
    log: { kind: 'kafka', brokers, tls: false },
  });
});

test.each(['kafka', 'kafka:', ':9092', 'kafka://a:9092', 'a:1,', 'a:1 b:2', 'a:65536', 'a:0'])(
  'no brokers in "%s"',
  (KAFKA_BROKERS) => {
    expect(faulty({ KAFKA_BROKERS })).toEqual(['KAFKA_BROKERS']);
  },
);

describe('TLS', () => {
  const KAFKA_BROKERS = 'kafka:9093';
  const file = fileURLToPath(import.meta.url);
  test.each([
    [{ KAFKA_TLS: 'true' }, true],
    [{ KAFKA_TLS: 'false', KAFKA_TLS_CA_FILE: file }, false],
    [{ KAFKA_TLS_CA_FILE: file }, { ca: expect.stringContaining('KAFKA_TLS_CA_FILE') }],
  ])('%o', (env, tls) => {
    expect(LogSettings.parse({ KAFKA_BROKERS, ...env }).log).toMatchObject({ tls });
  });
  test('needs a file that is there', () => {
    expect(faulty({ KAFKA_BROKERS, KAFKA_TLS_CA_FILE: '/nowhere/ca.pem' })).toEqual(['KAFKA_TLS_CA_FILE']);
  });
});

describe('SASL', () => {
  const KAFKA_BROKERS = 'kafka:9093';
  const account = { KAFKA_SASL_USERNAME: 'api', KAFKA_SASL_PASSWORD: 'secret' };

  test.each(['plain', 'scram-sha-256', 'scram-sha-512'])('%s', (mechanism) => {
    expect(LogSettings.parse({ KAFKA_BROKERS, KAFKA_SASL_MECHANISM: mechanism, ...account }).log).toMatchObject({
      sasl: { mechanism, username: 'api', password: 'secret' },
    });
    expect(faulty({ KAFKA_BROKERS, KAFKA_SASL_MECHANISM: mechanism })).toEqual(Object.keys(account));
  });

  test('an account without a mechanism', () => {
    for (const [name, value] of Object.entries(account))
      expect(faulty({ KAFKA_BROKERS, [name]: value })).toEqual(['KAFKA_SASL_MECHANISM']);
  });

  test('an unknown mechanism', () => {
    expect(faulty({ KAFKA_BROKERS, KAFKA_SASL_MECHANISM: 'gssapi', ...account })).toEqual(['KAFKA_SASL_MECHANISM']);
  });

  describe('oauthbearer', () => {
    let server: Server;
    beforeEach(() => {
      server = createServer();
    });
    afterEach(() => void server.close());

    const askForToken = async (): Promise<{ value: string }> => {
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const KAFKA_SASL_TOKEN_URL = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
      const env = { KAFKA_BROKERS, KAFKA_SASL_MECHANISM: 'oauthbearer', KAFKA_SASL_TOKEN_URL, ...account };
      const { log } = LogSettings.parse(env);
      if (log.kind !== 'kafka' || log.sasl?.mechanism !== 'oauthbearer') throw new Error('no provider');
      return log.sasl.oauthBearerProvider();
    };

    test('gets its tokens with the account', async () => {
      const bodies: string[] = [];
      server.on('request', (request, response) => {
        request.on('data', (chunk) => bodies.push(String(chunk)));
        request.on('end', () => response.end(JSON.stringify({ access_token: 'fresh' })));
      });
      expect(await askForToken()).toEqual({ value: 'fresh' });
      expect(bodies).toEqual(['grant_type=client_credentials&client_id=api&client_secret=secret']);
    });

    test.each([
      ['a refusal', 401, 'token'],
      ['no token', 200, ''],
    ])('takes %s for none', async (_, status, access_token) => {
      server.on('request', (_request, response) => response.writeHead(status).end(JSON.stringify({ access_token })));
      await expect(askForToken()).rejects.toThrow();
    });

    test('gives its account to nobody whom the endpoint names', async () => {
      const paths: (string | undefined)[] = [];
      server.on('request', ({ url }, response) => {
        paths.push(url);
        response.writeHead(307, { location: '/elsewhere' }).end();
      });
      await expect(askForToken()).rejects.toThrow();
      expect(paths).toEqual(['/token']);
    });

    test('needs to know where', () => {
      expect(faulty({ KAFKA_BROKERS, KAFKA_SASL_MECHANISM: 'oauthbearer', ...account })).toEqual([
        'KAFKA_SASL_TOKEN_URL',
      ]);
    });
  });
});
