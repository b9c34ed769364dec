import { fileURLToPath } from 'node:url';
import { type Keycloak, keycloakToken, startIssuer, startKeycloak } from '@realtime-service/dev-stack';

/** How a test's tokens are made: a real Keycloak, or the dev issuer. Both have the realm of `deploy/keycloak`. */
export interface Identity {
  readonly issuer: string;
  /** An access token: of a user, or of the client `domain`; used again for a minute, as clients do. */
  readonly token: (user: string) => Promise<string>;
  readonly newToken: (user: string) => Promise<string>;
  /** The user's `sub`: what domain services call the user. */
  readonly subjectOf: (user: string) => string;
  readonly stop: () => Promise<void>;
}

const realmFile = fileURLToPath(import.meta.resolve('../../deploy/keycloak/realm-dev.json'));
const tokenReuseMs = 60_000;
const people = ['ann', 'bob', 'cleo', 'dan'];

const claimsOf = (token: string): { sub: string } =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());

const identityAt = async (issuer: string, stop: () => Promise<void>): Promise<Identity> => {
  const newToken = (user: string): Promise<string> =>
    user === 'domain'
      ? keycloakToken(issuer, { clientId: 'domain', clientSecret: 'domain-secret' })
      : keycloakToken(issuer, { clientId: 'web', username: user, password: user });
  const known = new Map<string, { readonly token: Promise<string>; readonly untilMs: number }>();
  const token = (user: string): Promise<string> => {
    const held = known.get(user);
    if (held !== undefined && held.untilMs > performance.now()) return held.token;
    const entry = { token: newToken(user), untilMs: performance.now() + tokenReuseMs };
    known.set(user, entry);
    return entry.token;
  };
  const subjects = new Map(
    await Promise.all(people.map(async (user) => [user, claimsOf(await token(user)).sub] as const)),
  );
  return {
    issuer,
    token,
    newToken,
    subjectOf: (user) => {
      const subject = subjects.get(user);
      if (subject === undefined) throw new Error(`there is no user ${user}`);
      return subject;
    },
    stop,
  };
};

export const startDevIdentity = async (): Promise<Identity> => {
  const { issuer, stop } = await startIssuer({});
  return identityAt(issuer, stop);
};

/** A Keycloak that runs already, and goes on when the test ends. */
export const keycloakIdentity = ({ issuer }: Pick<Keycloak, 'issuer'>): Promise<Identity> =>
  identityAt(issuer, async () => {});

export const startKeycloakIdentity = async (): Promise<Identity & { readonly keycloak: Keycloak }> => {
  const keycloak = await startKeycloak({ realmFile });
  return { ...(await identityAt(keycloak.issuer, keycloak.stop)), keycloak };
};
