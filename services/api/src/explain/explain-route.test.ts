import { Explanation, Problem, topics } from '@realtime-service/contracts';
import { type Facts, type Origin, unknownRoom } from '@realtime-service/room-model';
import type { FactsQuery, Provenance, ProvenFacts } from '@realtime-service/room-store';
import { createLogger } from '@realtime-service/telemetry';
import Fastify, { type FastifyInstance } from 'fastify';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Freshness } from '../freshness.ts';
import { registerExplain } from './explain-route.ts';

const nowMs = Date.parse('2026-03-01T10:00:00Z');
const origin: Origin = {
  eventId: 'e-1',
  topic: topics.roomEvents,
  partition: 3,
  offset: 9_007_199_254_740_993n,
  timeMs: nowMs - 1_000,
  sequence: null,
};
const told = {
  eventId: 'e-1',
  topic: topics.roomEvents,
  partition: 3,
  offset: '9007199254740993',
  time: '2026-03-01T09:59:59.000Z',
};

const room = { ...unknownRoom('room-42'), state: 'open' as const, name: 'Secret merger', origin };
const member = {
  roomId: 'room-42',
  userId: 'u-7',
  role: 'speaker' as const,
  displayName: 'Ann Example',
  permissions: { publishSources: ['camera' as const] },
  isRemoved: false,
  removalReason: null,
  decided: origin,
  origin,
};
const nothing: Provenance = {
  room: null,
  member: null,
  bans: [],
  user: null,
  endedLogin: null,
  suspects: [],
  sessions: [],
};

/** Facts and rows as the store would read them. */
const proven = (provenance: Partial<Provenance> = {}, changes: Partial<Facts> = {}): ProvenFacts => {
  const rows = { ...nothing, room, member, ...provenance };
  return {
    answer: {
      facts: {
        room: rows.room,
        member: rows.member,
        bans: rows.bans,
        user: rows.user,
        isLoginEnded: rows.endedLogin !== null,
        doubt: rows.suspects.length > 0 ? 'person' : null,
        ownSessions: [],
        seats: null,
        ...changes,
      },
      isRoomLive: true,
      nowMs,
    },
    provenance: rows,
  };
};

let ops: FastifyInstance;
let asked: FactsQuery[];
let lines: string[];
let read: () => Promise<ProvenFacts>;
let freshness: Pick<Freshness, 'isCurrent' | 'isLogKnown' | 'ofKey'>;

beforeEach(() => {
  asked = [];
  lines = [];
  read = async () => proven();
  freshness = {
    isCurrent: () => true,
    isLogKnown: () => true,
    ofKey: (key) => ({ topic: topics.roomEvents, partition: key === 'room-42' ? 3 : 5, lag: 0n, ageMs: 0 }),
  };
  ops = Fastify();
  registerExplain(ops, {
    readProvenance: (query) => {
      asked.push(query);
      return read();
    },
    freshness: {
      isCurrent: (roomId, userId) => freshness.isCurrent(roomId, userId),
      isLogKnown: () => freshness.isLogKnown(),
      ofKey: (key) => freshness.ofKey(key),
    },
    logger: createLogger({ service: 'api', destination: { write: (line) => void lines.push(line) } }),
  });
});
afterEach(() => ops.close());

const ask = (query: string) => ops.inject({ method: 'GET', url: `/explain${query}` });
const explained = async (query = '?room=room-42&user=u-7'): Promise<Explanation> => {
  const response = await ask(query);
  expect(response.statusCode, response.body).toBe(200);
  expect(response.headers['cache-control']).toBe('no-store');
  // As it is sent, not as a reader would shape it.
  expect(Explanation.parse(response.json())).toEqual(response.json());
  return response.json();
};

