import { createHs256Signer, type LivekitKey } from '@realtime-service/livekit';
import { type Permissions, toVideoGrant } from '@realtime-service/room-model';

/** What a LiveKit token says besides the rights. */
export interface TokenSubject {
  readonly room: string;
  readonly identity: string;
  readonly name: string;
  readonly metadata: string | undefined;
  readonly attributes: Readonly<Record<string, string>>;
  readonly permissions: Permissions;
}

export interface SignedToken {
  readonly token: string;
  /** RFC 3339. */
  readonly expiresAt: string;
}

export type SignToken = (subject: TokenSubject, nowMs: number) => SignedToken;

/** Default buffers of proxies hold 4 KB, and a browser sends the token in the URL. */
export const maxLivekitTokenLength = 4_095;

/**
 * Signs LiveKit access tokens (livekit/protocol auth/accesstoken.go). The grant of a role is serialised once;
 * a token then costs one HMAC, a tenth of the SDK's price. `sign-token.test.ts` holds it to the SDK, claim by claim.
 */
export const createTokenSigner = (key: LivekitKey, ttlSeconds: number): SignToken => {
  const signPayload = createHs256Signer(key.secret);
  const issuer = JSON.stringify(key.apiKey);
  const grants = new WeakMap<Permissions, string>();

  /** The grant without its room. Members without overrides or bans share their role's permissions, so it is known. */
  const grantOf = (permissions: Permissions): string => {
    const known = grants.get(permissions);
    if (known !== undefined) return known;
    const { room: _, ...grant } = toVideoGrant('', permissions);
    const text = JSON.stringify(grant).slice(1);
    grants.set(permissions, text);
    return text;
  };

  const dateOf = createDateText();

  return ({ room, identity, name, metadata, attributes, permissions }, nowMs) => {
    const issuedAt = Math.floor(nowMs / 1000);
    const expiresAt = issuedAt + ttlSeconds;
    const optional = metadata === undefined ? '' : `"metadata":${JSON.stringify(metadata)},`;
    const token = signPayload(
      `{"iss":${issuer},"sub":${JSON.stringify(identity)},"nbf":${issuedAt},"exp":${expiresAt},"name":${JSON.stringify(name)},${optional}` +
        `"attributes":${JSON.stringify(attributes)},"video":{"room":${JSON.stringify(room)},${grantOf(permissions)}}`,
    );
    return { token, expiresAt: dateOf(expiresAt) };
  };
};

/** Tokens of one second end together: the text is made once. */
const createDateText = (): ((seconds: number) => string) => {
  let last = { seconds: 0, text: '' };
  return (seconds) => {
    if (last.seconds !== seconds) last = { seconds, text: new Date(seconds * 1000).toISOString() };
    return last.text;
  };
};
