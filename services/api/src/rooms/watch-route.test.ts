import { once } from 'node:events';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { Problem, RoomSight } from '@realtime-service/contracts';
import type { PresentPerson } from '@realtime-service/room-store';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { now } from '../../test/identity-provider.ts';
import { at, type Situation, startTestApi, type TestApi } from '../../test/test-api.ts';

let api: TestApi;
let url: string;
let bearer: string;
beforeEach(async () => {
  api = await startTestApi({ RATE_LIMIT_USER_PER_MINUTE: '100000', LOGIN_MAX_SECONDS: '3600' });
  bearer = `Bearer ${await api.token()}`;
  url = `${await api.app.listen({ port: 0, host: '127.0.0.1' })}/api/realtime/rooms/room-42/events`;
});
afterEach(async () => {
  api.app.server.closeAllConnections();
  await api.close();
});

const given = (situation: Situation = {}): void => void api.situations.set(at('room-42'), situation);
const person = (identity: string): PresentPerson => ({
  identity,
  participantSid: `PA_${identity}`,
  userId: identity,
  joinedAtMs: 1_000,
  member: null,
});

interface Event {
  readonly id: string | undefined;
  readonly event: string | undefined;
  readonly data: unknown;
}
/** A stream, event by event; comments are left out. */
const watch = async (headers: Readonly<Record<string, string>> = {}, from = url) => {
  const leaving = new AbortController();
  const { signal } = leaving;
  const response = await fetch(from, { headers: { authorization: bearer, ...headers }, signal });
  const reader = response.ok ? response.body?.pipeThrough(new TextDecoderStream()).getReader() : undefined;
  let text = '';
  /** Undefined at the end. */
  const next = async (): Promise<Event | undefined> => {
    for (;;) {
      const end = text.indexOf('\n\n');
      if (end >= 0) {
        const block = text.slice(0, end);
        text = text.slice(end + 2);
        const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1];
        const data = field('data');
        if (data !== undefined) return { id: field('id'), event: field('event'), data: JSON.parse(data) };
        continue;
      }
      const chunk = await reader?.read();
      if (chunk === undefined || chunk.done) return undefined;
      text += chunk.value;
    }
  };
  return { response, next, leave: () => leaving.abort() };
};

test('tells the whole room at once, and again whenever something has changed', async () => {
  given({ room: { name: 'Standup' } });
  const { response, next, leave } = await watch();
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  const first = await next();
  expect(first).toMatchObject({ event: 'room', id: expect.stringMatching(/^[\w-]{22}$/) });
  expect(RoomSight.parse(first?.data)).toMatchObject({ room: { name: 'Standup', isLocked: false }, participants: [] });
  api.present.set('room-42', [person('tom')]);
  const second = await next();
  expect(RoomSight.parse(second?.data)).toMatchObject({ participants: [{ identity: 'tom' }], isComplete: true });
  given({ room: { name: 'Standup', isLocked: true } });
  const third = await next();
  expect(RoomSight.parse(third?.data)).toMatchObject({ room: { isLocked: true } });
  expect(new Set([first?.id, second?.id, third?.id]).size).toBe(3);
  leave();
});

test('sends nothing to whoever comes again with the newest id, until something changes', async () => {
  given();
  const before = await watch();
  const newest = (await before.next())?.id ?? '';
  before.leave();
  const { next, leave } = await watch({ 'last-event-id': newest });
  api.present.set('room-42', [person('tom')]);
  expect(RoomSight.parse((await next())?.data)).toMatchObject({ participants: [{ identity: 'tom' }] });
  leave();
  const behind = await watch({ 'last-event-id': newest });
  expect(RoomSight.parse((await behind.next())?.data)).toMatchObject({ participants: [{ identity: 'tom' }] });
  behind.leave();
});

