/** Seats on a real database: two api processes, people inside as the room-worker would have written them. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createDatabase } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { authorise } from '@realtime-service/room-model';
import { createPool, createSeatTaker, type FactsAnswer, migrate, type Pool } from '@realtime-service/room-store';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type ApiProcess, startProcess } from '../../test/api-process.ts';
import {
  answerKeys,
  createSigningKey,
  issuer,
  type KeyServer,
  type SigningKey,
  signToken,
  startKeyServer,
} from '../../test/identity-provider.ts';
import { livekitToken } from '../../test/livekit-token.ts';
import { environment, livekitKey } from '../../test/test-api.ts';

const provenance = `'e', 'realtime.room-events.v1', 0, 0, now()`;
const columns = `event_id, topic, "partition", "offset", fact_at`;

describeWith(['postgres'], 'seats', ({ postgres }) => {
  let key: SigningKey;
  let keyServer: KeyServer;
  let livekit: Server;
  let pool: Pool;
  let apis: readonly ApiProcess[];
  let urls: readonly string[];

  beforeAll(async () => {
    key = await createSigningKey('k1');
    keyServer = await startKeyServer(answerKeys(key.jwk));
    livekit = createServer((request, response) => {
      request.resume().on('end', () => response.setHeader('content-type', 'application/json').end('{}'));
    });
    await new Promise<void>((resolve) => livekit.listen(0, '127.0.0.1', resolve));
    const url = await createDatabase(postgres.url);
    await migrate(url);
    pool = createPool({ url, maxConnections: 4, applicationName: 'test', onError: () => undefined });
    const variables = {
      ...environment,
      PATH: process.env['PATH'] ?? '',
      DATABASE_URL: url,
      OIDC_ISSUER: issuer,
      OIDC_JWKS_URI: keyServer.url,
      LIVEKIT_API_URL: `http://127.0.0.1:${(livekit.address() as AddressInfo).port}`,
      API_PORT: '0',
      API_OPS_PORT: '0',
      RATE_LIMIT_USER_PER_MINUTE: '100000',
    };
    apis = [startProcess(variables), startProcess(variables)];
    urls = (await Promise.all(apis.map(({ listening }) => listening))).map((listening) => listening.url);
  });
  afterAll(async () => {
    for (const { child } of apis) child.kill('SIGTERM');
    await Promise.all(apis.map(({ ended }) => ended));
    await pool.end();
    await keyServer.close();
    livekit.closeAllConnections();
    await new Promise((resolve) => livekit.close(resolve));
  });

  let requests = 0;
  /** Each second one goes to the other process. */
  const join = async (room: string, sub: string, body: object = {}) => {
    requests += 1;
    const response = await fetch(`${urls[requests % 2]}/api/realtime/rooms/${room}/join`, {
      method: 'POST',
      headers: { authorization: `Bearer ${await signToken(key, { sub })}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const { code } = (await response.json()) as { code?: string };
    return { status: response.status, code, retryAfter: response.headers.get('retry-after') };
  };
  const statusOf = async (room: string, sub: string, body?: object): Promise<number> =>
    (await join(room, sub, body)).status;

  const people = (count: number, first = 0): string[] => Array.from({ length: count }, (_, n) => `p-${first + n}`);
  const addRoom = async (room: string, maxParticipants: number | null, members: readonly string[], policy?: object) => {
    await pool.query(
      `insert into rooms (room_id, state, max_participants, device_policy, ${columns}) values ($1, 'open', $2, $3, ${provenance})`,
      [room, maxParticipants, policy ?? { mode: 'multi' }],
    );
    await pool.query(
      `insert into members (room_id, user_id, role, is_removed, ${columns})
        select $1, user_id, 'speaker', false, ${provenance} from unnest($2::text[]) as user_id`,
      [room, members],
    );
  };

  interface Stay {
    readonly user?: string;
    readonly identity?: string;
    readonly device?: string;
    readonly kind?: string;
    readonly isHidden?: boolean;
    /** Inside still, where left out. */
    readonly left?: readonly [reason: string, secondsAgo: number];
  }
  let stays = 0;
  /** A session as the room-worker would have written it; who stays is here for a minute. */
  const addStay = async (room: string, { user = 'p', identity = user, device, kind, isHidden, left }: Stay) => {
    stays += 1;
    const [reason, seconds] = left ?? [null, null];
    await pool.query(
      `insert into sessions (room_id, room_sid, participant_sid, identity, user_id, device_id, kind, is_hidden, is_live,
          joined_at, version, end_reason, ended_at, last_fact_at)
        values ($1, 'RM', $2, $3, $4, $5, $6, $7, $8::text is null, clock_timestamp() - interval '1 minute', 0, $8,
          clock_timestamp() - make_interval(secs => $9), clock_timestamp())`,
      [room, `PA_${stays}`, identity, user, device ?? null, kind ?? 'STANDARD', isHidden ?? false, reason, seconds],
    );
  };
  const fill = async (room: string, count: number): Promise<void> => {
    for (const user of people(count, 100)) await addStay(room, { user });
  };
  /** The token of a lease is used: its holder joins. */
  const enter = async (room: string, user: string, { identity = user, device, left }: Stay = {}): Promise<void> => {
    await addStay(room, {
      user,
      identity,
      ...(device !== undefined && { device }),
      ...(left !== undefined && { left }),
    });
    await pool.query(`update sessions set joined_at = clock_timestamp() where room_id = $1 and participant_sid = $2`, [
      room,
      `PA_${stays}`,
    ]);
  };
  const passSeconds = async (room: string, seconds: number): Promise<void> => {
    await pool.query(
      `update seat_leases set granted_at = granted_at - make_interval(secs => $2), expires_at = expires_at - make_interval(secs => $2)
        where room_id = $1`,
      [room, seconds],
    );
    await pool.query(
      `update sessions set joined_at = joined_at - make_interval(secs => $2), ended_at = ended_at - make_interval(secs => $2)
        where room_id = $1`,
      [room, seconds],
    );
  };

  test('100 at once, by two processes, for 10 seats: 10 tokens and 90 refusals; later every seat is usable', async () => {
    const crowd = people(100);
    await addRoom('rush', 10, crowd);
    const answers = await Promise.all(crowd.map((person) => join('rush', person)));
    const seated = crowd.filter((_, n) => answers[n]?.status === 200);
    expect(seated).toHaveLength(10);
    expect(answers.filter(({ code, retryAfter }) => code === 'room_full' && retryAfter === '5')).toHaveLength(90);

    // Who has a token may ask again, and nobody else gets in by that.
    const again = await Promise.all(crowd.map((person) => statusOf('rush', person)));
    expect(crowd.filter((_, n) => again[n] === 200)).toEqual(seated);

    // Four connect; six tokens are never used, as when the process that gave them dies before it can answer.
    for (const person of seated.slice(0, 4)) await enter('rush', person);
    const { rows: lives } = await pool.query(
      `select distinct round(extract(epoch from expires_at - granted_at))::int as seconds from seat_leases where room_id = 'rush'`,
    );
    expect(lives).toEqual([{ seconds: 140 }]);
    // Some of it has passed by itself.
    await passSeconds('rush', 110);
    expect(await statusOf('rush', 'p-99')).toBe(seated.includes('p-99') ? 200 : 409);
    await passSeconds('rush', 30);
    const others = crowd.filter((person) => !seated.includes(person));
    const later = await Promise.all(others.map((person) => statusOf('rush', person)));
    expect(later.filter((status) => status === 200)).toHaveLength(6);
  }, 60_000);

  test('two processes that count in the same moment: the second waits for what the first one writes', async () => {
    const crowd = people(20);
    await addRoom('last', 10, crowd);
    await fill('last', 9);
    const client = await pool.connect();
    try {
      // Seats can be counted meanwhile, and not be given.
      await client.query('begin; lock table seat_leases in share row exclusive mode');
      const answers = Promise.all(crowd.map((person) => statusOf('last', person)));
      const waiting = async (): Promise<number | null> => {
        const { rowCount } = await pool.query(
          `select from pg_stat_activity
            where wait_event_type = 'Lock' and application_name = 'api' and datname = current_database()`,
        );
        return rowCount;
      };
      await vi.waitFor(async () => expect(await waiting()).toBeGreaterThan(1), { timeout: 2_000, interval: 10 });
      await client.query('commit');
      expect((await answers).filter((status) => status === 200)).toHaveLength(1);
    } finally {
      client.release(true);
    }
  });

  test('C21: 9 of 10 are inside, two new members at once: one token, one refusal', async () => {
    await addRoom('nine', 10, ['a', 'b']);
    await fill('nine', 9);
    const statuses = await Promise.all(['a', 'b'].map((person) => statusOf('nine', person)));
    expect(statuses.sort()).toEqual([200, 409]);
  });

  test('C21: 10 of 10 are inside: a new member is refused, with a code of its own', async () => {
    await addRoom('ten', 10, ['a']);
    await fill('ten', 10);
    expect(await join('ten', 'a')).toEqual({ status: 409, code: 'room_full', retryAfter: '5' });
    expect(await join('ten', 'stranger')).toMatchObject({ status: 404, code: 'room_not_found' });
  });

  test('C21: 10 of 10 are inside: present member u-7 gets a token as often as asked, and nobody new gets in by it', async () => {
    await addRoom('present', 10, ['u-7', 'a']);
    await fill('present', 9);
    await addStay('present', { user: 'u-7' });
    for (let time = 0; time < 5; time += 1) expect(await statusOf('present', 'u-7')).toBe(200);
    expect(await statusOf('present', 'a')).toBe(409);
  });

  test.each([
    ['by own will', 'CLIENT_INITIATED', 5, 200, 409],
    ['by own will, 16 s ago', 'CLIENT_INITIATED', 16, 200, 200],
    ['by a lost connection', 'CONNECTION_TIMEOUT', 5, 200, 409],
    ['by a lost connection, 119 s ago', 'not_listed', 119, 200, 409],
    ['by a lost connection, 121 s ago', 'CONNECTION_ABORTED', 121, 200, 200],
    ['by removal, and is a member again', 'PARTICIPANT_REMOVED', 5, 200, 200],
    ['with the room, which was deleted', 'ROOM_DELETED', 5, 200, 200],
    ['with the room, which was closed', 'ROOM_CLOSED', 5, 200, 200],
  ])('C21: 9 of 10 are inside, a new member, and u-7 who left 5 s ago, %s', async (...row) => {
    const [how, reason, seconds, ofTheirs, ofOthers] = row;
    const room = `left-${how.replaceAll(/\W/g, '-')}`;
    await addRoom(room, 10, ['u-7', 'a']);
    await fill(room, 9);
    await addStay(room, { user: 'u-7', left: [reason, seconds] });
    expect(await statusOf(room, 'a')).toBe(ofOthers);
    if (ofOthers === 409) expect(await statusOf(room, 'u-7')).toBe(ofTheirs);
  });

  test('who comes anew while the earlier session is still there keeps the seat until the new one is known', async () => {
    await addRoom('anew', 1, ['u-7', 'a']);
    await addStay('anew', { user: 'u-7' });
    expect(await statusOf('anew', 'u-7')).toBe(200);
    // LiveKit ends the earlier session as soon as it has the new one, and tells of that one when its media is up.
    await pool.query(
      `update sessions set is_live = false, end_reason = 'DUPLICATE_IDENTITY', ended_at = clock_timestamp() where room_id = 'anew'`,
    );
    await passSeconds('anew', 50);
    expect(await statusOf('anew', 'a')).toBe(409);
    expect(await statusOf('anew', 'u-7')).toBe(200);
    await enter('anew', 'u-7', { left: ['CLIENT_INITIATED', 0] });
    await passSeconds('anew', 16);
    expect(await statusOf('anew', 'a')).toBe(200);
  });

  describe('who left more than once in two minutes: the last time counts', () => {
    const lost = { left: ['CONNECTION_TIMEOUT', 60] } as const;
    test.each<[string, readonly Stay[], number]>([
      ['a lost connection, then a removal', [lost, { left: ['PARTICIPANT_REMOVED', 5] }], 200],
      ['a lost connection, then leaving by own will', [lost, { left: ['CLIENT_INITIATED', 16] }], 200],
      ['a removal, then a lost connection', [lost, { left: ['PARTICIPANT_REMOVED', 61] }], 409],
      [
        'a lost connection, then a removal on another device',
        [{ ...lost, identity: 'u-7:phone', device: 'phone' }, { left: ['PARTICIPANT_REMOVED', 5] }],
        200,
      ],
      [
        'a lost connection, then leaving by own will on another device',
        [{ ...lost, identity: 'u-7:phone', device: 'phone' }, { left: ['CLIENT_INITIATED', 16] }],
        409,
      ],
      ["a lost connection, then somebody else's removal", [lost, { user: 'b', left: ['PARTICIPANT_REMOVED', 5] }], 409],
    ])('%s', async (how, ends, ofOthers) => {
      const room = `ends-${how.replaceAll(/\W/g, '-')}`;
      await addRoom(room, 10, ['a']);
      await fill(room, 9);
      for (const end of ends) await addStay(room, { user: 'u-7', ...end });
      expect(await statusOf(room, 'a')).toBe(ofOthers);
    });

    test('both before the clock was set back: neither, if that was by more than two minutes', async () => {
      await addRoom('ends-ahead', 2, ['a', 'b']);
      await addStay('ends-ahead', { user: 'u-7', left: ['CONNECTION_TIMEOUT', -110] });
      await addStay('ends-ahead', { user: 'u-8', left: ['CONNECTION_TIMEOUT', -130] });
      expect(await statusOf('ends-ahead', 'a')).toBe(200);
      expect(await statusOf('ends-ahead', 'b')).toBe(409);
    });

    test('the first before the clock was set back by an hour: the one since', async () => {
      await addRoom('ends-since', 1, ['a']);
      await addStay('ends-since', { user: 'u-7', left: ['CLIENT_INITIATED', -3_600] });
      await addStay('ends-since', { user: 'u-7', left: ['CONNECTION_TIMEOUT', 5] });
      expect(await statusOf('ends-since', 'a')).toBe(409);
    });

    // Of a session that came in place of another one may hear only when it leaves: then both end at once.
    test.each([
      ['removed', 'CONNECTION_TIMEOUT', 'PARTICIPANT_REMOVED', 5],
      ['left by own will, who came in place of another', 'DUPLICATE_IDENTITY', 'CLIENT_INITIATED', 20],
    ])('both at the same time: %s', async (_, first, second, seconds) => {
      const room = `ends-at-once-${second}`;
      await addRoom(room, 1, ['a']);
      for (const reason of [first, second]) await addStay(room, { user: 'u-7', left: [reason, seconds] });
      await pool.query(
        'update sessions set ended_at = (select min(ended_at) from sessions where room_id = $1) where room_id = $1',
        [room],
      );
      expect(await statusOf(room, 'a')).toBe(200);
    });
  });

  test('C21: the limit is 9 and 10 are inside: counted as numbers, so full', async () => {
    await addRoom('lowered', 9, ['a', 'p-100']);
    await fill('lowered', 10);
    expect(await statusOf('lowered', 'a')).toBe(409);
    expect(await statusOf('lowered', 'p-100')).toBe(200);
  });

  test('C21: recorders, agents, ingress, callers by telephone and hidden people use no seat', async () => {
    await addRoom('machines', 11, ['a', 'b']);
    await fill('machines', 10);
    for (const kind of ['EGRESS', 'AGENT', 'INGRESS', 'SIP', 'CONNECTOR'])
      await addStay('machines', { identity: `${kind}_1`, user: `${kind}_1`, kind });
    await addStay('machines', { user: 'supervisor', isHidden: true });
    const left = ['STATE_MISMATCH', 1] as const;
    await addStay('machines', { user: 'recorder', kind: 'EGRESS', left });
    await addStay('machines', { user: 'observer', isHidden: true, left });
    expect(await statusOf('machines', 'a')).toBe(200);
    expect(await statusOf('machines', 'b')).toBe(409);
  });

  test('C21: limit absent: nobody is counted, and no lease is written', async () => {
    await addRoom('unlimited', null, ['a']);
    await fill('unlimited', 30);
    expect(await statusOf('unlimited', 'a')).toBe(200);
    const { rowCount } = await pool.query(`select from seat_leases where room_id = 'unlimited'`);
    expect(rowCount).toBe(0);
  });

  describe('a token reserves its seat until it is used', () => {
    test('its holder who came and went gives it up', async () => {
      await addRoom('used', 1, ['a', 'b']);
      expect(await statusOf('used', 'a')).toBe(200);
      expect(await statusOf('used', 'b')).toBe(409);
      await enter('used', 'a', { left: ['CLIENT_INITIATED', 0] });
      await passSeconds('used', 16);
      expect(await statusOf('used', 'b')).toBe(200);
    });

    test('also the next one of a holder who came and went', async () => {
      await addRoom('used-and-next', 1, ['a', 'b']);
      expect(await statusOf('used-and-next', 'a')).toBe(200);
      await enter('used-and-next', 'a', { left: ['CLIENT_INITIATED', 0] });
      await passSeconds('used-and-next', 16);
      expect(await statusOf('used-and-next', 'a')).toBe(200);
      expect(await statusOf('used-and-next', 'b')).toBe(409);
    });

    test('in its room: whoever enters another has not used it', async () => {
      await addRoom('reserved', 1, ['a', 'b']);
      expect(await statusOf('reserved', 'a')).toBe(200);
      await enter('another', 'a');
      expect(await statusOf('reserved', 'b')).toBe(409);
    });

    test.each([
      [900, 200],
      [1_100, 409],
    ])("also where LiveKit's clock is behind by less than a second: by %i ms", async (behindMs, ofOthers) => {
      const room = `clocks-${behindMs}`;
      await addRoom(room, 1, ['a', 'b']);
      expect(await statusOf(room, 'a')).toBe(200);
      await enter(room, 'a', { left: ['CLIENT_INITIATED', 0] });
      await pool.query(
        `update sessions set joined_at = granted_at - make_interval(secs => $2::float8 / 1000) from seat_leases
          where sessions.room_id = $1 and seat_leases.room_id = $1`,
        [room, behindMs],
      );
      await passSeconds(room, 16);
      expect(await statusOf(room, 'b')).toBe(ofOthers);
    });

    test('a stay that was over before the token was given does not use it', async () => {
      await addRoom('reload', 1, ['a', 'b']);
      await addStay('reload', { user: 'a', left: ['CLIENT_INITIATED', 0] });
      await pool.query(
        `update sessions set joined_at = ended_at - interval '100 milliseconds' where room_id = 'reload'`,
      );
      expect(await statusOf('reload', 'a')).toBe(200);
      await passSeconds('reload', 16);
      expect(await statusOf('reload', 'b')).toBe(409);
    });

    test('whoever is removed gives it up at once', async () => {
      await addRoom('kicked', 1, ['a', 'b']);
      expect(await statusOf('kicked', 'a')).toBe(200);
      await enter('kicked', 'a', { left: ['PARTICIPANT_REMOVED', 0] });
      expect(await statusOf('kicked', 'b')).toBe(200);
    });

    test('a guest whom we did not admit and who is removed leaves no seat taken, either', async () => {
      await addRoom('guest', 1, ['a']);
      await addStay('guest', { identity: 'guest', left: ['PARTICIPANT_REMOVED', 5] });
      await pool.query(`update sessions set user_id = null where room_id = 'guest'`);
      expect(await statusOf('guest', 'a')).toBe(200);
    });

    test('but for whoever is inside, who needs no other for a reconnect', async () => {
      await addRoom('reconnect', 1, ['a', 'b']);
      await addStay('reconnect', { user: 'a' });
      expect(await statusOf('reconnect', 'a')).toBe(200);
      await pool.query(`delete from sessions where room_id = 'reconnect'`);
      expect(await statusOf('reconnect', 'b')).toBe(200);
    });

    test('but for whom nobody sees', async () => {
      await addRoom('unseen', 1, ['a', 'b']);
      await pool.query(`update members set role = 'observer' where room_id = 'unseen' and user_id = 'a'`);
      expect(await statusOf('unseen', 'a')).toBe(200);
      expect(await statusOf('unseen', 'b')).toBe(200);
    });

    test('and no longer than twice its life, where the clock was set back since', async () => {
      await addRoom('set-back', 1, ['a', 'b']);
      expect(await statusOf('set-back', 'a')).toBe(200);
      await passSeconds('set-back', -130);
      expect(await statusOf('set-back', 'b')).toBe(409);
      await passSeconds('set-back', -20);
      expect(await statusOf('set-back', 'b')).toBe(200);
    });

    test('one that was taken twice is one seat', async () => {
      await addRoom('twice', 2, ['a', 'b', 'c']);
      await Promise.all([statusOf('twice', 'a'), statusOf('twice', 'a'), statusOf('twice', 'a')]);
      expect(await statusOf('twice', 'b')).toBe(200);
      expect(await statusOf('twice', 'c')).toBe(409);
    });
  });

  describe('devices', () => {
    const on = (device_id: string, take_over?: boolean) => ({
      device_id,
      ...(take_over !== undefined && { take_over }),
    });

    test('multi(2): two of three at once, and the third when one has gone', async () => {
      await addRoom('multi', null, ['a'], { mode: 'multi', max: 2 });
      const devices = ['phone', 'desk', 'tab'];
      const statuses = await Promise.all(devices.map((device) => statusOf('multi', 'a', on(device))));
      expect(statuses.filter((status) => status === 200)).toHaveLength(2);
      const refused = devices[statuses.indexOf(409)] ?? '';
      const [first = ''] = devices.filter((device) => device !== refused);
      expect((await join('multi', 'a', on(refused))).code).toBe('device_conflict');
      await enter('multi', 'a', { identity: `a:${first}`, device: first, left: ['CLIENT_INITIATED', 0] });
      await passSeconds('multi', 16);
      expect(await statusOf('multi', 'a', on(refused))).toBe(200);
    });

    test('single_oldest: the second is refused, unless it takes over; then the first is', async () => {
      await addRoom('oldest', null, ['a'], { mode: 'single_oldest' });
      const statuses = await Promise.all(['phone', 'desk'].map((device) => statusOf('oldest', 'a', on(device))));
      expect(statuses.sort()).toEqual([200, 409]);
      const { rows } = await pool.query(`select device_id from seat_leases where room_id = 'oldest'`);
      const first: string = rows[0].device_id;
      const second = first === 'phone' ? 'desk' : 'phone';
      await enter('oldest', 'a', { device: first });
      expect((await join('oldest', 'a', on(second))).code).toBe('device_conflict');
      expect(await statusOf('oldest', 'a', on(first))).toBe(200);
      expect(await statusOf('oldest', 'a', on(second, true))).toBe(200);
      // Not connected yet, and asked again without the wish, as the door does.
      expect(await statusOf('oldest', 'a', on(second))).toBe(200);
      expect(await statusOf('oldest', 'a', on(first))).toBe(409);
    });

    test('single_oldest: one without an id keeps its place before one that has one', async () => {
      await addRoom('oldest-null', null, ['a'], { mode: 'single_oldest' });
      await addStay('oldest-null', { user: 'a' });
      expect((await join('oldest-null', 'a', on('phone'))).code).toBe('device_conflict');
    });

    test('single_newest: nobody is counted', async () => {
      await addRoom('newest', null, ['a'], { mode: 'single_newest' });
      for (const device of ['phone', 'desk']) expect(await statusOf('newest', 'a', on(device))).toBe(200);
      const { rowCount } = await pool.query(`select from seat_leases where room_id = 'newest'`);
      expect(rowCount).toBe(0);
    });

    describe('two devices of one person may have tokens that are not used', () => {
      const invented = Array.from({ length: 10 }, (_, n) => `device-${n}`);

      test('so nobody empties a room of seats by inventing devices', async () => {
        await addRoom('invented', 10, people(9).concat('a'));
        const answers = await Promise.all(invented.map((device) => join('invented', 'a', on(device))));
        expect(answers.filter(({ status }) => status === 200)).toHaveLength(2);
        expect(answers.filter(({ code }) => code === 'device_conflict')).toHaveLength(8);
        const others = await Promise.all(people(9).map((person) => statusOf('invented', person)));
        expect(others.filter((status) => status === 200)).toHaveLength(8);
      });

      test('who has them may ask again, and has the next when one is used or over', async () => {
        await addRoom('next-device', 10, ['a']);
        const ask = (device: string) => statusOf('next-device', 'a', on(device));
        for (const device of ['phone', 'desk', 'phone', 'desk']) expect(await ask(device)).toBe(200);
        expect(await ask('tab')).toBe(409);
        expect(await statusOf('next-device', 'a')).toBe(409);
        await enter('next-device', 'a', { identity: 'a:phone', device: 'phone' });
        expect(await ask('tab')).toBe(200);
        expect(await ask('watch')).toBe(409);
        // Who is inside, or was a moment ago, has a seat and needs none of the two.
        expect(await ask('phone')).toBe(200);
        await passSeconds('next-device', 140);
        expect(await ask('watch')).toBe(200);
      });

      test('a device that lost its connection comes back beside them', async () => {
        await addRoom('lost-device', 10, ['a']);
        await addStay('lost-device', { user: 'a', identity: 'a:tab', device: 'tab', left: ['CONNECTION_TIMEOUT', 5] });
        for (const device of ['phone', 'desk', 'tab']) expect(await statusOf('lost-device', 'a', on(device))).toBe(200);
      });
    });

    describe('a device keeps its seat when the policy changes', () => {
      const multi = { mode: 'multi' };
      const phone = { user: 'a', device: 'phone' };
      const asMulti = { ...phone, identity: 'a:phone' };
      test.each<[string, { stay: Stay; now: object; limit: number | null }]>([
        ['multi, now single_oldest', { stay: asMulti, now: { mode: 'single_oldest' }, limit: null }],
        ['multi, now single_oldest, full', { stay: asMulti, now: { mode: 'single_oldest' }, limit: 1 }],
        ['multi, now single_newest, full', { stay: asMulti, now: { mode: 'single_newest' }, limit: 1 }],
        ['single, now multi, full', { stay: phone, now: multi, limit: 1 }],
        ['single, now multi(1)', { stay: phone, now: { mode: 'multi', max: 1 }, limit: null }],
      ])('%s', async (how, { stay, now, limit }) => {
        const room = `policy-${how.replaceAll(/\W/g, '-')}`;
        await addRoom(room, limit, ['a', 'b'], now);
        await addStay(room, stay);
        expect(await statusOf(room, 'a', on('phone'))).toBe(200);
        if (limit !== null) expect(await statusOf(room, 'b')).toBe(409);
        await addRoom(`${room}-left`, limit, ['a', 'b'], now);
        await addStay(`${room}-left`, { ...stay, left: ['CONNECTION_TIMEOUT', 5] });
        expect(await statusOf(`${room}-left`, 'a', on('phone'))).toBe(200);
        if (limit !== null) expect(await statusOf(`${room}-left`, 'b')).toBe(409);
      });

      test('also one without an id', async () => {
        await addRoom('policy-null', 1, ['a'], multi);
        await addStay('policy-null', { user: 'a', identity: 'a:earlier' });
        expect(await statusOf('policy-null', 'a')).toBe(200);
      });

      test('and no other device has one by it', async () => {
        await addRoom('policy-other', 1, ['a'], multi);
        await addStay('policy-other', phone);
        expect(await statusOf('policy-other', 'a', on('desk'))).toBe(409);
      });

      test('nor has one that was removed', async () => {
        await addRoom('policy-removed', 1, ['a', 'b'], multi);
        await addStay('policy-removed', { ...phone, left: ['PARTICIPANT_REMOVED', 5] });
        expect(await statusOf('policy-removed', 'b')).toBe(200);
        expect(await statusOf('policy-removed', 'a', on('phone'))).toBe(409);
      });

      test('nor has one that another was inside in place of', async () => {
        await addRoom('policy-replaced', 1, ['a', 'b'], multi);
        await addStay('policy-replaced', { ...phone, left: ['DUPLICATE_IDENTITY', 5] });
        await addStay('policy-replaced', { user: 'a', device: 'desk' });
        expect(await statusOf('policy-replaced', 'b')).toBe(409);
        expect(await statusOf('policy-replaced', 'a', on('phone'))).toBe(409);
        expect(await statusOf('policy-replaced', 'a', on('desk'))).toBe(200);
      });

      test.each<[string, object, number | null]>([
        ['single_newest, full', { mode: 'single_newest' }, 1],
        ['single_oldest, beside another device', { mode: 'single_oldest' }, null],
      ])('nor does one by a token of before, which may still be used: %s', async (how, now, limit) => {
        const room = `token-${how.replaceAll(/\W/g, '-')}`;
        await addRoom(room, limit ?? 3, ['a'], multi);
        expect(await statusOf(room, 'a', on('phone'))).toBe(200);
        if (limit === null) await addStay(room, { user: 'a', identity: 'a:desk', device: 'desk' });
        await pool.query('update rooms set device_policy = $2, max_participants = $3 where room_id = $1', [
          room,
          now,
          limit,
        ]);
        expect(await statusOf(room, 'a', on('phone'))).toBe(409);
      });

      test('a device inside twice is one device, and two seats', async () => {
        await addRoom('policy-both', 3, ['a', 'b', 'c'], { mode: 'multi', max: 2 });
        await addStay('policy-both', phone);
        await addStay('policy-both', asMulti);
        expect(await statusOf('policy-both', 'a', on('desk'))).toBe(200);
        expect((await join('policy-both', 'b')).code).toBe('room_full');
      });

      test('its token holds a seat until the earlier identity has gone, also for those who ask in the same batch', async () => {
        const take = createSeatTaker(pool, { deadlineMs: 2_500, leaseSeconds: 140 });
        const ask = async (room: string, userId: string, deviceId: string | null, identity = userId) => {
          const decide = ({ facts, nowMs }: FactsAnswer) =>
            authorise(facts, { purpose: 'enter', takeOver: false, loginEndsAtMs: null }, nowMs);
          const request = { roomId: room, userId, loginId: null, identity, deviceId };
          return (await take(request, decide)).verdict.kind;
        };
        for (const room of ['policy-batch', 'policy-apart']) {
          await addRoom(room, 2, ['a', 'b'], multi);
          await addStay(room, phone);
        }
        const phoneAsks = (room: string) => ask(room, 'a', 'phone', 'a:phone');
        expect(await Promise.all([phoneAsks('policy-batch'), ask('policy-batch', 'b', null)])).toEqual([
          'allow',
          'deny',
        ]);
        expect(await phoneAsks('policy-apart')).toBe('allow');
        expect(await ask('policy-apart', 'b', null)).toBe('deny');
      });
    });

    const atGate = async (room: string, identity: string, device: string): Promise<number> => {
      const claims = {
        sub: identity,
        attributes: { 'rt.user': 'a', 'rt.device': device },
        video: { room, roomJoin: true },
      };
      const headers = { 'x-original-uri': `/rtc?access_token=${livekitToken(livekitKey, { claims })}` };
      return (await fetch(`${urls[0]}/api/realtime/gate`, { headers })).status;
    };

    test('whoever has taken over comes back, while the device that lost its connection may not', async () => {
      await addRoom('handover', null, ['a'], { mode: 'single_oldest' });
      await addStay('handover', { user: 'a', device: 'phone', left: ['CONNECTION_TIMEOUT', 30] });
      expect(await statusOf('handover', 'a', on('desk'))).toBe(409);
      expect(await statusOf('handover', 'a', on('desk', true))).toBe(200);
      await enter('handover', 'a', { device: 'desk' });
      await passSeconds('handover', 5);
      expect(await atGate('handover', 'a', 'desk')).toBe(204);
      expect(await statusOf('handover', 'a', on('desk'))).toBe(200);
      await passSeconds('handover', 40);
      expect(await atGate('handover', 'a', 'phone')).toBe(403);
      expect(await statusOf('handover', 'a', on('phone'))).toBe(409);
    });

    test.each<[string, Stay]>([
      ['are inside', {}],
      ['LiveKit has lost a moment ago', { left: ['room_replaced', 5] }],
    ])('of two devices that %s when one becomes the rule, the first to come back is let in', async (what, stay) => {
      const room = `rule ${what}`;
      await addRoom(room, null, ['a'], { mode: 'single_oldest' });
      for (const device of ['phone', 'desk'])
        await addStay(room, { user: 'a', identity: `a:${device}`, device, ...stay });
      expect(await statusOf(room, 'a', on('tablet'))).toBe(409);
      expect(await atGate(room, 'a:phone', 'phone')).toBe(204);
      expect(await atGate(room, 'a:desk', 'desk')).toBe(403);
      expect(await atGate(room, 'a:phone', 'phone')).toBe(204);
    });

    test('a device by an identity of an earlier policy, once taken over from, does not take the call back', async () => {
      await addRoom('back', null, ['a'], { mode: 'single_oldest' });
      await addStay('back', { user: 'a', identity: 'a:phone', device: 'phone' });
      expect(await statusOf('back', 'a', on('tablet', true))).toBe(200);
      await enter('back', 'a', { device: 'tablet' });
      await passSeconds('back', 3);
      expect(await statusOf('back', 'a', on('phone'))).toBe(409);
      expect(await atGate('back', 'a:phone', 'phone')).toBe(403);
      expect(await atGate('back', 'a', 'tablet')).toBe(204);
      await pool.query(
        `update sessions set is_live = false, end_reason = 'CONNECTION_TIMEOUT', ended_at = clock_timestamp()
          where room_id = 'back'`,
      );
      expect(await statusOf('back', 'a', on('phone'))).toBe(409);
      expect(await atGate('back', 'a', 'tablet')).toBe(204);
    });

    test('take_over makes no seat in a full room', async () => {
      await addRoom('full-devices', 1, ['a'], { mode: 'multi' });
      expect(await statusOf('full-devices', 'a', on('phone'))).toBe(200);
      expect((await join('full-devices', 'a', on('desk', true))).code).toBe('room_full');
    });
  });

  // At the end: no room-worker applies what is appended here, so that other rooms of that partition are refused as
  // stale.
  test.each([
    [0, 422],
    [-1, 422],
    ['10', 422],
    [1.5, 422],
    [null, 202],
    [undefined, 202],
  ])(
    'C21: limit %s is answered %i: none is meant by null or by leaving it out, never by 0',
    async (maxParticipants, status) => {
      const event = {
        specversion: '1.0',
        id: crypto.randomUUID(),
        source: '/test',
        type: 'room.created',
        subject: 'room',
        data: { maxParticipants },
      };
      const response = await fetch(`${urls[0]}/api/realtime/events`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${await signToken(key, { scope: 'realtime:publish' })}`,
          'content-type': 'application/cloudevents+json',
        },
        body: JSON.stringify(event),
      });
      expect(response.status).toBe(status);
      const { errors } = (await response.json()) as { errors?: { path: string }[] };
      if (status === 422) expect(errors).toMatchObject([{ path: '/data/maxParticipants' }]);
    },
  );
});
