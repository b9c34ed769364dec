import { isDeepStrictEqual } from 'node:util';
import { problemStatus } from '@realtime-service/contracts';
import { createDatabase } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import {
  attributes,
  authorise,
  type Facts,
  toVideoGrant,
  unknownRoom,
  type Verdict,
} from '@realtime-service/room-model';
import {
  createFactsReader,
  createPool,
  createPostgresStore,
  createSeatTaker,
  migrate,
  type Pool,
} from '@realtime-service/room-store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { livekitToken } from '../../test/livekit-token.ts';
import { livekitKey, startTestApi, type TestApi } from '../../test/test-api.ts';

const peopleCount = 200;
const roomsCount = 200;
const minuteMs = 60_000;
/** Far from the moment of any decision, however long the test takes. */
const [past, future] = [Date.now() - 60 * minuteMs, Date.now() + 60 * minuteMs];

/** The same world in every run. */
const createChance = (seed: number) => {
  let state = seed;
  return <T>(choices: readonly T[]): T => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return choices[(state >>> 8) % choices.length] as T;
  };
};

interface Person {
  readonly userId: string;
  readonly isDisabled: boolean | null;
  readonly isLoginEnded: boolean;
  readonly isSuspect: boolean;
}

const pick = createChance(17);
const loginOf = (userId: string): string => `login-of-${userId}`;

const people: readonly Person[] = Array.from({ length: peopleCount }, (_, at) => ({
  userId: `u-${at}`,
  isDisabled: pick([null, null, null, null, false, true]),
  isLoginEnded: pick([false, false, false, false, false, true]),
  isSuspect: pick([false, false, false, false, false, false, false, true]),
}));

const rooms = Array.from({ length: roomsCount }, (_, at) => ({
  header: pick([true, true, true, true, true, true, false])
    ? {
        ...unknownRoom(`room-${at}`),
        state: pick(['open', 'open', 'open', 'open', 'closed', 'unknown'] as const),
        access: pick(['members', 'members', 'authenticated'] as const),
        defaultRole: pick(['listener', 'speaker', 'observer'] as const),
        isLocked: pick([false, false, false, true]),
        opensAtMs: pick([null, null, past, future]),
        closesAtMs: pick([null, null, null, future, past]),
      }
    : null,
  roomId: `room-${at}`,
  doubt: pick([null, null, null, null, null, null, 'header', 'room'] as const),
}));
type Room = (typeof rooms)[number];

const ends = { live: null, left: Date.now() + minuteMs, removed: Date.now() + minuteMs, longGone: past };

/** Everything about one person in one room, as the model takes it, and the bans as they are stored: lifted ones too. */
const pairOf = ({ header, doubt }: Room, person: Person) => {
  const role = pick(['host', 'moderator', 'speaker', 'listener', 'observer', null] as const);
  const member = pick([null, { isRemoved: true }, { isRemoved: false }, { isRemoved: false }, { isRemoved: false }]);
  const ban = pick([null, null, null, 'join', 'join', 'publish_audio', 'data'] as const);
  const session = pick([null, null, 'live', 'left', 'removed', 'longGone'] as const);
  const bans =
    ban === null
      ? []
      : [{ privilege: ban, untilMs: pick([null, past, future]), reason: null, isLifted: pick([false, false, true]) }];
  const isSuspect =
    doubt === 'room' || person.isSuspect || pick([false, false, false, false, false, false, false, false, false, true]);
  const facts: Facts = {
    room: header,
    member: member && { role, displayName: null, permissions: null, ...member },
    bans: bans.filter(({ isLifted }) => !isLifted),
    user: person.isDisabled === null ? null : { isDisabled: person.isDisabled },
    isLoginEnded: person.isLoginEnded,
    doubt: isSuspect ? 'person' : doubt && 'header',
    ownSessions:
      session === null
        ? []
        : [
            {
              identity: person.userId,
              deviceId: null,
              isLive: session === 'live',
              endedAtMs: ends[session],
              wasRemoved: session === 'removed',
            },
          ],
    seats: null,
  };
  return { facts, bans };
};

const world = people.flatMap((person) => rooms.map((room) => ({ person, room, ...pairOf(room, person) })));

const verdictOf = ({ facts }: (typeof world)[number]): Verdict =>
  authorise(facts, { purpose: 'enter', takeOver: false, loginEndsAtMs: null }, Date.now());

