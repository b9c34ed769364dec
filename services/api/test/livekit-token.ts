import { createHmac } from 'node:crypto';
import type { LivekitKey } from '@realtime-service/livekit';
import { attributes, roles, toVideoGrant } from '@realtime-service/room-model';

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

export interface TokenChanges {
  /** Beside or instead of the claims of a speaker's token for `room-42`; undefined leaves one out. */
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly header?: object;
  readonly hash?: 'sha256' | 'sha384' | 'sha512';
}

/** A LiveKit token as the desk hands out, with whatever is wrong with it. */
export const livekitToken = (key: LivekitKey, { claims, header, hash = 'sha256' }: TokenChanges = {}): string => {
  const nowSeconds = Math.floor(Date.now() / 1000);
  const payload = {
    iss: key.apiKey,
    sub: 'u-7',
    nbf: nowSeconds,
    exp: nowSeconds + 60,
    name: 'Ann',
    attributes: { [attributes.user]: 'u-7', [attributes.login]: 'login-1' },
    video: toVideoGrant('room-42', roles.speaker.permissions),
    ...claims,
  };
  const input = `${encode({ alg: 'HS256', ...header })}.${encode(payload)}`;
  return `${input}.${createHmac(hash, key.secret).update(input).digest('base64url')}`;
};
