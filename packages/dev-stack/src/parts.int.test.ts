/** Each part is started, used for real, killed, and used again with what it had. */
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import kafkajs from 'kafkajs';
import { AccessToken, RoomServiceClient } from 'livekit-server-sdk';
import pg from 'pg';
import { chromium } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { chromiumFlags } from './chromium.ts';
import { type Kafka, startKafka } from './kafka.ts';
import { type Keycloak, keycloakAdmin, startKeycloak } from './keycloak.ts';
import { type Livekit, startLivekit } from './livekit.ts';
import { PartAbsent } from './part.ts';
import { createDatabase, type Postgres, startPostgres } from './postgres.ts';
import { runDirectory } from './process-part.ts';
import { describeWith } from './vitest.ts';
import { startZipkin, type Zipkin } from './zipkin.ts';

const livekitKey = 'test-key';
const livekitSecret = 'test-secret-of-no-value-outside-this-test';

describeWith(['postgres'], 'PostgreSQL', () => {
  let postgres: Postgres;

  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres.stop());

  test('keeps committed rows over a crash', async () => {
    const url = await createDatabase(postgres.url);
    await firstValue(url, 'create table kept as select 42 as answer');
    await postgres.kill();
    await expect(firstValue(url, 'select 1')).rejects.toThrow('ECONNREFUSED');
    await postgres.start();
    expect(await firstValue(url, 'select answer from kept')).toBe(42);
  });

  test('starts again although a busy backend had no time to notice the crash', async () => {
    const busy = firstValue(postgres.url, 'select count(*) from generate_series(1, 1e12)');
    const broken = expect(busy).rejects.toThrow('Connection terminated unexpectedly');
    await expect
      .poll(() =>
        firstValue(
          postgres.url,
          "select count(*)::int from pg_stat_activity where query ~ '1e12' and pid <> pg_backend_pid()",
        ),
      )
      .toBe(1);
    await postgres.kill();
    await broken;
    await postgres.start();
    expect(await firstValue(postgres.url, 'select 1')).toBe(1);
  });

  test('answers nothing on an open connection while it is paused', async () => {
    const client = new pg.Client({ connectionString: postgres.url });
    await client.connect();
    await postgres.pause();
    const answer = client.query('select 1').then(() => 'answer');
    await expect(Promise.race([answer, nothingFor(300)])).resolves.toBe('nothing');
    await postgres.resume();
    await expect(answer).resolves.toBe('answer');
    await client.end();
  });

  test('gives each test an empty database', async () => {
    const urls = [await createDatabase(postgres.url), await createDatabase(postgres.url)];
    for (const url of urls) {
      await firstValue(url, 'create table only_here ()');
      expect(await firstValue(url, "select count(*)::int from pg_tables where schemaname = 'public'")).toBe(1);
    }
  });

  test('keeps a data directory that it was given for the next start', async () => {
    const dataDir = join(runDirectory('postgres-test'), 'data');
    const first = await startPostgres({ dataDir });
    await firstValue(first.url, 'create table kept as select 42 as answer');
    await expect(startPostgres({ dataDir })).rejects.toThrow('Is another postmaster');
    await first.stop();
    const second = await startPostgres({ dataDir });
    expect(await firstValue(second.url, 'select answer from kept')).toBe(42);
    await second.stop();
  });

  test('finds its way to data that are closed to everybody else, also when root starts it', async () => {
    const closed = join(runDirectory('postgres-test'), 'home');
    await mkdir(closed, { mode: 0o700 });
    const hidden = await startPostgres({ dataDir: join(closed, 'data') });
    expect(await firstValue(hidden.url, 'select 1')).toBe(1);
    await hidden.stop();
  });

  test('says what the server said when it does not start', async () => {
    await expect(startPostgres({ settings: { no_such_setting: '1' } })).rejects.toThrow(
      /PostgreSQL ended with 1 while starting.*no_such_setting/s,
    );
  });
});

