import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import { gzipSync } from 'node:zlib';
import { readLivekitWebhook, readRecord, topics } from '@realtime-service/contracts';
import { createLogger } from '@realtime-service/telemetry';
import { type JWTPayload, SignJWT } from 'jose';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createFakeLog, type FakeLog } from '../test/fake-log.ts';
import { createWorkerMetrics, type WorkerMetrics } from './metrics.ts';
import { createWebhookIntake } from './webhook-intake.ts';

const route = '/webhooks/livekit';
const first = { apiKey: 'first', secret: 'first-secret-of-no-value-outside-this-test' };
const second = { apiKey: 'second', secret: 'second-secret-of-no-value-outside-this-test' };
const nowSeconds = (): number => Math.floor(Date.now() / 1000);
const sha256 = (body: Buffer, encoding: 'base64' | 'base64url' | 'hex' = 'base64'): string =>
  createHash('sha256').update(body).digest(encoding);

interface Signing {
  readonly key?: { readonly apiKey: string; readonly secret: string };
  readonly alg?: string;
  readonly claims?: (claims: JWTPayload) => JWTPayload;
}

/** Signs as LiveKit does; `claims` changes what is signed. */
const sign = (body: Buffer, { key = first, alg = 'HS256', claims = (same) => same }: Signing = {}): Promise<string> => {
  const now = nowSeconds();
  const payload = claims({ iss: key.apiKey, nbf: now, exp: now + 300, sha256: sha256(body) });
  return new SignJWT(payload).setProtectedHeader({ alg }).sign(new TextEncoder().encode(key.secret));
};

const without =
  (name: string) =>
  (claims: JWTPayload): JWTPayload =>
    Object.fromEntries(Object.entries(claims).filter(([each]) => each !== name));

const room = { sid: 'RM_1', name: 'room-42', creationTimeMs: '1767225600000' };
const participant = { sid: 'PA_1', identity: 'u-7', joinedAtMs: '1767225600500', attributes: { 'rt.user': 'u-7' } };
const joined = { event: 'participant_joined', id: 'EV_1', createdAt: '1767225601', room, participant };
const bytes = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const good = bytes(joined);

let log: FakeLog;
let metrics: WorkerMetrics;
let lines: string[];
let app: ReturnType<typeof createWebhookIntake>;

beforeEach(() => {
  log = createFakeLog();
  metrics = createWorkerMetrics();
  lines = [];
  const logger = createLogger({ service: 'test', destination: { write: (line) => void lines.push(line) } });
  app = createWebhookIntake({ log, keys: [first, second], metrics, logger });
});
afterEach(() => app.close());

const post = (body: Buffer, authorization: string | undefined, headers: Record<string, string> = {}) =>
  app.inject({
    method: 'POST',
    url: route,
    payload: body,
    headers: {
      'content-type': 'application/webhook+json',
      ...(authorization === undefined ? {} : { authorization }),
      ...headers,
    },
  });

const counted = async (): Promise<Record<string, number>> => {
  const { values } = await metrics.webhooks.get();
  return Object.fromEntries(values.map(({ labels, value }) => [String(labels.outcome), value]));
};

/** What the log got, as its readers see it. */
const readLogged = () =>
  log.appended.map(({ value, headers }) => {
    const bytesOf = Object.entries(headers).map(([name, each]) => [name, Buffer.from(each)]);
    const reading = readRecord({ value, headers: Object.fromEntries(bytesOf) });
    if (reading.kind !== 'event') throw new Error(`the record is ${reading.kind}`);
    return reading.event;
  });

