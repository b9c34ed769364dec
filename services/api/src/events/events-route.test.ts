import { decodeAtLeast, EventsAccepted, Problem, readRecord, readRoomEvent, topics } from '@realtime-service/contracts';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startTestApi, type TestApi } from '../../test/test-api.ts';

let api: TestApi;
let publisher: string;
let operator: string;
let person: string;
beforeAll(async () => {
  api = await startTestApi({ RATE_LIMIT_PRODUCER_PER_MINUTE: '100000' });
  const bearer = async (scope?: string) =>
    `Bearer ${await api.token({ sub: 'service-1', ...(scope !== undefined && { scope }) })}`;
  [publisher, operator, person] = await Promise.all([
    bearer('profile realtime:publish'),
    bearer('realtime:ops'),
    bearer(),
  ]);
});
afterAll(() => api.close());
beforeEach(() => {
  api.appended.length = 0;
  api.failing.log = false;
});

const structured = 'application/cloudevents+json';
const batch = 'application/cloudevents-batch+json';

const event = (changes: Record<string, unknown> = {}) => ({
  specversion: '1.0',
  id: 'e-1',
  source: '/services/rooms',
  type: 'member.added',
  subject: 'room-42',
  time: '2026-03-01T12:00:00Z',
  data: { userId: 'u-7', role: 'speaker' },
  ...changes,
});

const publish = (
  type: string,
  payload: unknown,
  { authorization = publisher, headers = {} }: { authorization?: string; headers?: Record<string, string> } = {},
) =>
  api.app.inject({
    method: 'POST',
    url: '/api/realtime/events',
    headers: { authorization, ...(payload !== undefined && { 'content-type': type }), ...headers },
    ...(payload !== undefined && { payload: typeof payload === 'string' ? payload : JSON.stringify(payload) }),
  });

const binaryHeaders = (changes: Record<string, string> = {}) => ({
  'ce-specversion': '1.0',
  'ce-id': 'e-1',
  'ce-source': '/services/rooms',
  'ce-type': 'member.added',
  'ce-subject': 'room-42',
  ...changes,
});

/** What the room-worker will read. */
const appended = () =>
  api.appended.map(({ topic, key, value, headers }) => {
    const bytes = Object.fromEntries(Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)]));
    const reading = readRecord({ value, headers: bytes });
    if (reading.kind !== 'event') throw new Error(reading.kind);
    expect(readRoomEvent(reading.event).kind).toBe('event');
    return { topic, key, ...reading.event };
  });

describe('202', () => {
  test('structured', async () => {
    const response = await publish(structured, event());
    expect(response.statusCode).toBe(202);
    const { accepted, at_least: atLeast } = EventsAccepted.parse(response.json());
    expect(accepted).toBe(1);
    expect(decodeAtLeast(atLeast)).toEqual([{ topic: topics.roomEvents, partition: 3, offset: 0n }]);
    expect(appended()).toEqual([
      {
        topic: topics.roomEvents,
        key: 'room-42',
        context: expect.objectContaining({
          id: 'e-1',
          source: '/services/rooms',
          type: 'member.added',
          subject: 'room-42',
          time: '2026-03-01T12:00:00Z',
        }),
        data: { userId: 'u-7', role: 'speaker' },
      },
    ]);
  });

  test.each([`${structured}; charset=utf-8`, 'Application/CloudEvents+JSON'])('structured as %s', async (type) => {
    expect((await publish(type, event())).statusCode).toBe(202);
  });

  test('batch, in its order', async () => {
    const events = Array.from({ length: 1_000 }, (_, n) => event({ id: `e-${n}`, subject: `room-${n % 7}` }));
    const response = await publish(batch, events);
    expect(response.json()).toMatchObject({ accepted: 1_000 });
    expect(appended().map(({ key, context }) => [key, context.id])).toEqual(
      events.map(({ subject, id }) => [subject, id]),
    );
  });

  test('binary', async () => {
    const response = await publish('application/json', { userId: 'u-7', role: 'host' }, { headers: binaryHeaders() });
    expect(response.statusCode).toBe(202);
    expect(appended()).toMatchObject([
      { key: 'room-42', context: { id: 'e-1' }, data: { userId: 'u-7', role: 'host' } },
    ]);
  });

  test('binary without data', async () => {
    expect((await publish('', undefined, { headers: binaryHeaders({ 'ce-type': 'room.locked' }) })).statusCode).toBe(
      202,
    );
    expect(appended()).toMatchObject([{ context: { type: 'room.locked' }, data: {} }]);
  });

  test('binary with an id that is not ASCII', async () => {
    await publish(
      'application/json',
      { userId: 'u-7', role: 'host' },
      { headers: binaryHeaders({ 'ce-subject': 'caf%C3%A9%2F%F0%9F%8E%A5' }) },
    );
    expect(appended()).toMatchObject([{ key: 'caf\u00e9/\u{1f3a5}', context: { subject: 'caf\u00e9/\u{1f3a5}' } }]);
  });

  test('fields of newer producers are passed on', async () => {
    await publish(structured, event({ data: { userId: 'u-7', role: 'speaker', zzFuture: { a: [1] } } }));
    expect(appended()).toMatchObject([{ data: { zzFuture: { a: [1] } } }]);
  });

  test.each([structured, `${structured}; charset=utf-8`, 'Application/CloudEvents+JSON'])(
    'data that are an event themselves do not pass for the event, whose scope was asked for: %s',
    async (datacontenttype) => {
      const within = event({ type: 'dead_letter.discarded', data: { topic: 't', partition: 0, offset: '7' } });
      const data = { ...within, userId: 'u-7', role: 'speaker' };
      expect((await publish(structured, event({ datacontenttype, data }))).statusCode).toBe(202);
      expect((await publish(batch, [event({ datacontenttype, data })])).statusCode).toBe(202);
      const asAsked = { context: { type: 'member.added' }, data };
      expect(appended()).toMatchObject([asAsked, asAsked]);
    },
  );

  test('the origin of the trace is kept', async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    await publish(structured, event({ traceparent }));
    expect(appended()).toMatchObject([{ context: { traceparent } }]);
  });

  test('facts about a user are keyed by the user', async () => {
    await publish(structured, event({ type: 'user.disabled', subject: 'u-7', data: { userId: 'u-7' } }));
    expect(appended()).toMatchObject([{ key: 'u-7' }]);
  });

  test.each([
    ['dead_letter.discarded', { topic: topics.roomEvents, partition: 0, offset: '7' }],
    ['participant.kick_requested', { participantSid: 'PA_1', identity: 'u-7', by: 'u-1' }],
  ])('%s by an operator', async (type, data) => {
    expect((await publish(structured, event({ type, data }), { authorization: operator })).statusCode).toBe(202);
  });
});