describeWith(['kafka'], 'Kafka', () => {
  let kafka: Kafka;

  beforeAll(async () => {
    kafka = await startKafka();
    await kafka.createTopics([{ topic: 'kept', partitions: 3, config: { 'retention.ms': '-1' } }]);
  });
  afterAll(() => kafka.stop());

  test('keeps acknowledged records over a crash', async () => {
    const client = new kafkajs.Kafka({ brokers: [...kafka.brokers], logLevel: kafkajs.logLevel.NOTHING });
    const producer = client.producer({ idempotent: true });
    await producer.connect();
    await producer.send({ topic: 'kept', acks: -1, messages: [{ key: 'room', value: 'before the crash' }] });
    await producer.disconnect();

    await kafka.kill();
    await kafka.start();

    const consumer = client.consumer({ groupId: 'parts' });
    await consumer.connect();
    await consumer.subscribe({ topic: 'kept', fromBeginning: true });
    const received = await new Promise((resolve, reject) => {
      const eachMessage = async ({ message }: kafkajs.EachMessagePayload) => resolve(message.value?.toString());
      consumer.run({ eachMessage }).catch(reject);
    });
    await consumer.disconnect();
    expect(received).toBe('before the crash');
  });

  test('answers nothing while it is paused', async () => {
    await kafka.pause();
    const socket = connect({ port: kafka.port, host: '127.0.0.1' });
    await once(socket, 'connect');
    // ApiVersions, the first request of every client.
    socket.write(Buffer.from('0000000a0012000000000001ffff', 'hex'));
    const answer = once(socket, 'data').then(() => 'answer');
    await expect(Promise.race([answer, nothingFor(300)])).resolves.toBe('nothing');
    await kafka.resume();
    await expect(answer).resolves.toBe('answer');
    socket.destroy();
  });
});

describeWith(['livekit'], 'LiveKit', () => {
  const webhooks: string[] = [];
  let receiver: Server;
  let webhookUrl: string;
  let livekit: Livekit;
  let rooms: RoomServiceClient;

  beforeAll(async () => {
    receiver = createServer(async (request, response) => {
      request.setEncoding('utf8');
      webhooks.push(JSON.parse((await request.toArray()).join('')).event);
      response.end();
    });
    webhookUrl = `http://127.0.0.1:${await listen(receiver)}/webhooks/livekit`;
    livekit = await startLivekit({ keys: { [livekitKey]: livekitSecret }, webhookUrl });
    rooms = new RoomServiceClient(livekit.apiUrl, livekitKey, livekitSecret);
  });
  afterAll(async () => {
    await livekit.stop();
    receiver.close();
  });

  test('makes a room with the timeouts of livekit.yaml and tells the webhook receiver', async () => {
    const told = once(receiver, 'request');
    expect(await rooms.createRoom({ name: 'standup' })).toMatchObject({ emptyTimeout: 300, departureTimeout: 180 });
    await told;
    await expect.poll(() => webhooks, { timeout: 10_000 }).toEqual(['room_started']);
  });

  test('refuses a token for a room that nobody made', async () => {
    const response = await fetch(`${livekit.apiUrl}/rtc/validate?access_token=${await joinToken('none')}`);
    expect(response.status).toBe(404);
  });

  test('forgets its rooms in a crash and serves at the same address again', async () => {
    await rooms.createRoom({ name: 'lost' });
    await livekit.kill();
    await expect(rooms.listRooms()).rejects.toThrow('fetch failed');
    await livekit.start();
    expect(await rooms.listRooms()).toEqual([]);
  });

  test('runs twice side by side', async () => {
    const other = await startLivekit({ keys: { [livekitKey]: livekitSecret } });
    await new RoomServiceClient(other.apiUrl, livekitKey, livekitSecret).createRoom({ name: 'elsewhere' });
    expect((await rooms.listRooms()).map(({ name }) => name)).not.toContain('elsewhere');
    await other.stop();
  });

  test('goes by its file, whatever the environment says for the services or for another LiveKit', async () => {
    vi.stubEnv('LIVEKIT_KEYS', `somebody: ${livekitSecret}`);
    vi.stubEnv('LIVEKIT_PORT', String(livekit.ports.http));
    vi.stubEnv('REDIS_HOST', '127.0.0.1:1');
    onTestFinished(() => void vi.unstubAllEnvs());
    const other = await startLivekit({ keys: { [livekitKey]: livekitSecret }, webhookUrl });
    onTestFinished(() => other.stop());
    await new RoomServiceClient(other.apiUrl, livekitKey, livekitSecret).createRoom({ name: 'by its file' });
  });
});

describe('LiveKit in a container', () => {
  test('starts, is killed and starts again', { timeout: 120_000 }, async ({ skip }) => {
    vi.stubEnv('PATH', '');
    vi.stubEnv('XDG_CACHE_HOME', runDirectory('empty-cache'));
    onTestFinished(() => void vi.unstubAllEnvs());
    const said: string[] = [];
    const livekit = await startLivekit({
      keys: { [livekitKey]: livekitSecret },
      report: (line) => said.push(line),
    }).catch((error: unknown) => {
      if (!(error instanceof PartAbsent)) throw error;
      return skip(`no engine runs it. ${said.join(' ')}`);
    });
    onTestFinished(() => livekit.stop());
    const rooms = new RoomServiceClient(livekit.apiUrl, livekitKey, livekitSecret);
    await rooms.createRoom({ name: 'lost' });
    await livekit.kill();
    await expect(rooms.listRooms()).rejects.toThrow('fetch failed');
    await livekit.start();
    expect(await rooms.listRooms()).toEqual([]);
    await livekit.pause();
    await expect(Promise.race([rooms.listRooms(), nothingFor(300)])).resolves.toBe('nothing');
    await livekit.resume();
  });
});