describe('200', () => {
  test('a webhook is durable before it is acknowledged', async () => {
    const response = await post(good, await sign(good));
    expect(response.statusCode).toBe(200);
    expect(response.body).toBe('');
    expect(log.appended).toMatchObject([{ topic: topics.livekitWebhooks, key: 'room-42' }]);
    const [event] = readLogged();
    expect(event?.context).toMatchObject({
      id: 'EV_1',
      source: 'livekit',
      type: 'livekit.participant_joined',
      subject: 'room-42',
      time: '2026-01-01T00:00:01.000Z',
    });
    expect(readLivekitWebhook(event?.data)).toEqual(readLivekitWebhook(joined));
    expect(await counted()).toEqual({ accepted: 1 });
  });

  test('a track whose source is not of its kind is kept, as far as that shows', async () => {
    const track = { sid: 'TR_1', source: 'CAMERA', mimeType: 'audio/opus', name: 'mine' };
    const published = { ...joined, event: 'track_published', participant: { sid: 'PA_1', identity: 'u-7' }, track };
    const body = bytes(published);
    expect((await post(body, await sign(body))).statusCode).toBe(200);
    const [event] = readLogged();
    expect(event?.context).toMatchObject({ type: 'livekit.track_published', subject: 'room-42' });
    expect(event?.data).toMatchObject({ track: { source: 'CAMERA', mimeType: 'audio/opus' } });
    expect(readLivekitWebhook(event?.data)).toEqual(readLivekitWebhook(published));
  });

  test('any configured key may sign', async () => {
    expect((await post(good, await sign(good, { key: second }))).statusCode).toBe(200);
    expect(log.appended).toHaveLength(1);
  });

  test.each([
    ['a lifetime of 6 minutes', (claims: JWTPayload) => ({ ...claims, exp: nowSeconds() + 360 })],
    [
      'expired within the leeway',
      (claims: JWTPayload) => ({ ...claims, nbf: nowSeconds() - 350, exp: nowSeconds() - 50 }),
    ],
    ['not yet valid within the leeway', (claims: JWTPayload) => ({ ...claims, nbf: nowSeconds() + 50 })],
  ])('%s', async (_, claims) => {
    expect((await post(good, await sign(good, { claims }))).statusCode).toBe(200);
    expect(log.appended).toHaveLength(1);
  });

  test.each([
    'application/webhook+json',
    'application/webhook+json; charset=utf-8',
    'Application/Webhook+JSON',
    'application/json',
    'application/json; charset=utf-8',
    'application/json;charset=ISO-8859-1',
  ])('content type %s, in UTF-8 and in ASCII', async (type) => {
    const raw = Buffer.from('{"event":"room_started","id":"EV_c04","room":{"sid":"RM_1","name":"café 🎥"}}');
    const ascii = Buffer.from(
      String.raw`{"event":"room_started","id":"EV_c04b","room":{"sid":"RM_1","name":"caf\u00e9 \ud83c\udfa5"}}`,
    );
    for (const body of [raw, ascii])
      expect((await post(body, await sign(body), { 'content-type': type })).statusCode).toBe(200);
    expect(readLogged().map(({ context }) => context.subject)).toEqual(['café 🎥', 'café 🎥']);
  });

  test('chunked, without a length (C04)', async () => {
    const url = await app.listen({ host: '127.0.0.1', port: 0 });
    const sending = request(`${url}${route}`, {
      method: 'POST',
      headers: { 'content-type': 'application/webhook+json', authorization: await sign(good) },
    });
    sending.write(good.subarray(0, 20));
    sending.end(good.subarray(20));
    const [response] = await once(sending, 'response');
    response.resume();
    expect(response.statusCode).toBe(200);
    expect(log.appended).toHaveLength(1);
  });

  test.each([
    ['a body of 3 MB', { ...joined, zzPadding: 'x'.repeat(3_000_000) }],
    [
      'metadata and attributes of others',
      {
        ...joined,
        participant: {
          ...participant,
          metadata: 'm'.repeat(60_000),
          attributes: { ...participant.attributes, other: 'y'.repeat(1_500_000) },
        },
      },
    ],
  ])('%s counts, and only what is read goes into the log', async (_, webhook) => {
    const body = bytes(webhook);
    expect((await post(body, await sign(body))).statusCode).toBe(200);
    expect(log.appended[0]?.value?.length).toBeLessThan(2_000);
    expect(await counted()).toEqual({ accepted: 1 });
  });

  test('what never fits into the log is told, and not asked for again', async () => {
    const attributes = { 'rt.user': 'u'.repeat(65_000), 'rt.login': 'l'.repeat(65_000) };
    const huge = {
      ...joined,
      room: { ...room, metadata: String.fromCharCode(1).repeat(65_000) },
      participant: {
        ...participant,
        attributes: Object.fromEntries(
          Object.entries(attributes).map(([name, value]) => [name, value.replaceAll(/./g, '\u0001')]),
        ),
      },
    };
    const body = bytes(huge);
    expect((await post(body, await sign(body))).statusCode).toBe(200);
    expect(log.appended).toEqual([]);
    expect(await counted()).toEqual({ too_large: 1 });
  });

  describe('with a counter and nothing else, for what says nothing here (C03)', () => {
    test.each([
      ['not JSON', Buffer.from('<html>'), 'not_json'],
      ['no UTF-8', Buffer.from(good.toString('latin1').replace('u-7', 'u-\u00c3'), 'latin1'), 'not_json'],
      ['null', bytes(null), 'incomplete'],
      ['a list', bytes([]), 'incomplete'],
      ['an event name that is new', bytes({ ...joined, event: 'participant_teleported' }), 'unknown_event'],
      [
        'an observation, which only the sweep makes',
        bytes({ event: 'livekit.observed', roomName: 'room-42', listedAtMs: 1 }),
        'unknown_event',
      ],
      ['a track', bytes({ event: 'track_published', id: 'EV_t', room }), 'no_state'],
      [
        'an egress without a room',
        bytes({
          event: 'egress_ended',
          id: 'EV_c03a',
          createdAt: '1767225600',
          egressInfo: { egressId: 'EG_1', roomName: 'room-42', status: 'EGRESS_COMPLETE' },
        }),
        'no_state',
      ],
      [
        'an ingress with an empty room name',
        bytes({
          event: 'ingress_ended',
          id: 'EV_c03b',
          createdAt: '1767225600',
          ingressInfo: { ingressId: 'IN_1', roomName: '' },
        }),
        'no_state',
      ],
      ['a room event without a room', bytes({ event: 'room_started', id: 'EV_c03c' }), 'incomplete'],
      [
        'a participant event without a participant',
        bytes({ event: 'participant_left', id: 'EV_c03d', room: { name: 'room-42' }, participant: null }),
        'incomplete',
      ],
      ['a room name of 65 emoji', bytes({ ...joined, room: { ...room, name: '🎥'.repeat(65) } }), 'incomplete'],
      ['a room name with NUL', bytes({ ...joined, room: { ...room, name: 'a\0b' } }), 'incomplete'],
    ])('%s', async (_, body, outcome) => {
      expect((await post(body, await sign(body))).statusCode).toBe(200);
      expect(log.appended).toEqual([]);
      expect(await counted()).toEqual({ [outcome]: 1 });
    });
  });

  describe('from newer LiveKits (C02)', () => {
    const left = {
      event: 'participant_left',
      id: 'EV_c02',
      createdAt: '1767225600',
      room: { sid: 'RM_1', name: 'room-42', zzFuture: { a: 1 } },
      participant: {
        sid: 'PA_1',
        identity: 'u-7',
        state: 'DISCONNECTED',
        joinedAt: '1767225500',
        disconnectReason: 'QUANTUM_DRIFT',
        tracks: [{ sid: 'TR_1', layers: [{ rid: 'q' }] }],
      },
    };
    test.each([
      ['a new disconnect reason and new fields', left],
      ['enums as unknown numbers', { ...left, participant: { ...left.participant, disconnectReason: 99, kind: 77 } }],
      ['createdAt as a number', { ...left, createdAt: 1_767_225_600 }],
      [
        'proto names',
        {
          event: 'participant_left',
          id: 'EV_s',
          created_at: '1767225600',
          room: { sid: 'RM_1', name: 'room-42', num_participants: 2 },
          participant: { sid: 'PA_1', identity: 'u-7', joined_at: '1767225500', disconnect_reason: 'CLIENT_INITIATED' },
        },
      ],
    ])('%s: the leave counts', async (_, webhook) => {
      const body = bytes(webhook);
      expect((await post(body, await sign(body))).statusCode).toBe(200);
      const [event] = readLogged();
      expect(event?.context.time).toBe('2026-01-01T00:00:00.000Z');
      expect(readLivekitWebhook(event?.data)).toMatchObject({
        kind: 'fact',
        fact: { type: 'participant_left', participant: { sid: 'PA_1', joinedAt: 1_767_225_500 } },
      });
    });

    test.each(['99999999999999', '8640000000001', '-99999999999'])(
      'createdAt %s, which no clock shows, is left out',
      async (createdAt) => {
        const body = bytes({ ...joined, createdAt });
        expect((await post(body, await sign(body))).statusCode).toBe(200);
        expect(readLogged()).toMatchObject([{ context: { id: 'EV_1' } }]);
        expect(readLogged()[0]?.context.time).toBeUndefined();
      },
    );
  });

  test("LiveKit's own retry is appended again under the same id, for the projection to drop", async () => {
    const authorization = await sign(good);
    await post(good, authorization);
    await post(good, authorization);
    expect(readLogged().map(({ context }) => context.id)).toEqual(['EV_1', 'EV_1']);
    expect(await counted()).toEqual({ accepted: 2 });
  });

  test('an id that comes again with other bytes raises an alarm', async () => {
    await post(good, await sign(good));
    const other = bytes({ ...joined, participant: { ...participant, sid: 'PA_2' } });
    expect((await post(other, await sign(other))).statusCode).toBe(200);
    expect(await counted()).toEqual({ accepted: 1, changed: 1 });
    expect(lines.filter((line) => line.includes('"level":"error"'))).toHaveLength(1);
  });

  test('without an id, the body is its own: a repeat is a repeat', async () => {
    const body = bytes({ ...joined, id: undefined });
    await post(body, await sign(body));
    await post(body, await sign(body));
    expect(new Set(readLogged().map(({ context }) => context.id)).size).toBe(1);
  });
});