describe('200', () => {
  test('somebody who may enter: as whom, with which rights, and by which facts', async () => {
    expect(await explained()).toEqual({
      at: '2026-03-01T10:00:00.000Z',
      roomId: 'room-42',
      userId: 'u-7',
      loginId: null,
      identity: 'u-7',
      join: { status: 200, code: null, reason: null },
      enter: {
        isAllowed: true,
        role: 'speaker',
        permissions: {
          publishSources: ['camera'],
          subscribe: true,
          publishData: true,
          hidden: false,
          moderate: false,
          dispatchAgents: false,
        },
        changesAt: null,
      },
      stay: expect.objectContaining({ isAllowed: true, role: 'speaker' }),
      freshness: {
        isCurrent: true,
        isLogKnown: true,
        partition: { topic: topics.roomEvents, partition: 3, lag: 0, ageMs: 0 },
        userPartition: { topic: topics.roomEvents, partition: 5, lag: 0, ageMs: 0 },
      },
      isRoomLive: true,
      facts: {
        room: {
          state: 'open',
          access: 'members',
          defaultRole: 'listener',
          isLocked: false,
          opensAt: null,
          closesAt: null,
          maxParticipants: null,
          devicePolicy: { mode: 'multi' },
          closingReason: null,
          provenance: told,
        },
        member: {
          role: 'speaker',
          permissions: { publishSources: ['camera'] },
          isRemoved: false,
          removalReason: null,
          provenance: told,
        },
        bans: [],
        user: null,
        endedLogin: null,
        suspects: [],
        ownSessions: [],
        seats: null,
      },
    });
    expect(asked).toEqual([{ roomId: 'room-42', userId: 'u-7', loginId: null }]);
  });

  test('names of people and rooms are not told', async () => {
    const { body } = await ask('?room=room-42&user=u-7');
    expect(body).not.toMatch(/Ann Example|Secret merger/);
  });

  test('what keeps from entering throws nobody out', async () => {
    read = async () => proven({ room: { ...room, isLocked: true } });
    expect(await explained()).toMatchObject({
      join: { status: 423, code: 'room_locked', reason: 'locked' },
      enter: { isAllowed: false, reason: 'locked', code: 'room_locked', evidence: 'fact' },
      stay: { isAllowed: true, role: 'speaker' },
    });
  });

  test('a ban, when it ends, and who is told why', async () => {
    const untilMs = nowMs + 60_000;
    const ban = {
      roomId: 'room-42',
      userId: 'u-7',
      privilege: 'join' as const,
      untilMs,
      isLifted: false,
      reason: 'Shouting',
      origin,
    };
    read = async () => proven({ bans: [ban] });
    expect(await explained()).toMatchObject({
      join: { status: 403, code: 'banned' },
      stay: { isAllowed: false, reason: 'banned' },
      facts: {
        bans: [
          {
            privilege: 'join',
            until: '2026-03-01T10:01:00.000Z',
            isLifted: false,
            reason: 'Shouting',
            provenance: told,
          },
        ],
      },
    });
    read = async () => proven({ bans: [{ ...ban, privilege: 'publish_video' }] });
    expect((await explained()).enter).toMatchObject({ isAllowed: true, changesAt: '2026-03-01T10:01:00.000Z' });
  });

  test('a room that opens later', async () => {
    read = async () => proven({ room: { ...room, opensAtMs: nowMs + 60_000 } });
    expect(await explained()).toMatchObject({
      join: { status: 425, code: 'room_not_open' },
      enter: { opensAt: '2026-03-01T10:01:00.000Z' },
    });
  });

  test('a full room: seats', async () => {
    const seats = { takenByOthers: 10, ownOtherDevices: 0, ownUnusedTokens: 0, isHeld: false, isReserved: false };
    read = async () => proven({ room: { ...room, maxParticipants: 10 } }, { seats });
    expect(await explained()).toMatchObject({
      join: { status: 409, code: 'room_full', reason: 'full' },
      facts: { seats },
    });
  });

  test('a login that is over, where it is asked about', async () => {
    const endedLogin = { userId: 'u-7', loginId: 'l/1', origin };
    read = async () => proven({ endedLogin, user: { userId: 'u-7', isDisabled: false, origin } });
    expect(await explained('?room=room-42&user=u-7&login=l%2F1')).toMatchObject({
      loginId: 'l/1',
      join: { status: 401, code: 'unauthenticated', reason: 'login_ended' },
      facts: { endedLogin: { provenance: told }, user: { isDisabled: false, provenance: told } },
    });
    expect(asked).toEqual([{ roomId: 'room-42', userId: 'u-7', loginId: 'l/1' }]);
  });

  test('doubts, and own sessions', async () => {
    const suspect = {
      scope: 'member' as const,
      roomId: 'room-42',
      userId: 'u-7',
      detail: '',
      cause: origin,
      isHealed: false,
      origin,
    };
    const session = {
      roomId: 'room-42',
      roomSid: 'RM',
      participantSid: 'PA_1',
      identity: 'u-7',
      userId: 'u-7',
      deviceId: null,
      loginId: 'login-1',
      trace: null,
      kind: 'STANDARD' as const,
      isHidden: false,
      isLive: false,
      joinedAtMs: nowMs - 9_000,
      version: 1,
      endReason: 'PARTICIPANT_REMOVED',
      endedAtMs: nowMs - 1_000,
      isEndTold: true,
      lastFactAtMs: nowMs - 1_000,
    };
    read = async () => proven({ suspects: [suspect], sessions: [session] });
    expect(await explained()).toMatchObject({
      join: { status: 503, code: 'projection_stale', reason: 'suspect' },
      stay: { isAllowed: true },
      facts: {
        suspects: [{ scope: 'member', detail: '', provenance: told }],
        ownSessions: [
          {
            identity: 'u-7',
            deviceId: null,
            participantSid: 'PA_1',
            isLive: false,
            joinedAt: '2026-03-01T09:59:51.000Z',
            endedAt: '2026-03-01T09:59:59.000Z',
            endReason: 'PARTICIPANT_REMOVED',
            lastFactAt: '2026-03-01T09:59:59.000Z',
          },
        ],
      },
    });
  });

  test('nothing is known of room and person: why, and no 404', async () => {
    read = async () => proven(nothing);
    expect(await explained('?room=nowhere&user=nobody')).toMatchObject({
      roomId: 'nowhere',
      userId: 'nobody',
      join: { status: 404, code: 'room_not_found', reason: 'unknown_room' },
      enter: { isAllowed: false, reason: 'unknown_room', evidence: 'absence' },
      facts: {
        room: null,
        member: null,
        bans: [],
        user: null,
        endedLogin: null,
        suspects: [],
        ownSessions: [],
        seats: null,
      },
    });
  });

  test.each([
    ['room', 'room-42', 'partition'],
    ['person', 'u-7', 'userPartition'],
  ])('facts about the %s that are too old: a join is refused whatever they say', async (_, old, field) => {
    freshness = {
      isCurrent: (roomId, userId) => roomId !== old && userId !== old,
      isLogKnown: () => true,
      ofKey: (key) =>
        key === old
          ? { topic: topics.roomEvents, partition: 3, lag: 12n, ageMs: 11_250 }
          : { topic: topics.roomEvents, partition: 5, lag: 0n, ageMs: 0 },
    };
    expect(await explained()).toMatchObject({
      join: { status: 503, code: 'projection_stale', reason: 'partition_too_old' },
      enter: { isAllowed: true },
      freshness: { isCurrent: false, [field]: { partition: 3, lag: 12, ageMs: 11_250 } },
    });
  });

  test('the log away', async () => {
    freshness = { isCurrent: () => true, isLogKnown: () => false, ofKey: () => undefined };
    expect(await explained()).toMatchObject({
      join: { status: 200 },
      freshness: { isCurrent: true, isLogKnown: false, partition: null, userPartition: null },
    });
  });
});

