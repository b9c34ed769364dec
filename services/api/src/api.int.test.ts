import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { consumedTopics, EventsAccepted, JoinResponse, ReadinessView, topics } from '@realtime-service/contracts';
import { createDatabase, type FaultProxy, startFaultProxy, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { partitionOf } from '@realtime-service/event-log';
import { activeProjection, createPool, migrate, type Pool, preparePositions } from '@realtime-service/room-store';
import { createLogger } from '@realtime-service/telemetry';
import { decodeJwt } from 'jose';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { startProcess } from '../test/api-process.ts';
import {
  answerKeys,
  createSigningKey,
  issuer,
  type KeyServer,
  type SigningKey,
  signToken,
  startKeyServer,
} from '../test/identity-provider.ts';
import { rawRequest, readAnswer } from '../test/raw-request.ts';
import { environment } from '../test/test-api.ts';
import { type Api, startApi } from './api.ts';
import { ApiSettings } from './config.ts';

const partitionCount = 12;
const polling = { timeout: 10_000, interval: 50 };

describeWith(['postgres'], 'the api on a real database', ({ postgres }) => {
  let key: SigningKey;
  let keyServer: KeyServer;
  let livekit: Server;
  /** What LiveKit waits for before it answers. */
  let livekitAnswers = Promise.resolve();
  let proxy: FaultProxy;
  let pool: Pool;
  let api: Api;
  let variables: Record<string, string>;
  let roomsMade: { name: string; metadata?: string }[];
  const logger = createLogger({ service: 'api', destination: { write: () => undefined } });

  beforeAll(async () => {
    key = await createSigningKey('k1');
    keyServer = await startKeyServer(answerKeys(key.jwk));
    roomsMade = [];
    livekit = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        if (request.url?.endsWith('/CreateRoom')) roomsMade.push(JSON.parse(Buffer.concat(chunks).toString()));
        const answer = request.url?.endsWith('/ListRooms') ? '{"rooms":[]}' : '{}';
        void livekitAnswers.then(() => response.setHeader('content-type', 'application/json').end(answer));
      });
    });
    await new Promise<void>((resolve) => livekit.listen(0, '127.0.0.1', resolve));
    const url = await createDatabase(postgres.url);
    pool = createPool({ url, maxConnections: 4, applicationName: 'test', onError: () => undefined });
    proxy = await startFaultProxy(postgres.port);
    const proxied = new URL(url);
    proxied.port = String(proxy.port);
    await proxy.cut();
    variables = {
      ...environment,
      DATABASE_URL: url,
      OIDC_ISSUER: issuer,
      OIDC_JWKS_URI: keyServer.url,
      LIVEKIT_API_URL: `http://127.0.0.1:${(livekit.address() as AddressInfo).port}`,
      API_PORT: '0',
      API_OPS_PORT: '0',
      PROJECTION_MAX_AGE_SECONDS: '1',
      RATE_LIMIT_USER_PER_MINUTE: '100000',
      // Blocked by the tests beside it, not by requests.
      MAX_EVENT_LOOP_DELAY_MS: '10000',
    };
    api = await startApi(ApiSettings.parse({ ...variables, DATABASE_URL: proxied.href }), logger);
  });
  afterAll(async () => {
    await api.stop();
    await proxy.stop();
    await pool.end();
    await keyServer.close();
    livekit.closeAllConnections();
    await new Promise((resolve) => livekit.close(resolve));
  });

  interface Call {
    readonly sub?: string;
    readonly body?: object;
    readonly type?: string;
    readonly traceparent?: string;
    /** Another process than the usual one. */
    readonly base?: string;
  }
  const request = async (
    path: string,
    { sub = 'u-7', body, type = 'application/json', traceparent, base = api.url }: Call = {},
  ) => {
    const authorization = `Bearer ${await signToken(key, { sub, scope: 'realtime:publish' })}`;
    const askedAtMs = performance.now();
    const response = await fetch(`${base}/api/realtime${path}`, {
      method: 'POST',
      headers: {
        authorization,
        ...(body !== undefined && { 'content-type': type }),
        ...(traceparent !== undefined && { traceparent }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const answered = (await response.json()) as Record<string, unknown>;
    return { status: response.status, body: answered, tookMs: performance.now() - askedAtMs };
  };
  const join = (room: string, sub?: string, body?: object) =>
    request(`/rooms/${encodeURIComponent(room)}/join`, {
      ...(sub !== undefined && { sub }),
      ...(body !== undefined && { body }),
    });
  const publish = async (subject: string): Promise<string> => {
    const event = { specversion: '1.0', id: crypto.randomUUID(), source: '/test', type: 'room.locked', subject };
    const { status, body } = await request('/events', { body: event, type: 'application/cloudevents+json' });
    expect(status).toBe(202);
    return EventsAccepted.parse(body).at_least;
  };
  const ops = async (path: string) => {
    const response = await fetch(`${api.opsUrl}${path}`);
    return { status: response.status, text: await response.text() };
  };
  const explain = async (room: string) => JSON.parse((await ops(`/explain?room=${room}&user=u-7`)).text);

  const provenance = `'e', 'realtime.room-events.v1', 0, 0, now()`;
  const columns = `event_id, topic, "partition", "offset", fact_at`;
  const addRoom = (room: string, maxParticipants: number | null = null) =>
    pool.query(
      `insert into rooms (room_id, state, max_participants, ${columns}) values ($1, 'open', $2, ${provenance})`,
      [room, maxParticipants],
    );
  const addMember = (room: string, user: string) =>
    pool.query(
      `insert into members (room_id, user_id, role, is_removed, ${columns}) values ($1, $2, 'speaker', false, ${provenance})`,
      [room, user],
    );
  /** What the room-worker does when it has applied all that is in the log. */
  const catchUp = () =>
    pool.query(
      `update log_positions p set next_offset = h.next_offset from log_heads h where h.topic = p.topic and h.partition = p."partition"`,
    );
  const joinStatusOf = async (room: string): Promise<number> => (await join(room)).status;

  test('it listens while the database is away, says so, and is there when the database is', async () => {
    expect((await ops('/livez')).status).toBe(200);
    expect((await ops('/readyz')).status).toBe(503);
    const startedAtMs = performance.now();
    expect(await join('room-42')).toMatchObject({ status: 503, body: { code: 'store_unavailable' } });
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);

    await proxy.heal();
    await expect.poll(async () => (await ops('/readyz')).status, polling).toBe(200);
    expect(ReadinessView.parse(JSON.parse((await ops('/readyz')).text))).toMatchObject({
      status: 'UP',
      dependencies: { livekit: { ok: true } },
    });
    for (const topic of consumedTopics) await preparePositions(pool, activeProjection, topic, partitionCount);
    expect(await joinStatusOf('room-42')).toBe(404);
  });

  test('a member enters, and does not once removed', async () => {
    await addRoom('room-42');
    await addMember('room-42', 'u-7');
    const { status, body } = await join('room-42');
    expect(status).toBe(200);
    expect(JoinResponse.parse(body)).toMatchObject({ server_url: 'wss://rtc.example.test', role: 'speaker' });
    expect(roomsMade).toEqual([{ name: 'room-42', empty_timeout: 120, departure_timeout: 120 }]);
    await pool.query(`update members set is_removed = true where room_id = 'room-42'`);
    expect(await joinStatusOf('room-42')).toBe(404);
    expect(await explain('room-42')).toMatchObject({
      join: { status: 404, code: 'room_not_found', reason: 'member_removed' },
      facts: { member: { isRemoved: true, provenance: { eventId: 'e', partition: 0, offset: '0' } } },
    });
    const partition = { partition: partitionOf('room-42', partitionCount), lag: 0 };
    await expect.poll(async () => (await explain('room-42')).freshness, polling).toMatchObject({ partition });
  });

  test('ids are used byte for byte', async () => {
    for (const room of ['caf\u00e9', 'a/b', '\u{1f3a5}'.repeat(64)]) {
      await addRoom(room);
      await addMember(room, 'u-7');
      expect(await joinStatusOf(room)).toBe(200);
    }
    expect(await joinStatusOf('cafe\u0301')).toBe(404);
    expect(await joinStatusOf('a%2Fb')).toBe(404);
  });

  test('no more enter at once than there are seats, and who has one may ask again', async () => {
    await addRoom('small', 10);
    const people = Array.from({ length: 40 }, (_, n) => `p-${n}`);
    for (const person of people) await addMember('small', person);
    const first = await Promise.all(people.map((person) => join('small', person)));
    const seated = people.filter((_, n) => first[n]?.status === 200);
    expect(seated).toHaveLength(10);
    expect(first.filter(({ body }) => body.code === 'room_full')).toHaveLength(30);
    const again = await Promise.all(people.map((person) => join('small', person)));
    expect(people.filter((_, n) => again[n]?.status === 200)).toEqual(seated);
  });

  test('events are in the log as the room-worker reads them', async () => {
    const body = [
      {
        specversion: '1.0',
        id: 'e-1',
        source: '/test',
        type: 'room.created',
        subject: 'caf\u00e9',
        sequence: '7',
        data: { name: 'Caf\u00e9' },
      },
      { specversion: '1.0', id: 'e-2', source: '/test', type: 'room.locked', subject: 'caf\u00e9' },
    ];
    const answer = await request('/events', { body, type: 'application/cloudevents-batch+json' });
    expect(answer).toMatchObject({ status: 202, body: { accepted: 2 } });
    const { rows } = await pool.query(
      `select partition, convert_from(value, 'UTF8') as value, headers from log_records where key = convert_to($1, 'UTF8') order by "offset"`,
      ['caf\u00e9'],
    );
    const text = (value: string): string => Buffer.from(value, 'base64').toString();
    expect(rows.map(({ value }) => value)).toEqual(['{"name":"Caf\u00e9"}', '{}']);
    expect(rows.map(({ partition }) => partition)).toEqual(Array(2).fill(partitionOf('caf\u00e9', partitionCount)));
    expect(text(rows[0].headers.ce_subject)).toBe('caf\u00e9');
    expect(text(rows[0].headers.ce_sequence)).toBe('00000000000000000007');
    await catchUp();
  });

  describe('a projection that is behind', () => {
    const room = 'behind';
    const elsewhere = Array.from({ length: 100 }, (_, n) => `room-${n}`).find(
      (other) => partitionOf(other, partitionCount) !== partitionOf(room, partitionCount),
    ) as string;
    beforeAll(async () => {
      for (const each of [room, elsewhere]) {
        await addRoom(each);
        await addMember(each, 'u-7');
      }
    });

    test('who knows the position of a fact waits for it, for a second', async () => {
      const atLeast = await publish(room);
      const startedAtMs = performance.now();
      expect(await join(room, 'u-7', { at_least: atLeast })).toMatchObject({
        status: 503,
        body: { code: 'projection_stale' },
      });
      expect(performance.now() - startedAtMs).toBeGreaterThan(900);
      const waiting = join(room, 'u-7', { at_least: atLeast });
      await catchUp();
      expect((await waiting).status).toBe(200);
    });

    test('its rooms admit nobody, others do, and the lag is told', async () => {
      await publish(room);
      await expect.poll(() => joinStatusOf(room), polling).toBe(503);
      expect((await join(room)).body).toMatchObject({ code: 'projection_stale' });
      expect(await joinStatusOf(elsewhere)).toBe(200);
      const partition = partitionOf(room, partitionCount);
      expect((await ops('/metrics')).text).toContain(
        `kafka_consumergroup_lag{consumergroup="realtime-room-worker",topic="${topics.roomEvents}",partition="${partition}"} 1`,
      );
      await catchUp();
      await expect.poll(() => joinStatusOf(room), polling).toBe(200);
    });
  });

  describe('a database that has gone back, as where a standby took over', () => {
    const goBack = (room: string) =>
      pool.query('update log_positions set next_offset = 0 where topic = $1 and "partition" = $2', [
        topics.roomEvents,
        partitionOf(room, partitionCount),
      ]);
    /** A room with a member, and a fact of it that the api knows to be applied. */
    const addKnown = async (room: string, maxParticipants: number | null) => {
      await addRoom(room, maxParticipants);
      await addMember(room, 'u-7');
      const atLeast = await publish(room);
      await catchUp();
      await expect.poll(async () => (await join(room, 'u-7', { at_least: atLeast })).status, polling).toBe(200);
    };
    const stale = { status: 503, body: { code: 'projection_stale' } };
    afterEach(async () => {
      await catchUp();
      await expect.poll(() => joinStatusOf('elsewhere'), polling).toBe(200);
    });
    beforeAll(async () => {
      await addRoom('elsewhere');
      await addMember('elsewhere', 'u-7');
    });

    test('admits nobody to the rooms that it knows less of, not even the first who asks', async () => {
      await addKnown('gone-back', null);
      await goBack('gone-back');
      expect(await join('gone-back')).toMatchObject(stale);
      expect(await joinStatusOf('elsewhere')).toBe(200);
    });

    test('and explains so to whoever asks first', async () => {
      await addKnown('gone-back-explained', null);
      await goBack('gone-back-explained');
      expect(await explain('gone-back-explained')).toMatchObject({
        join: { status: 503, code: 'projection_stale' },
        freshness: { isCurrent: false },
      });
    });

    test('nor whoever has asked before, and is given a seat after it', async () => {
      await addKnown('gone-back-seats', 10);
      const holder = await pool.connect();
      await holder.query(`begin; select pg_advisory_xact_lock(hashtextextended('gone-back-seats', 1))`);
      const waiting = join('gone-back-seats');
      const waits = `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
      await until('it waits for the lock', async () => (await pool.query(waits)).rowCount === 1);
      await goBack('gone-back-seats');
      await holder.query('commit');
      holder.release();
      expect(await waiting).toMatchObject(stale);
    });
  });

  test('a process that starts while the projection is behind admits nobody to those rooms either', async () => {
    await addRoom('restarted');
    await addMember('restarted', 'u-7');
    await publish('restarted');
    const settings = ApiSettings.parse({ ...variables, PROJECTION_MAX_AGE_SECONDS: '3600' });
    const second = await startApi(settings, logger);
    const answer = () => request('/rooms/restarted/join', { base: second.url });
    expect(await answer()).toMatchObject({ status: 503, body: { code: 'projection_stale' } });
    await catchUp();
    await expect.poll(async () => (await answer()).status, polling).toBe(200);
    await second.stop();
  });

  describe('a database in trouble', () => {
    beforeAll(async () => {
      await addRoom('steady');
      await addMember('steady', 'u-7');
      expect(await joinStatusOf('steady')).toBe(200);
    });

    test.each(['stall', 'cut'] as const)(
      '%s: 503 within three seconds, alive all the time, back by itself',
      async (trouble) => {
        await proxy[trouble]();
        const askedAtMs = performance.now();
        const explaining = explain('steady').then((told) => ({ ...told, tookMs: performance.now() - askedAtMs }));
        const answers = await Promise.all(Array.from({ length: 50 }, () => join('steady')));
        const explained = await explaining;
        expect(explained).toMatchObject({ status: 503, code: 'store_unavailable' });
        expect(Math.max(explained.tookMs, ...answers.map(({ tookMs }) => tookMs))).toBeLessThan(3_000);
        expect(answers.map(({ status, body }) => `${status} ${body.code}`)).toEqual(
          Array(50).fill('503 store_unavailable'),
        );
        expect((await ops('/livez')).status).toBe(200);
        expect((await ops('/readyz')).status).toBe(503);
        await proxy.heal();
        await expect.poll(() => joinStatusOf('steady'), polling).toBe(200);
        await expect.poll(async () => (await ops('/readyz')).status, polling).toBe(200);
      },
    );
  });

  test('one trace leads from the request to the token, to LiveKit and into the log', async () => {
    await addRoom('traced');
    await addMember('traced', 'u-7');
    const { child, listening, output, ended } = startProcess(variables);
    const { url: base } = await listening;
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
    const traceparent = `00-${traceId}-00f067aa0ba902b7-01`;
    const ofTrace = expect.stringMatching(new RegExp(`^00-${traceId}-(?!00f067aa0ba902b7)[0-9a-f]{16}-01$`));

    const { body } = await request('/rooms/traced/join', { base, traceparent });
    const { participant_token: token, trace_id: answered } = JoinResponse.parse(body);
    expect(answered).toBe(traceId);
    expect(decodeJwt(token).attributes).toMatchObject({ 'rt.trace': ofTrace });
    const metadata = JSON.parse(roomsMade.find(({ name }) => name === 'traced')?.metadata ?? '{}');
    expect(metadata).toEqual({ 'rt.trace': ofTrace });
    await expect.poll(() => output.stdout, polling).toContain(`"trace_id":"${traceId}"`);

    const event = { specversion: '1.0', id: 'e-traced', source: '/test', type: 'room.locked', subject: 'traced' };
    await request('/events', { base, traceparent, body: event, type: 'application/cloudevents+json' });
    const { rows } = await pool.query(`select headers from log_records where key = 'traced'`);
    for (const name of ['traceparent', 'ce_traceparent'])
      expect(Buffer.from(rows[0].headers[name], 'base64').toString()).toEqual(ofTrace);
    await catchUp();

    child.kill('SIGTERM');
    expect(await ended).toBe(0);
  });

  test('who is being answered when it ends is answered', async () => {
    await addRoom('ending');
    await addMember('ending', 'u-7');
    const second = await startApi(ApiSettings.parse(variables), logger);
    await expect.poll(async () => (await fetch(`${second.opsUrl}/readyz`)).status, polling).toBe(200);
    const held = Promise.withResolvers<void>();
    livekitAnswers = held.promise;
    const waiting = request('/rooms/ending/join', { base: second.url });
    await expect.poll(() => roomsMade.at(-1)?.name, polling).toBe('ending');
    const stopped = second.stop();
    held.resolve();
    expect((await waiting).status).toBe(200);
    await stopped;
    await expect(fetch(second.url)).rejects.toThrow();
  });

  test('one that waits for another process to migrate ends when it is told to', async () => {
    const other = await pool.connect();
    await other.query(`begin; select pg_advisory_xact_lock(hashtextextended('realtime-service.migrate', 0))`);
    const second = await startApi(ApiSettings.parse(variables), logger);
    await second.stop();
    await other.query('rollback');
    other.release();
  });

  test('one that is not to migrate is not ready before somebody else has', async () => {
    const DATABASE_URL = await createDatabase(postgres.url);
    const second = await startApi(ApiSettings.parse({ ...variables, DATABASE_URL, MIGRATE: 'false' }), logger);
    const readiness = async () => (await fetch(`${second.opsUrl}/readyz`)).status;
    expect(await readiness()).toBe(503);
    await migrate(DATABASE_URL);
    await expect.poll(readiness, polling).toBe(200);
    await second.stop();
  });

  test.each([
    ['of a room', 'rooms', 'closing_reason'],
    ['of how far the log was applied', 'log_positions', 'last_offset'],
  ])('nor while it lacks what a join asks for %s', async (_, table, column) => {
    const DATABASE_URL = await createDatabase(postgres.url);
    await migrate(DATABASE_URL);
    const other = createPool({ url: DATABASE_URL, maxConnections: 1, applicationName: 'x', onError: () => undefined });
    await other.query(`alter table ${table} rename ${column} to not_yet`);
    const told: string[] = [];
    const telling = createLogger({ service: 'api', destination: { write: (line) => void told.push(line) } });
    const second = await startApi(ApiSettings.parse({ ...variables, DATABASE_URL, MIGRATE: 'false' }), telling);
    const readiness = async () => (await fetch(`${second.opsUrl}/readyz`)).status;
    await expect.poll(() => told.join(), polling).toContain('the schema could not be prepared yet');
    expect(await readiness()).toBe(503);
    await other.query(`alter table ${table} rename not_yet to ${column}`);
    await expect.poll(readiness, polling).toBe(200);
    await Promise.all([second.stop(), other.end()]);
  });

  test('a connection that never finishes its request is ended', async () => {
    const raw = await rawRequest(api.url, 'POST /api/realtime/rooms/room-42/join HTTP/1.1\r\nHost: x\r\n');
    expect(readAnswer(raw).status).toBe(400);
  });
});
