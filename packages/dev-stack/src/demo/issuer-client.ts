import { z } from 'zod';

const Discovery = z.object({ token_endpoint: z.url(), jwks_uri: z.url() });
const TokenAnswer = z.object({ access_token: z.string().min(1) });

export interface IssuerClient {
  /** What its tokens name as `iss`. */
  readonly url: string;
  readonly tokenUrl: string;
  readonly jwksUrl: string;
  /** A person's access token, by the public client `web`. */
  signIn(name: string): Promise<string>;
  /** A service's access token, by the client `domain`. */
  domainToken(): Promise<string>;
}

const timeoutMs = 5_000;

/** Finds its way by OpenID Connect discovery, so that the dev issuer and a Keycloak are the same here. */
export async function connectIssuer(issuer: string): Promise<IssuerClient> {
  const answer = await fetch(`${issuer}/.well-known/openid-configuration`, { signal: AbortSignal.timeout(timeoutMs) });
  if (!answer.ok) throw new Error(`${issuer} answered its discovery document with ${answer.status}`);
  const { token_endpoint: tokenUrl, jwks_uri: jwksUrl } = Discovery.parse(await answer.json());

  const askToken = async (form: Record<string, string>): Promise<string> => {
    const response = await fetch(tokenUrl, {
      method: 'POST',
      body: new URLSearchParams(form),
      signal: AbortSignal.timeout(timeoutMs),
    });
    if (!response.ok)
      throw new Error(`${tokenUrl} answered ${form['username'] ?? form['client_id']} with ${response.status}`);
    return TokenAnswer.parse(await response.json()).access_token;
  };

  return {
    url: issuer,
    tokenUrl,
    jwksUrl,
    signIn: (name) => askToken({ grant_type: 'password', client_id: 'web', username: name, password: name }),
    domainToken: () =>
      askToken({ grant_type: 'client_credentials', client_id: 'domain', client_secret: 'domain-secret' }),
  };
}