describe('401, and nothing is appended (C04)', () => {
  const signed = (signing: Signing) => () => sign(good, signing);
  const forged =
    (header: object, signature = 'AAAA') =>
    async (): Promise<string> => {
      const [, payload] = (await sign(good)).split('.');
      return `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${payload}.${signature}`;
    };
  const claims = (change: JWTPayload) => signed({ claims: (same) => ({ ...same, ...change }) });

  test.each<[string, () => Promise<string | undefined>, string]>([
    ['no signature', async () => undefined, 'no_signature'],
    ['an empty signature', async () => '', 'malformed_signature'],
    ['Bearer in front', async () => `Bearer ${await sign(good)}`, 'malformed_signature'],
    ['a blank behind', async () => `${await sign(good)} x`, 'malformed_signature'],
    ['two parts', async () => (await sign(good)).split('.').slice(0, 2).join('.'), 'malformed_signature'],
    ['base64 instead of base64url', async () => `${await sign(good)}=`, 'malformed_signature'],
    ['garbage', async () => 'a.b.c', 'bad_signature'],
    ['another secret under a known key', signed({ key: { ...first, secret: second.secret } }), 'bad_signature'],
    ['a key that is not ours', signed({ key: { apiKey: 'stranger', secret: first.secret } }), 'unknown_key'],
    ['no issuer', signed({ claims: without('iss') }), 'unknown_key'],
    ['algorithm none', forged({ alg: 'none' }, 'AA'), 'wrong_algorithm'],
    ['RS256', forged({ alg: 'RS256' }), 'wrong_algorithm'],
    ['HS512', signed({ alg: 'HS512', key: { ...first, secret: first.secret.repeat(2) } }), 'wrong_algorithm'],
    ['hs256 in lower case', forged({ alg: 'hs256' }), 'wrong_algorithm'],
    ['a critical extension', forged({ alg: 'HS256', crit: ['zz'], zz: 1 }), 'bad_signature'],
    ['no exp', signed({ claims: without('exp') }), 'bad_signature'],
    ['no nbf', signed({ claims: without('nbf') }), 'bad_signature'],
    ['exp as text', async () => claims({ exp: String(nowSeconds() + 300) as unknown as number })(), 'bad_signature'],
    ['a lifetime above 6 minutes', async () => claims({ exp: nowSeconds() + 362 })(), 'lifetime'],
    ['a lifetime of an hour, begun an hour ago', async () => claims({ nbf: nowSeconds() - 3600 })(), 'lifetime'],
    [
      'expired beyond the leeway',
      async () => claims({ nbf: nowSeconds() - 362, exp: nowSeconds() - 62 })(),
      'out_of_time',
    ],
    ['not yet valid beyond the leeway', async () => claims({ nbf: nowSeconds() + 62 })(), 'out_of_time'],
    [
      'not yet valid, with another secret',
      signed({ key: { ...first, secret: second.secret }, claims: (same) => ({ ...same, nbf: nowSeconds() + 62 }) }),
      'bad_signature',
    ],
    ['nbf as text', async () => claims({ nbf: String(nowSeconds()) as unknown as number })(), 'bad_signature'],
    ['no hash', signed({ claims: without('sha256') }), 'bad_signature'],
    ['an empty hash', claims({ sha256: '' }), 'wrong_hash'],
    ["another body's hash", claims({ sha256: sha256(Buffer.from('{}')) }), 'wrong_hash'],
    ['the hash in base64url', claims({ sha256: sha256(Buffer.from(good), 'base64url') }), 'wrong_hash'],
    ['the hash in hex', claims({ sha256: sha256(good, 'hex') }), 'wrong_hash'],
    ['the hash as a list', claims({ sha256: [sha256(good), sha256(good)] }), 'wrong_hash'],
  ])('%s', async (_, authorization, outcome) => {
    const response = await post(good, await authorization());
    expect(response.statusCode).toBe(401);
    expect(response.body).toBe('');
    expect(log.appended).toEqual([]);
    expect(await counted()).toEqual({ [outcome]: 1 });
  });

  test.each([
    ['written again with a blank more', Buffer.from(good.toString().replace(':', ': '))],
    ['cut by one byte', good.subarray(0, -1)],
    ['with a byte more', Buffer.concat([good, Buffer.from('\n')])],
    ['another one', bytes({ ...joined, id: 'EV_2' })],
  ])('the body %s', async (_, body) => {
    expect((await post(body, await sign(good))).statusCode).toBe(401);
    expect(log.appended).toEqual([]);
  });

  test.each([route, '/nowhere'])('before the body has come to %s, so that strangers fill no memory', async (path) => {
    const url = await app.listen({ host: '127.0.0.1', port: 0 });
    const headers = { 'content-type': 'application/json', 'content-length': good.length, authorization: 'a.b.c' };
    const sending = request(url + path, { method: 'POST', headers });
    sending.flushHeaders();
    const [response] = await once(sending, 'response');
    expect(response.statusCode).toBe(401);
    sending.on('error', () => {}).destroy();
    expect(await counted()).toEqual({ bad_signature: 1 });
  });

  test('2 MiB with a bad signature', async () => {
    expect((await post(Buffer.alloc(2 * 1024 * 1024, 'x'), await sign(good))).statusCode).toBe(401);
  });

  test('of two signatures the first one counts, as HTTP has it', async () => {
    const url = await app.listen({ host: '127.0.0.1', port: 0 });
    const right = await sign(good);
    const statusOf = async (...values: string[]): Promise<number | undefined> => {
      const headers = [
        'Host',
        'localhost',
        'Content-Type',
        'application/json',
        'Content-Length',
        String(good.length),
        ...values.flatMap((value) => ['Authorization', value]),
      ];
      const sending = request(`${url}${route}`, { method: 'POST', headers });
      sending.end(good);
      const [response] = await once(sending, 'response');
      response.resume();
      return response.statusCode;
    };
    expect(await statusOf('a.b.c', right)).toBe(401);
    expect(log.appended).toEqual([]);
    expect(await statusOf(right, 'a.b.c')).toBe(200);
  });
});