const atDesk = (verdict: Verdict): number => (verdict.kind === 'allow' ? 200 : problemStatus[verdict.code]);
const atDoor = (verdict: Verdict): number => {
  if (verdict.kind === 'allow') return 204;
  return problemStatus[verdict.code] === 503 ? 503 : 403;
};

const videoIn = (token: string): unknown =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()).video;

const provenance = `'e', 't', 0, 0, now()`;
const columns = `event_id, topic, "partition", "offset", fact_at`;
const instant = (name: string): string => `to_timestamp(${name} / 1000.0)`;

const insert = async (
  pool: Pool,
  into: string,
  values: string,
  shape: string,
  rows: readonly object[],
): Promise<void> => {
  await pool.query(`insert into ${into} select ${values} from jsonb_to_recordset($1) as row (${shape})`, [
    JSON.stringify(rows),
  ]);
};

/** Writes the world as the projector would have left it. */
const writeWorld = async (pool: Pool): Promise<void> => {
  const pairs = world.map(({ room, person, facts, bans }) => ({ r: room.roomId, u: person.userId, facts, bans }));
  await insert(
    pool,
    `rooms (room_id, state, access, default_role, is_locked, opens_at, closes_at, settings, ${columns})`,
    `r, state, access, role, locked, ${instant('opens')}, ${instant('closes')}, settings, ${provenance}`,
    'r text, state text, access text, role text, locked boolean, opens float8, closes float8, settings jsonb',
    rooms.flatMap(({ roomId, header }) =>
      header === null
        ? []
        : [
            {
              r: roomId,
              state: header.state,
              access: header.access,
              role: header.defaultRole,
              locked: header.isLocked,
              opens: header.opensAtMs,
              closes: header.closesAtMs,
              settings: header.settings,
            },
          ],
    ),
  );
  await insert(
    pool,
    `members (room_id, user_id, role, is_removed, ${columns})`,
    `r, u, role, removed, ${provenance}`,
    'r text, u text, role text, removed boolean',
    pairs.flatMap(({ facts: { member }, ...pair }) =>
      member === null ? [] : [{ ...pair, role: member.role, removed: member.isRemoved }],
    ),
  );
  await insert(
    pool,
    `bans (room_id, user_id, privilege, until, is_lifted, ${columns})`,
    `r, u, privilege, ${instant('until')}, lifted, ${provenance}`,
    'r text, u text, privilege text, until float8, lifted boolean',
    pairs.flatMap(({ r, u, bans }) =>
      bans.map(({ privilege, untilMs, isLifted }) => ({ r, u, privilege, until: untilMs, lifted: isLifted })),
    ),
  );
  await insert(
    pool,
    'sessions (room_id, room_sid, participant_sid, identity, user_id, kind, is_hidden, is_live, joined_at, version, end_reason, ended_at, last_fact_at)',
    `r, 'RM', 'PA-' || u, u, u, 'STANDARD', false, live, now(), 0, reason, ${instant('ended')}, now()`,
    'r text, u text, live boolean, reason text, ended float8',
    pairs.flatMap(({ facts: { ownSessions }, ...pair }) =>
      ownSessions.map(({ isLive, endedAtMs, wasRemoved }) => {
        const reason = wasRemoved ? 'PARTICIPANT_REMOVED' : isLive ? null : 'CLIENT_INITIATED';
        return { ...pair, live: isLive, ended: endedAtMs, reason };
      }),
    ),
  );
  await insert(
    pool,
    `users (user_id, is_disabled, ${columns})`,
    `u, disabled, ${provenance}`,
    'u text, disabled boolean',
    people.flatMap(({ userId, isDisabled }) => (isDisabled === null ? [] : [{ u: userId, disabled: isDisabled }])),
  );
  await insert(
    pool,
    `ended_logins (user_id, login_id, ${columns})`,
    `u, login, ${provenance}`,
    'u text, login text',
    people.map(({ userId, isLoginEnded }) => ({ u: userId, login: isLoginEnded ? loginOf(userId) : 'another' })),
  );
  const doubts = [
    ...rooms.flatMap(({ roomId, doubt }) => (doubt === null ? [] : [{ scope: doubt, r: roomId, u: '' }])),
    ...people.filter(({ isSuspect }) => isSuspect).map(({ userId }) => ({ scope: 'user', r: '', u: userId })),
    ...pairs.filter(({ facts }) => facts.doubt === 'person').map(({ r, u }) => ({ scope: 'member', r, u })),
  ];
  await insert(
    pool,
    `suspects (scope, room_id, user_id, is_healed, cause_topic, cause_partition, cause_offset, ${columns})`,
    `scope, r, u, false, 't', 0, cause, ${provenance}`,
    'scope text, r text, u text, cause bigint',
    doubts.map((doubt, cause) => ({ ...doubt, cause })),
  );
};