const problemOf = async (query: string, status: number): Promise<Problem> => {
  const response = await ask(query);
  expect(response.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  const problem = Problem.parse(response.json());
  expect({ statusCode: response.statusCode, status: problem.status }).toEqual({ statusCode: status, status });
  return problem;
};

describe('422', () => {
  test.each([
    ['nothing', '', ['/room', '/user']],
    ['no user', '?room=r', ['/user']],
    ['no room', '?user=u', ['/room']],
    ['empty ids', '?room=&user=&login=', ['/room', '/user', '/login']],
    ['a room that is too long', `?room=${'r'.repeat(257)}&user=u`, ['/room']],
    ['a user that is too long', `?room=r&user=${'u'.repeat(192)}`, ['/user']],
    ['a login that is too long', `?room=r&user=u&login=${'l'.repeat(256)}`, ['/login']],
    ['too many bytes', `?room=${'%C3%BC'.repeat(129)}&user=u`, ['/room']],
    ['NUL', '?room=a%00b&user=%00&login=%00', ['/room', '/user', '/login']],
    ['a room twice', '?room=r&room=s&user=u', ['/room']],
    ['a parameter that is not ours', '?room=r&user=u&device=phone', ['']],
  ])('%s', async (_name, query, paths) => {
    const { code, errors } = await problemOf(query, 422);
    expect(code).toBe('invalid_request');
    expect([...new Set(errors?.map(({ path }) => path))]).toEqual(paths);
    expect(asked).toEqual([]);
    expect(lines).toEqual([]);
  });
});

test('503 without the store, and the cause is logged, not told', async () => {
  read = async () => {
    throw new Error('connection to 10.0.0.5 refused');
  };
  const response = await ask('?room=room-42&user=u-7');
  expect((await problemOf('?room=room-42&user=u-7', 503)).code).toBe('store_unavailable');
  expect(response.headers['retry-after']).toBe('1');
  expect(response.body).not.toContain('10.0.0.5');
  expect(JSON.parse(lines[0] ?? '{}')).toMatchObject({
    level: 'warn',
    operation: 'explain',
    code: 'store_unavailable',
  });
  expect(lines[0]).toContain('10.0.0.5');
});
