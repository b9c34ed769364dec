import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose';

export const issuer = 'https://id.example.test/realms/rt';

export interface SigningKey {
  readonly kid: string;
  readonly alg: string;
  readonly publicKey: CryptoKey;
  readonly privateKey: CryptoKey;
  readonly jwk: JWK;
}

export const createSigningKey = async (kid: string, alg = 'RS256'): Promise<SigningKey> => {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  return { kid, alg, publicKey, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' } };
};

/** Seconds since the epoch. */
export const now = (): number => Math.floor(Date.now() / 1000);

/** The claims of an access token of user u-7, as Keycloak writes them; undefined leaves one out. */
export const claimsOf = (changes: Record<string, unknown> = {}): JWTPayload => ({
  iss: issuer,
  aud: ['realtime-service'],
  azp: 'web',
  typ: 'Bearer',
  sub: 'u-7',
  iat: now(),
  exp: now() + 300,
  ...changes,
});

/** A token with any claims and any header. */
export const signToken = (
  key: SigningKey,
  changes: Record<string, unknown> = {},
  header: Record<string, unknown> = {},
): Promise<string> =>
  new SignJWT(claimsOf(changes))
    .setProtectedHeader({ alg: key.alg, kid: key.kid, typ: 'JWT', ...header })
    .sign(key.privateKey);

export interface KeyServer {
  readonly url: string;
  readonly requests: () => number;
  /** What it answers from now on. */
  answer: (response: ServerResponse) => void;
  readonly close: () => Promise<void>;
}

export const answerKeys =
  (...keys: readonly object[]) =>
  (response: ServerResponse): void => {
    response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys }));
  };

/** Serves a key set over HTTP, or whatever else a provider may do. */
export const startKeyServer = async (answer: (response: ServerResponse) => void): Promise<KeyServer> => {
  let requests = 0;
  const server = createServer((_request, response) => {
    requests += 1;
    keyServer.answer(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const keyServer: KeyServer = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/certs`,
    requests: () => requests,
    answer,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return keyServer;
};