test('writes the people once for all who watch, and again for another version of the room', async () => {
  let written = 0;
  const counted = {
    ...person('tom'),
    get participantSid() {
      written += 1;
      return 'PA_tom';
    },
  };
  api.present.set('room-42', [counted]);
  const reads = vi.spyOn(api.present, 'get');
  const roles = { 'u-7': 'speaker', 'u-8': 'moderator' } as const;
  const setRooms = (room: Situation['room'] = {}): void => {
    for (const [userId, role] of Object.entries(roles))
      api.situations.set(at('room-42', userId), { room, member: { role } });
  };
  setRooms();
  const another = { authorization: `Bearer ${await api.token({ sub: 'u-8' })}` };
  const streams = [await watch(), await watch(), await watch(another)];
  const first = await Promise.all(streams.map(({ next }) => next()));
  expect(first.map((event) => RoomSight.parse(event?.data).room.ownRole)).toEqual(['speaker', 'speaker', 'moderator']);
  expect(first[0]?.id).toBe(first[1]?.id);
  expect(first[0]?.id).not.toBe(first[2]?.id);
  await vi.waitFor(() => expect(reads.mock.calls.length).toBeGreaterThan(10));
  expect(written).toBeLessThanOrEqual(reads.mock.calls.length);
  setRooms({ access: 'authenticated', defaultRole: 'observer' });
  for (const event of await Promise.all(streams.map(({ next }) => next())))
    expect(RoomSight.parse(event?.data)).toMatchObject({
      room: { access: 'authenticated' },
      participants: [{ identity: 'tom', role: 'observer' }],
    });
  for (const { leave } of streams) leave();
});

test.each<readonly [string, Situation, string]>([
  ['a removal', { member: { isRemoved: true } }, 'room_not_found'],
  ['a ban', { facts: { bans: [{ privilege: 'join', untilMs: null, reason: null }] } }, 'banned'],
  ['the end of the login', { facts: { isLoginEnded: true } }, 'unauthenticated'],
  ['the end of the room', { room: { state: 'closed' } }, 'room_closed'],
])('ends with %s', async (_, situation, code) => {
  given();
  const { next } = await watch();
  await next();
  given(situation);
  expect(await next()).toEqual({ id: undefined, event: 'end', data: { code } });
  expect(await next()).toBeUndefined();
});

test.each([
  ['of the token', () => ({ exp: now() + 2 })],
  ['of the login', () => ({ sid: 's', auth_time: now() - 3_598 })],
])('ends with the end %s, also while the database is away', async (_, claims) => {
  given();
  const { next } = await watch({ authorization: `Bearer ${await api.token(claims())}` });
  expect(await next()).toMatchObject({ event: 'room' });
  api.failing.store = true;
  expect(await next()).toBeUndefined();
});

test('outlives a database that is away, and tells then what is new', async () => {
  given();
  const { next, leave } = await watch();
  await next();
  const looks = vi.spyOn(api.failing, 'store', 'get').mockReturnValue(true);
  api.present.set('room-42', [person('tom')]);
  const told = vi.fn();
  const event = next().finally(told);
  await vi.waitFor(() => expect(looks.mock.calls.length).toBeGreaterThan(3));
  expect(told).not.toHaveBeenCalled();
  looks.mockReturnValue(false);
  expect(RoomSight.parse((await event)?.data)).toMatchObject({ participants: [{ identity: 'tom' }] });
  leave();
});

test.each<readonly [string, Situation, number, string]>([
  ['a stranger', { member: null }, 404, 'room_not_found'],
  ['a banned member', { facts: { bans: [{ privilege: 'join', untilMs: null, reason: null }] } }, 403, 'banned'],
  ['a member of a closed room', { room: { state: 'closed' } }, 410, 'room_closed'],
])('%s is refused with a status', async (_, situation, status, code) => {
  given(situation);
  const { response } = await watch();
  expect([response.status, Problem.parse(await response.json()).code]).toEqual([status, code]);
});

test('401, 405, 422 and 503 as elsewhere', async () => {
  given();
  expect((await fetch(url)).status).toBe(401);
  expect((await fetch(url, { method: 'POST', headers: { authorization: bearer } })).headers.get('allow')).toBe('GET');
  const long = url.replace('room-42', 'x'.repeat(257));
  expect((await fetch(long, { headers: { authorization: bearer } })).status).toBe(422);
  api.freshness.isCurrent = false;
  expect((await watch()).response.status).toBe(503);
});