test('401 without a token', async () => {
  const response = await api.app.inject({
    method: 'POST',
    url: '/api/realtime/events',
    headers: { 'content-type': structured },
    payload: '{',
  });
  expect(response.statusCode).toBe(401);
});

test('403 without the scope, before the body is read', async () => {
  const response = await publish(structured, '{', { authorization: person });
  expect(response.statusCode).toBe(403);
  expect(response.json()).toMatchObject({ code: 'forbidden' });
});

test('a scope is a word of its own', async () => {
  const token = await api.token({ scope: 'realtime:publishing xrealtime:publish' });
  expect((await publish(structured, event(), { authorization: `Bearer ${token}` })).statusCode).toBe(403);
});

describe('422: all or nothing', () => {
  const faultsOf = async (response: ReturnType<typeof publish>) => {
    const { statusCode, json } = await response;
    expect(statusCode).toBe(422);
    expect(api.appended).toEqual([]);
    return Problem.parse(json()).errors?.map(({ path }) => path);
  };

  test('each bad event of a batch is named by index and path', async () => {
    const events = [
      event(),
      event({ id: 'e-2', data: { userId: 'u-7', role: 'king' } }),
      event({ id: 'e-3', type: 'member.promoted' }),
      event({ id: '', source: undefined }),
      'nothing',
      event({ id: 'e-6', type: 'user.disabled', subject: 'u-8', data: { userId: 'u-7' } }),
    ];
    expect(await faultsOf(publish(batch, events))).toEqual([
      '/1/data/role',
      '/2/type',
      '/3/id',
      '/3/source',
      '/4',
      '/5/subject',
    ]);
  });

  test('a whole event under the content type of any JSON is told which one it needs', async () => {
    const response = await publish('application/json', event());
    expect(await faultsOf(Promise.resolve(response))).toEqual(['/specversion']);
    expect(response.body).toContain(structured);
  });

  test.each(['participant.kick_requested', 'track.mute_requested', 'dead_letter.retried', 'dead_letter.discarded'])(
    '%s by a publisher',
    async (type) => {
      const data = {
        topic: topics.roomEvents,
        partition: 0,
        offset: '7',
        participantSid: 'PA_1',
        trackSid: 'TR_1',
        identity: 'u-7',
        by: 'u-1',
      };
      expect(await faultsOf(publish(structured, event({ type, data })))).toEqual(['/type']);
    },
  );

  test('a fact about a member by an operator', async () => {
    expect(await faultsOf(publish(structured, event(), { authorization: operator }))).toEqual(['/type']);
  });
});

test.each([
  ['a body above 1 MiB', 1_100_000],
  ['an event that no record of the log holds', 1_020_000],
])('413: %s', async (_name, size) => {
  const response = await publish(
    structured,
    event({ data: { userId: 'u-7', role: 'speaker', zzFuture: 'x'.repeat(size) } }),
  );
  expect(response.statusCode).toBe(413);
  expect(response.json()).toMatchObject({ code: 'body_too_large' });
  expect(api.appended).toEqual([]);
});

test('503 while the log is away: the producer sends the same again', async () => {
  api.failing.log = true;
  const response = await publish(structured, event());
  expect(response.json()).toMatchObject({ status: 503, code: 'store_unavailable' });
  expect(response.headers['retry-after']).toBe('1');
});

test('429: producers have a limit of their own, apart from the one of joins', async () => {
  const strict = await startTestApi({ RATE_LIMIT_USER_PER_MINUTE: '1', RATE_LIMIT_PRODUCER_PER_MINUTE: '3' });
  try {
    const authorization = `Bearer ${await strict.token({ sub: 'service-1', scope: 'realtime:publish' })}`;
    const ask = async () =>
      strict.app.inject({
        method: 'POST',
        url: '/api/realtime/events',
        headers: { authorization, 'content-type': structured },
        payload: JSON.stringify(event()),
      });
    for (let n = 0; n < 3; n += 1) expect((await ask()).statusCode).toBe(202);
    expect((await ask()).statusCode).toBe(429);
    const joined = await strict.app.inject({
      method: 'POST',
      url: '/api/realtime/rooms/r/join',
      headers: { authorization },
    });
    expect(joined.statusCode).toBe(404);
  } finally {
    await strict.close();
  }
});
