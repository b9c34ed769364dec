import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';

/** An issuer that hands out tokens for any number of callers, shaped and sized as Keycloak's are. */
export interface BenchIssuer {
  readonly issuer: string;
  readonly jwksUri: string;
  readonly tokenOf: (userId: string) => Promise<string>;
  readonly close: () => void;
}

export const startBenchIssuer = async (): Promise<BenchIssuer> => {
  const { publicKey, privateKey } = await generateKeyPair('RS256');
  const kid = randomUUID();
  const keys = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid, use: 'sig', alg: 'RS256' }] });
  const server = createServer((_request, response) => response.setHeader('content-type', 'application/json').end(keys));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}/realms/bench`;

  return {
    issuer,
    jwksUri: `${issuer}/protocol/openid-connect/certs`,
    tokenOf: (userId) =>
      new SignJWT({
        typ: 'Bearer',
        azp: 'web',
        sid: randomUUID(),
        acr: '1',
        'allowed-origins': ['https://app.example.org'],
        realm_access: { roles: ['default-roles-bench', 'offline_access', 'uma_authorization'] },
        resource_access: { account: { roles: ['manage-account', 'manage-account-links', 'view-profile'] } },
        scope: 'openid profile',
        preferred_username: userId,
        given_name: 'Some',
        family_name: 'Body',
      })
        .setProtectedHeader({ alg: 'RS256', typ: 'JWT', kid })
        .setIssuer(issuer)
        .setAudience(['realtime-service', 'account'])
        .setSubject(userId)
        .setJti(randomUUID())
        .setIssuedAt()
        .setExpirationTime('8h')
        .sign(privateKey),
    close: () => server.close(),
  };
};
