import { ParticipantsView, Problem, RoomView } from '@realtime-service/contracts';
import type { PresentPerson } from '@realtime-service/room-store';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { at, type Situation, startTestApi, type TestApi } from '../../test/test-api.ts';

let api: TestApi;
let bearer: string;
beforeAll(async () => {
  api = await startTestApi({ RATE_LIMIT_USER_PER_MINUTE: '100000' });
  bearer = `Bearer ${await api.token()}`;
});
afterAll(() => api.close());
beforeEach(() => {
  api.situations.clear();
  api.present.clear();
  Object.assign(api.failing, { store: false });
  Object.assign(api.freshness, { isCurrent: true, outdatedPeople: [] });
});

const urls = { room: '/api/realtime/rooms/room-42', participants: '/api/realtime/rooms/room-42/participants' };
const get = (url: string, authorization = bearer) => api.app.inject({ url, headers: { authorization } });
const given = (situation: Situation): void => void api.situations.set(at('room-42'), situation);

const person = (userId: string | null, changes: Partial<PresentPerson> = {}): PresentPerson => ({
  identity: `${userId}:1`,
  participantSid: `PA_${userId}`,
  userId,
  joinedAtMs: Date.parse('2026-03-01T10:00:00Z'),
  member: { role: 'speaker', displayName: 'Tom', permissions: null, isRemoved: false },
  ...changes,
});

test('a room, with all that a member may see', async () => {
  const [opensAtMs, closesAtMs] = [Date.now() + 60_000, Date.now() + 120_000];
  given({
    room: { name: 'Standup', isLocked: true, opensAtMs, closesAtMs },
    member: { role: 'listener' },
    isRoomLive: true,
  });
  const response = await get(urls.room);
  expect(response.statusCode, response.body).toBe(200);
  expect(RoomView.parse(response.json())).toEqual({
    roomId: 'room-42',
    name: 'Standup',
    access: 'members',
    isLocked: true,
    isLive: true,
    opensAt: new Date(opensAtMs).toISOString(),
    closesAt: new Date(closesAtMs).toISOString(),
    ownRole: 'listener',
  });
});

test('a room without a name and a schedule, for a guest', async () => {
  given({ room: { access: 'authenticated', defaultRole: 'observer' }, member: null });
  expect((await get(urls.room)).json()).toEqual({
    roomId: 'room-42',
    access: 'authenticated',
    isLocked: false,
    isLive: false,
    ownRole: 'observer',
  });
});

test('who is inside: members by their role, former ones, guests, and people whom we did not admit', async () => {
  given({});
  const removed = { role: 'host' as const, displayName: 'Gone', permissions: null, isRemoved: true };
  api.present.set('room-42', [
    person('tom'),
    person('gone', { member: removed }),
    person('guest', { member: null }),
    person(null, { identity: 'sip_1', participantSid: 'PA_sip', member: null }),
  ]);
  const response = await get(urls.participants);
  expect(response.statusCode, response.body).toBe(200);
  const joinedAt = '2026-03-01T10:00:00.000Z';
  expect(ParticipantsView.parse(response.json())).toEqual({
    participants: [
      { identity: 'tom:1', participantSid: 'PA_tom', userId: 'tom', displayName: 'Tom', role: 'speaker', joinedAt },
      { identity: 'gone:1', participantSid: 'PA_gone', userId: 'gone', displayName: 'Gone', joinedAt },
      { identity: 'guest:1', participantSid: 'PA_guest', userId: 'guest', joinedAt },
      { identity: 'sip_1', participantSid: 'PA_sip', joinedAt },
    ],
    isComplete: true,
  });
});

test.each([
  [1_000, true],
  [1_001, false],
])('%i people: complete %s', async (count, isComplete) => {
  given({});
  api.present.set(
    'room-42',
    Array.from({ length: count }, (_, each) => person(`p-${each}`)),
  );
  const view = (await get(urls.participants)).json();
  expect(view.participants).toHaveLength(1_000);
  expect(view.isComplete).toBe(isComplete);
});

describe.each(Object.entries(urls))('%s', (_, url) => {
  test.each<readonly [string, Situation, number, string]>([
    ['an unknown room', { room: null, member: null }, 404, 'room_not_found'],
    ['a stranger', { member: null }, 404, 'room_not_found'],
    ['a removed member', { member: { isRemoved: true } }, 404, 'room_not_found'],
    ['somebody banned', { facts: { bans: [{ privilege: 'join', untilMs: null, reason: null }] } }, 403, 'banned'],
    ['a disabled user', { facts: { user: { isDisabled: true } } }, 403, 'user_disabled'],
    ['a login that ended', { facts: { isLoginEnded: true } }, 401, 'unauthenticated'],
    ['a member of a closed room', { room: { state: 'closed' } }, 410, 'room_closed'],
    ['a member in doubt', { facts: { doubt: 'person' } }, 503, 'projection_stale'],
  ])('%s', async (_why, situation, status, code) => {
    given(situation);
    const response = await get(url);
    expect({ status: response.statusCode, code: Problem.parse(response.json()).code }).toEqual({ status, code });
  });

  test.each<readonly [string, Situation]>([
    ['locked', { room: { isLocked: true } }],
    ['not open yet', { room: { opensAtMs: Date.now() + 60_000 } }],
    ['full', { room: { maxParticipants: 1 } }],
  ])('is seen by members while it is %s', async (_why, situation) => {
    given(situation);
    expect((await get(url)).statusCode).toBe(200);
  });

  test('401, 405, 422 and 503 as elsewhere', async () => {
    given({});
    expect((await get(url, '')).statusCode).toBe(401);
    for (const method of ['POST', 'HEAD', 'DELETE'] as const) {
      const response = await api.app.inject({ method, url, headers: { authorization: bearer } });
      expect([response.statusCode, response.headers.allow]).toEqual([405, 'GET']);
    }
    expect((await get(url.replace('room-42', 'x'.repeat(257)))).statusCode).toBe(422);
    api.freshness.isCurrent = false;
    expect((await get(url)).statusCode).toBe(503);
    api.freshness.isCurrent = true;
    api.freshness.outdatedPeople = ['u-7'];
    expect((await get(url)).statusCode).toBe(503);
    api.freshness.outdatedPeople = [];
    api.failing.store = true;
    expect((await get(url)).statusCode).toBe(503);
  });
});