describeWith(['postgres'], 'every person at every room, as the model says', ({ postgres }) => {
  let pool: Pool;
  let api: TestApi;

  beforeAll(async () => {
    const url = await createDatabase(postgres.url);
    await migrate(url);
    pool = createPool({ url, maxConnections: 4, applicationName: 'test', onError: () => undefined });
    await writeWorld(pool);
    const limits = {
      RATE_LIMIT_USER_PER_MINUTE: '100000',
      RATE_LIMIT_GATE_PER_MINUTE: '100000',
      RATE_LIMIT_ADDRESS_PER_MINUTE: '1000000',
    };
    api = await startTestApi(
      { ...limits, MAX_EVENT_LOOP_DELAY_MS: '60000' },
      {
        readFacts: createFactsReader(createPostgresStore(pool).readFacts, { deadlineMs: 60_000 }),
        takeSeat: createSeatTaker(pool, { deadlineMs: 10_000, leaseSeconds: 140 }),
      },
    );
  }, 120_000);
  afterAll(async () => {
    await api?.close();
    await pool?.end();
  });

  interface Answer {
    readonly status: number;
    readonly token: string | undefined;
  }

  /** All rooms of one person at once, so that they share queries. */
  const disagreements = async (
    statusOf: (verdict: Verdict) => number,
    ask: (person: Person, room: Room) => Promise<Answer>,
  ): Promise<string[]> => {
    const found: string[] = [];
    for (const person of people) {
      const own = world.filter((entry) => entry.person === person);
      const answers = await Promise.all(
        own.map(({ room }) =>
          ask(person, room).then(({ status, token }) => ({ status, video: token && videoIn(token) })),
        ),
      );
      for (const [at, entry] of own.entries()) {
        const { roomId } = entry.room;
        const verdict = verdictOf(entry);
        const video = verdict.kind === 'allow' ? toVideoGrant(roomId, verdict.permissions) : undefined;
        const expected = { status: statusOf(verdict), video };
        if (!isDeepStrictEqual(answers[at], expected))
          found.push(`${person.userId} ${roomId}: ${JSON.stringify(answers[at])}, not ${JSON.stringify(expected)}`);
      }
      api.lines.length = 0;
    }
    return found;
  };

  test('the world has every kind of verdict', () => {
    const kinds = Map.groupBy(world.map(verdictOf), (verdict) =>
      verdict.kind === 'allow' ? verdict.role : verdict.reason,
    );
    const expected =
      'user_disabled login_ended unknown_room not_a_member member_removed room_closed banned suspect not_open schedule_over locked host moderator speaker listener observer';
    expect([...kinds.keys()].sort()).toEqual(expected.split(' ').sort());
    expect(world).toHaveLength(40_000);
  });

  test('at the desk', async () => {
    const bearers = new Map(
      await Promise.all(
        people.map(
          async ({ userId }) => [userId, `Bearer ${await api.token({ sub: userId, sid: loginOf(userId) })}`] as const,
        ),
      ),
    );
    const found = await disagreements(atDesk, async ({ userId }, { roomId }) => {
      const headers = { authorization: bearers.get(userId) ?? '' };
      const url = `/api/realtime/rooms/${roomId}/join`;
      const { statusCode, body } = await api.app.inject({ method: 'POST', url, headers });
      return { status: statusCode, token: JSON.parse(body).participant_token };
    });
    expect(found).toEqual([]);
  }, 300_000);

  test('at the door', async () => {
    const found = await disagreements(atDoor, async ({ userId }, { roomId }) => {
      const signed = { [attributes.user]: userId, [attributes.login]: loginOf(userId) };
      const claims = { sub: userId, attributes: signed, video: { room: roomId, roomJoin: true } };
      const headers = { 'x-original-uri': `/rtc?access_token=${livekitToken(livekitKey, { claims })}` };
      const answer = await api.app.inject({ url: '/api/realtime/gate', headers });
      return { status: answer.statusCode, token: answer.headers.authorization?.toString().replace('Bearer ', '') };
    });
    expect(found).toEqual([]);
  }, 300_000);
});
