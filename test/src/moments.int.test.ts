/** What changes by time alone, at its very moment: desk, door, views and worker against one table of what holds. */

import { createDatabase, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { attributes } from '@realtime-service/room-model';
import {
  createFactsReader,
  createPool,
  createPostgresStore,
  createSeatTaker,
  migrate,
  type Pool,
  type RoomStore,
} from '@realtime-service/room-store';
import { createWorkerMetrics, startEnforcement } from '@realtime-service/room-worker';
import { createLogger } from '@realtime-service/telemetry';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { livekitToken } from '../../services/api/test/livekit-token.ts';
import { livekitKey, startTestApi, type TestApi } from '../../services/api/test/test-api.ts';
import { systemClock } from '../../services/room-worker/src/clock.ts';
import { type FakeLivekit, startFakeLivekit } from '../../services/room-worker/test/fake-livekit.ts';

/** Clocks in Europe are put forward then. */
const moment = '2031-03-30T01:00:00.000Z';
const user = 'ann';
const leaseSeconds = 140;

interface Holds {
  readonly desk: number;
  readonly door: number;
  readonly view: number;
  /** What somebody inside may publish; null where nobody is left there. */
  readonly inside: readonly string[] | null;
  /** Until when a question about the person or the room is kept. */
  readonly askedAgain: string | null;
}

const silent = ['CAMERA', 'SCREEN_SHARE'];
const every = ['CAMERA', 'MICROPHONE', 'SCREEN_SHARE', 'SCREEN_SHARE_AUDIO'];
const open: Holds = { desk: 200, door: 204, view: 200, inside: every, askedAgain: null };
const shut = { door: 403, inside: null, askedAgain: null };

/** By the room: what holds until the moment, and what from then on. */
const oracle: Readonly<Record<string, readonly [before: Holds, then: Holds]>> = {
  opens: [{ ...open, desk: 425, door: 403 }, open],
  closes: [
    { ...open, askedAgain: moment },
    { ...shut, desk: 410, view: 410 },
  ],
  banned: [{ ...shut, desk: 403, view: 403 }, open],
  silenced: [{ ...open, inside: silent, askedAgain: moment }, open],
  // Desk and views go by the login of the access token, which has none here.
  'login-ends': [
    { ...open, askedAgain: moment },
    { ...open, ...shut },
  ],
  'locked-and-left': [open, { ...open, desk: 423, door: 403 }],
  'full-by-a-token': [{ ...open, desk: 409, door: 403 }, open],
};
const rooms = Object.keys(oracle);

/** Ahead of PostgreSQL's own, where a path says so. */
const clockSql = `
  create schema clock;
  create table clock.time as select now() as at;
  create function clock.clock_timestamp() returns timestamptz volatile language sql as 'select at from clock.time';
  create function clock.statement_timestamp() returns timestamptz stable language sql as 'select at from clock.time'`;

const columns = `event_id, topic, "partition", "offset", fact_at`;
const provenance = `'e', 't', 0, 0, 'epoch'::timestamptz`;
const at = `timestamptz '${moment}'`;
const sessionColumns = `room_id, room_sid, participant_sid, identity, user_id, kind, is_hidden, is_live, joined_at, version,
  end_reason, ended_at, last_fact_at`;
const worldSql = `
  insert into rooms (room_id, state, ${columns}) select room, 'open', ${provenance} from unnest('{${rooms.join()}}'::text[]) as room;
  insert into members (room_id, user_id, role, is_removed, ${columns})
    select room_id, '${user}', 'speaker', false, ${provenance} from rooms;
  insert into room_lives (room_id, room_sid, created_at, is_live) select room_id, 'RM_1', 'epoch', true from rooms`;
const momentsSql = `
  update rooms set opens_at = ${at} where room_id = 'opens';
  update rooms set closes_at = ${at} where room_id = 'closes';
  update rooms set is_locked = true where room_id = 'locked-and-left';
  update rooms set max_participants = 1 where room_id = 'full-by-a-token';
  insert into bans (room_id, user_id, privilege, until, is_lifted, ${columns})
    values ('banned', '${user}', 'join', ${at}, false, ${provenance}),
      ('silenced', '${user}', 'publish_audio', ${at}, false, ${provenance});
  insert into sessions (${sessionColumns}) values ('locked-and-left', 'RM_1', 'PA_0', '${user}', '${user}', 'STANDARD', false,
    false, 'epoch', 0, 'SIGNAL_CLOSE', ${at} - interval '2 minutes', 'epoch');
  insert into seat_leases (room_id, user_id, identity, granted_at, expires_at)
    values ('full-by-a-token', 'bob', 'bob', ${at} - interval '${leaseSeconds} seconds', ${at})`;

describeWith(['postgres'], 'what changes by time alone', ({ postgres }) => {
  let witness: Pool;
  let pool: Pool;
  let store: RoomStore;
  let api: TestApi;
  let livekit: FakeLivekit;

  beforeAll(async () => {
    const url = new URL(await createDatabase(postgres.url));
    await migrate(url.href);
    const open = (applicationName: string): Pool =>
      createPool({ url: url.href, maxConnections: 8, applicationName, onError: () => undefined });
    witness = open('witness');
    await witness.query(`${clockSql}; ${worldSql}; ${momentsSql}`);
    url.searchParams.set('options', '-c search_path=clock,pg_catalog,public -c timezone=Europe/Berlin');
    pool = open('services');
    store = createPostgresStore(pool);
    api = await startTestApi(
      {},
      {
        readFacts: createFactsReader(store.readFacts, { deadlineMs: 10_000 }),
        takeSeat: createSeatTaker(pool, { deadlineMs: 10_000, leaseSeconds }),
      },
    );
    // As long as nothing here takes: what was put back once is never due again by a clock that stands still.
    livekit = await startFakeLivekit(10_000);
  });
  afterAll(async () => {
    await livekit?.stop();
    await api?.close();
    await pool?.end();
    await witness?.end();
  });

  const signed = (room: string) => ({
    [attributes.user]: user,
    ...(room === 'login-ends' && { [attributes.loginEnd]: String(Date.parse(moment) / 1000) }),
  });

  const askApi = async (room: string): Promise<Pick<Holds, 'desk' | 'door' | 'view'>> => {
    const url = `/api/realtime/rooms/${room}`;
    const headers = { authorization: `Bearer ${await api.token({ sub: user })}` };
    const claims = { sub: user, attributes: signed(room), video: { room, roomJoin: true } };
    const uri = `/rtc?access_token=${livekitToken(livekitKey, { claims })}`;
    const { statusCode: desk } = await api.app.inject({ method: 'POST', url: `${url}/join`, headers });
    await witness.query('delete from seat_leases where user_id = $1', [user]);
    const door = await api.app.inject({ url: '/api/realtime/gate', headers: { 'x-original-uri': uri } });
    await witness.query('delete from seat_leases where user_id = $1', [user]);
    const view = await api.app.inject({ url, headers });
    return { desk, door: door.statusCode, view: view.statusCode };
  };

  /** Everybody is inside, without a right, and every person and room is asked about. */
  const askWorker = async (): Promise<Map<string, Pick<Holds, 'inside' | 'askedAgain'>>> => {
    await witness.query(
      `delete from marks; insert into sessions (${sessionColumns}) select room_id, 'RM_1', 'PA_1', '${user}', '${user}', 'STANDARD',
        false, true, 'epoch', 0, null, null, 'epoch' from rooms`,
    );
    for (const room of rooms) {
      livekit.put(room, { sid: 'PA_1', identity: user, attributes: signed(room), permission: {} });
      await store.markIdentities(room, ['', user], { cause: 'test', causedAtMs: 0 });
    }
    const enforcement = startEnforcement({
      store,
      livekit: livekit.service,
      gate: { hasReachedKnown: async () => true, isCaughtUp: async () => true, compare: () => async () => true },
      clock: systemClock,
      unknownRooms: 'observe',
      closingNoticeMs: 0,
      metrics: createWorkerMetrics(),
      logger: createLogger({ service: 'test', level: 'silent' }),
    });
    const isOpen = 'due_at <= clock.clock_timestamp() or locked_until is not null';
    await until('all is answered', async () => (await pool.query(`select from marks where ${isOpen}`)).rowCount === 0);
    await enforcement.stop();
    // Whoever was removed is asked about in vain, since nobody tells that they have left.
    const { rows } = await witness.query<{ room_id: string; at: Date }>(
      'select room_id, min(due_at) as at from marks where attempts = 0 group by room_id',
    );
    await witness.query(`delete from sessions where is_live`);
    const kept = new Map(rows.map((row) => [row.room_id, row.at.toISOString()]));
    return new Map(
      rooms.map((room) => {
        const permission = livekit.rooms.get(room)?.get(user)?.permission;
        const inside = permission === undefined ? null : (permission['canPublishSources'] as string[]);
        return [room, { inside, askedAgain: kept.get(room) ?? null }];
      }),
    );
  };

  test.each([
    ['a millisecond before', -1_000, 0],
    ['a microsecond before', -1, 0],
    ['at', 0, 1],
    ['a millisecond after', 1_000, 1],
  ] as const)('holds at desk, door and view, and inside, %s the moment as the oracle says', async (_, micros, side) => {
    await witness.query(`update clock.time set at = ${at} + $1 * interval '1 microsecond'`, [micros]);
    const worker = await askWorker();
    const found: Record<string, unknown> = {};
    for (const room of rooms) found[room] = { ...(await askApi(room)), ...worker.get(room) };
    expect(found).toEqual(Object.fromEntries(rooms.map((room) => [room, oracle[room]?.[side]])));
  });
});
