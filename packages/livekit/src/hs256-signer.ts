import { createHmac, createSecretKey } from 'node:crypto';

const toBase64Url = (text: string): string => Buffer.from(text).toString('base64url');
const header = toBase64Url(JSON.stringify({ alg: 'HS256' }));

/**
 * Signs payloads, given as JSON, as tokens that LiveKit takes (livekit/protocol auth/accesstoken.go): one HMAC, in place.
 * The SDK takes ten times as long, and a promise of WebCrypto's costs ten times the signature.
 */
export const createHs256Signer = (secret: string): ((payload: string) => string) => {
  const key = createSecretKey(secret, 'utf8');
  return (payload) => {
    const input = `${header}.${toBase64Url(payload)}`;
    return `${input}.${createHmac('sha256', key).update(input).digest('base64url')}`;
  };
};
