import { type Permissions, permissionsOf, roles, toVideoGrant } from '@realtime-service/room-model';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { AccessToken, TokenVerifier, TrackSource } from 'livekit-server-sdk';
import { describe, expect, test } from 'vitest';
import { livekitKey } from '../../test/test-api.ts';
import { createTokenSigner, type TokenSubject } from './sign-token.ts';

const sdkSources = {
  camera: TrackSource.CAMERA,
  microphone: TrackSource.MICROPHONE,
  screen_share: TrackSource.SCREEN_SHARE,
  screen_share_audio: TrackSource.SCREEN_SHARE_AUDIO,
};
const ttlSeconds = 60;
const sign = createTokenSigner(livekitKey, ttlSeconds);
const nowMs = Date.now();

const subject = (changes: Partial<TokenSubject> = {}): TokenSubject => ({
  room: 'room-42',
  identity: 'u-7:phone',
  name: 'Ann',
  metadata: undefined,
  attributes: { 'rt.user': 'u-7' },
  permissions: roles.speaker.permissions,
  ...changes,
});

/** The same token by LiveKit's own SDK. */
const bySdk = async ({ room, identity, name, metadata, attributes, permissions }: TokenSubject) => {
  const token = new AccessToken(livekitKey.apiKey, livekitKey.secret, {
    identity,
    name,
    attributes: { ...attributes },
    ttl: ttlSeconds,
    ...(metadata !== undefined && { metadata }),
  });
  const grant = toVideoGrant(room, permissions);
  token.addGrant({ ...grant, canPublishSources: grant.canPublishSources.map((source) => sdkSources[source]) });
  return token.toJwt();
};

const everyRole = Object.keys(roles) as (keyof typeof roles)[];
const awkward = [
  'a/b',
  '"quoted"',
  'back\\slash',
  'line\nbreak',
  'caf\u00e9',
  'cafe\u0301',
  '\u{1f3a5}',
  '\u2028',
  '..',
  '{"a":1}',
];
const subjects: readonly (readonly [string, TokenSubject])[] = [
  ...everyRole.map((role) => [`role ${role}`, subject({ permissions: permissionsOf(role, null, []) })] as const),
  ['a ban', subject({ permissions: permissionsOf('host', null, ['publish_video', 'data']) })],
  [
    'overrides',
    subject({ permissions: permissionsOf('listener', { publishSources: ['microphone'], hidden: true }, []) }),
  ],
  ['metadata', subject({ metadata: '{"a":"\\u0000"}' })],
  ['attributes', subject({ attributes: { 'rt.user': 'u-7', 'rt.device': 'phone', a: '1', 'b"': '\\' } })],
  ...awkward.map(
    (text) => [`awkward ids: ${JSON.stringify(text)}`, subject({ room: text, identity: text, name: text })] as const,
  ),
];

describe('a token is what the SDK would make (C33)', () => {
  test.each(subjects)('%s', async (_name, wanted) => {
    const { token, expiresAt } = sign(wanted, nowMs);
    const theirs = await bySdk(wanted);
    const { nbf, exp, ...claims } = decodeJwt(token);
    const { nbf: _nbf, exp: _exp, ...theirClaims } = decodeJwt(theirs);

    expect(claims).toEqual(theirClaims);
    expect(decodeProtectedHeader(token)).toEqual(decodeProtectedHeader(theirs));
    expect({ nbf, exp }).toEqual({ nbf: Math.floor(nowMs / 1000), exp: Math.floor(nowMs / 1000) + ttlSeconds });
    expect(expiresAt).toBe(new Date((exp ?? 0) * 1000).toISOString());
    await expect(new TokenVerifier(livekitKey.apiKey, livekitKey.secret).verify(token)).resolves.toMatchObject({
      video: { room: wanted.room },
    });
  });
});

test('each set of rights has its own grant, whatever was signed before', () => {
  const sets: Permissions[] = everyRole.flatMap((role) => [
    permissionsOf(role, null, []),
    permissionsOf(role, { publishSources: ['camera'] }, []),
    permissionsOf(role, { publishSources: ['camera'], publishData: true }, []),
    permissionsOf(role, { subscribe: false }, []),
    permissionsOf(role, { hidden: true }, []),
  ]);
  for (const permissions of [...sets, ...sets])
    expect(decodeJwt(sign(subject({ permissions }), nowMs).token).video).toEqual(toVideoGrant('room-42', permissions));
});

test('nobody gets a right that only servers have', () => {
  for (const role of everyRole)
    expect(decodeJwt(sign(subject({ permissions: roles[role].permissions }), nowMs).token).video).toMatchObject({
      roomCreate: false,
      roomList: false,
      roomRecord: false,
      roomAdmin: false,
      ingressAdmin: false,
      canUpdateOwnMetadata: false,
      recorder: false,
      agent: false,
    });
});

test('a role without sources cannot publish at all', () => {
  expect(decodeJwt(sign(subject({ permissions: roles.listener.permissions }), nowMs).token).video).toMatchObject({
    canPublish: false,
    canPublishSources: [],
  });
});