test('there are only so many at once, and fewer of one person; who has left makes room', async () => {
  given();
  api.situations.set(at('room-42', 'u-8'), {});
  const another = { authorization: `Bearer ${await api.token({ sub: 'u-8' })}` };
  const open = [await watch(), await watch()];
  const refused = (await watch()).response;
  expect([refused.status, Problem.parse(await refused.json()).code]).toEqual([429, 'rate_limited']);
  expect(refused.headers.get('retry-after')).toBe('60');
  open.push(await watch(another));
  for (const { next } of open) await next();
  const { response } = await watch(another);
  expect([response.status, Problem.parse(await response.json()).code]).toEqual([503, 'overloaded']);
  open[0]?.leave();
  const again = await vi.waitFor(async () => {
    const stream = await watch();
    if (!stream.response.ok) throw new Error(await stream.response.text());
    return stream;
  });
  for (const { leave } of [...open, again]) leave();
});

test('whoever leaves before the answer has begun takes no place', async () => {
  given();
  const answer = Promise.withResolvers<void>();
  api.facts.answer = answer.promise;
  const leaving = new AbortController();
  const gone = [1, 2].map(() => fetch(url, { headers: { authorization: bearer }, signal: leaving.signal }));
  await vi.waitFor(() => expect(api.facts.asked).toBe(2));
  leaving.abort();
  await Promise.allSettled(gone);
  const connections = promisify(api.app.server.getConnections.bind(api.app.server));
  await vi.waitFor(async () => expect(await connections()).toBe(0));
  answer.resolve();
  for (const { response, leave } of [await watch(), await watch()]) {
    expect(response.status).toBe(200);
    leave();
  }
});

test('nobody is looked at for whoever has left', async () => {
  given();
  api.situations.set(at('room-7'), {});
  const [leaver, stayer] = [await watch(), await watch({}, url.replace('room-42', 'room-7'))];
  await leaver.next();
  leaver.leave();
  const looks = vi.spyOn(api.situations, 'get');
  const looksAt = (roomId: string): number => looks.mock.calls.filter(([asked]) => asked === at(roomId)).length;
  // Whoever stays tells the time: five looks at that room, and none at the other.
  await vi.waitFor(async () => {
    looks.mockClear();
    await vi.waitFor(() => expect(looksAt('room-7')).toBeGreaterThan(4));
    expect(looksAt('room-42')).toBe(0);
  });
  stayer.leave();
});

test('a process that ends, ends its streams', async () => {
  given();
  const { next } = await watch();
  await next();
  const ended = next();
  await api.app.close();
  expect(await ended).toBeUndefined();
});

test('a process that ends opens no stream, for whoever asked before either', async () => {
  given();
  const answer = Promise.withResolvers<void>();
  api.facts.answer = answer.promise;
  const asked = watch();
  await vi.waitFor(() => expect(api.facts.asked).toBe(1));
  const closed = api.app.close();
  await vi.waitFor(() => expect(api.app.server.listening).toBe(false));
  answer.resolve();
  const { response } = await asked;
  expect(response.status).toBe(503);
  expect(response.headers.get('retry-after')).toBe('1');
  expect(Problem.parse(await response.json()).code).toBe('overloaded');
  api.app.server.closeAllConnections();
  await closed;
});

describe('whoever reads slowly', () => {
  /** Takes a kilobyte now and then of an event that no buffer holds. */
  const watchSlowly = async (authorization: string) => {
    given();
    const endless = { role: 'host', displayName: 'x'.repeat(30_000_000), permissions: null, isRemoved: false } as const;
    api.present.set('room-42', [{ ...person('tom'), member: endless }]);
    const { pathname, hostname, port } = new URL(url);
    const socket = connect({ host: hostname, port: Number(port) });
    socket.on('error', () => {});
    socket.write(`GET ${pathname} HTTP/1.1\r\nhost: ${hostname}\r\nauthorization: ${authorization}\r\n\r\n`);
    await once(socket, 'readable');
    const reading = setInterval(() => socket.read(1_024), 50);
    socket.once('close', () => clearInterval(reading));
    return () => socket.destroy();
  };
  const connections = () => promisify(api.app.server.getConnections.bind(api.app.server))();

  test('does not hold up the end of the process', async () => {
    const leave = await watchSlowly(bearer);
    await api.app.close();
    leave();
  });

  test('does not outlive the token', async () => {
    const leave = await watchSlowly(`Bearer ${await api.token({ exp: now() + 2 })}`);
    await vi.waitFor(async () => expect(await connections()).toBe(0), { timeout: 4_000 });
    leave();
  });
});