describeWith(['keycloak'], 'Keycloak', () => {
  let keycloak: Keycloak;

  beforeAll(async () => {
    keycloak = await startKeycloak();
  });
  afterAll(() => keycloak.stop());

  test.each(['ann', 'bob', 'cleo', 'dan'])('gives %s a token with the audience of the realm file', async (user) => {
    const token = await keycloak.token({ clientId: 'web', username: user, password: user });
    expect(claimsOf(token)).toMatchObject({
      iss: keycloak.issuer,
      azp: 'web',
      aud: 'realtime-service',
      preferred_username: user,
      sub: expect.any(String),
    });
  });

  test.each([
    ['domain', 'domain-secret', 'realtime:publish'],
    ['ops', 'ops-secret', 'realtime:ops'],
  ])('gives client %s a token for its secret with its scope', async (clientId, clientSecret, scope) => {
    const token = await keycloak.token({ clientId, clientSecret });
    expect(claimsOf(token)).toMatchObject({ azp: clientId, scope: expect.stringContaining(scope) });
    await expect(keycloak.token({ clientId, clientSecret: 'guess' })).rejects.toThrow('401');
  });

  test('keeps its keys over a crash', async () => {
    const certificates = async () => (await fetch(`${keycloak.issuer}/protocol/openid-connect/certs`)).json();
    const before = await certificates();
    await keycloak.kill();
    await keycloak.start();
    expect(await certificates()).toEqual(before);
  }, 120_000);

  test('obeys its administrator', async () => {
    const response = await keycloakAdmin(keycloak.url, '/realms/dev/users?username=ann');
    expect(await response.json()).toMatchObject([{ username: 'ann' }]);
  });
});

describeWith(['zipkin'], 'Zipkin', () => {
  let zipkin: Zipkin;

  beforeAll(async () => {
    zipkin = await startZipkin();
  });
  afterAll(() => zipkin.stop());

  test('returns the span that was posted', async () => {
    const span = { traceId: 'a'.repeat(32), id: 'b'.repeat(16), name: 'join', timestamp: Date.now() * 1_000 };
    const headers = { 'content-type': 'application/json' };
    const posted = await fetch(`${zipkin.url}/api/v2/spans`, { method: 'POST', headers, body: JSON.stringify([span]) });
    expect(posted.status).toBe(202);
    // It answers before it has stored.
    const find = async () => (await fetch(`${zipkin.url}/api/v2/trace/${span.traceId}`)).json();
    await expect.poll(find, { timeout: 10_000 }).toMatchObject([span]);
  });

  test('starts again after a crash, without the spans', async () => {
    await zipkin.kill();
    await zipkin.start();
    const found = await fetch(`${zipkin.url}/api/v2/trace/${'a'.repeat(32)}`);
    expect(found.status).toBe(404);
  });
});

describeWith(['chromium'], 'Chromium', ({ chromium: { executablePath } }) => {
  test('opens a page and has a camera', async () => {
    const server = createServer((_, response) => {
      response.setHeader('content-type', 'text/html').end('<title>lobby</title>');
    });
    const port = await listen(server);
    const browser = await chromium.launch({ executablePath, args: [...chromiumFlags] });
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${port}/`);
    expect(await page.title()).toBe('lobby');
    const tracks =
      'navigator.mediaDevices.getUserMedia({ video: true, audio: true }).then((s) => s.getTracks().length)';
    expect(await page.evaluate(tracks)).toBe(2);
    await browser.close();
    server.close();
  });
});

/** The first column of the first row. */
async function firstValue(url: string, sql: string): Promise<unknown> {
  const client = new pg.Client({ connectionString: url });
  // A connection that breaks rejects its query as well.
  client.on('error', () => undefined);
  await client.connect();
  try {
    const { rows } = await client.query({ text: sql, rowMode: 'array' });
    return rows[0]?.[0];
  } finally {
    await client.end();
  }
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('not a TCP server');
  return address.port;
}

async function nothingFor(delayMs: number): Promise<'nothing'> {
  return delay(delayMs, 'nothing');
}

async function joinToken(room: string): Promise<string> {
  const token = new AccessToken(livekitKey, livekitSecret, { identity: 'ann' });
  token.addGrant({ roomJoin: true, room });
  return token.toJwt();
}

function claimsOf(token: string): unknown {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
}