describe('413 and 415, counted (C04)', () => {
  test('more than 4 MiB', async () => {
    const body = bytes({ ...joined, zzPadding: 'x'.repeat(4 * 1024 * 1024) });
    expect((await post(body, await sign(body))).statusCode).toBe(413);
    expect(log.appended).toEqual([]);
    expect(await counted()).toEqual({ too_large: 1 });
  });

  test.each([
    'text/plain',
    'application/webhook+jsonx',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
  ])('content type %s', async (type) => {
    expect((await post(good, await sign(good), { 'content-type': type })).statusCode).toBe(415);
    expect(log.appended).toEqual([]);
    expect(await counted()).toEqual({ unsupported: 1 });
  });

  test('no content type', async () => {
    const response = await app.inject({
      method: 'POST',
      url: route,
      payload: good,
      headers: { authorization: await sign(good), 'content-type': '' },
    });
    expect(response.statusCode).toBe(415);
    expect(log.appended).toEqual([]);
  });

  test('no body', async () => {
    const response = await app.inject({
      method: 'POST',
      url: route,
      headers: { authorization: await sign(Buffer.alloc(0)) },
    });
    expect(response.statusCode).toBe(415);
  });

  test.each(['gzip', 'identity'])('content encoding %s', async (encoding) => {
    const body = encoding === 'gzip' ? gzipSync(good) : good;
    expect((await post(body, await sign(body), { 'content-encoding': encoding })).statusCode).toBe(415);
    expect(log.appended).toEqual([]);
  });
});

describe('503', () => {
  test('within 2 s when the log does not acknowledge, with Retry-After', async () => {
    log.goAway();
    const startedAtMs = performance.now();
    const response = await post(good, await sign(good));
    expect(response.statusCode).toBe(503);
    expect(response.headers['retry-after']).toBe('1');
    expect(performance.now() - startedAtMs).toBeLessThan(2_500);
    expect(await counted()).toEqual({ log_unavailable: 1 });
  });

  test('for a fault of our own, never 500, and it is logged', async () => {
    app = createWebhookIntake({
      log: { ...log, append: () => Promise.reject(new Error('unforeseen')) },
      keys: [first],
      metrics,
      logger: createLogger({ service: 'test', destination: { write: (line) => void lines.push(line) } }),
    });
    const response = await post(good, await sign(good));
    expect(response.statusCode).toBe(503);
    expect(response.body).toBe('');
    expect(lines.join('')).toContain('unforeseen');
  });
});

describe('secrets', () => {
  const secrets = {
    room: { ...room, turnPassword: 'hush-1', turn_password: 'hush-2', enabledCodecs: [{ token: 'hush-3' }] },
    participant: {
      ...participant,
      token: 'hush-4',
      accessToken: 'hush-5',
      access_token: 'hush-6',
      attributes: { ...participant.attributes, 'app.token': 'hush-7' },
    },
    ingressInfo: { streamKey: 'hush-8', stream_key: 'hush-9' },
    ingress_info: { stream_key: 'hush-10' },
    refreshToken: 'hush-11',
    refresh_token: 'hush-12',
  };

  test('reach neither the log nor the lines', async () => {
    const body = bytes({ ...joined, ...secrets });
    const authorization = await sign(body);
    expect((await post(body, authorization)).statusCode).toBe(200);
    expect(log.appended).toHaveLength(1);
    await post(bytes({ ...joined, ...secrets, event: 'participant_teleported' }), authorization);
    const written = [
      ...log.appended.flatMap(({ value, headers }) => [String(value), JSON.stringify(headers)]),
      ...lines,
    ].join('\n');
    expect(lines.length).toBeGreaterThan(0);
    expect(written).not.toContain('hush');
    expect(written).not.toContain(authorization);
  });
});
