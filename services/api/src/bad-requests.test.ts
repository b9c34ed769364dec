import { Problem } from '@realtime-service/contracts';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { rawRequest, readAnswer } from '../test/raw-request.ts';
import { at, startTestApi, type TestApi } from '../test/test-api.ts';

let api: TestApi;
let authorization: string;
let url: string;
beforeAll(async () => {
  api = await startTestApi({ RATE_LIMIT_USER_PER_MINUTE: '100000' });
  authorization = `Bearer ${await api.token({ scope: 'realtime:publish' })}`;
  for (const room of ['room-42', '..', '.', 'a/b', 'a%2Fb']) api.situations.set(at(room), {});
  url = await api.app.listen({ port: 0, host: '127.0.0.1' });
});
afterAll(() => api.close());
beforeEach(() => {
  api.appended.length = 0;
  api.made.length = 0;
  api.lines.length = 0;
});

type Answer = readonly [status: number, path?: string];
interface Request {
  readonly type?: string | undefined;
  readonly body?: string | Buffer;
  readonly headers?: Record<string, string>;
}

const send = (path: string, { type = 'application/json', body, headers = {} }: Request) =>
  api.app.inject({
    method: 'POST',
    url: path,
    headers: { authorization, ...(type !== '' && body !== undefined && { 'content-type': type }), ...headers },
    ...(body !== undefined && { payload: body }),
  });

/** A refusal that is a problem document, names the fault, and leaves no trace behind. */
const expectRefusal = (answer: { statusCode: number; body: string }, [status, path]: Answer): void => {
  expect({ status: answer.statusCode, body: answer.body }).toMatchObject({ status });
  const problem = Problem.parse(JSON.parse(answer.body));
  expect(problem.status).toBe(status);
  if (path !== undefined) expect(problem.errors?.map((fault) => fault.path)).toContain(path);
  expect(api.appended).toEqual([]);
  expect(api.made).toEqual([]);
  expect(api.lines.join('')).not.toMatch(/"level":"(?:error|fatal)"/);
};

const json = (value: unknown): Request => ({ body: JSON.stringify(value) });
const text = (body: string): Request => ({ body });
const deep = (levels: number): string => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;
const deepList = (levels: number): string => `${'['.repeat(levels)}${']'.repeat(levels)}`;

describe('join: bad bodies', () => {
  const rows: readonly (readonly [string, Request, ...Answer])[] = [
    ['half a document', text('{"room_name":'), 400, ''],
    ['a comma too many', text('{"room_name":"room-42",}'), 400, ''],
    ['a comment', text('{/* */}'), 400, ''],
    ['two documents', text('{} {}'), 400, ''],
    ['NaN', text('{"take_over":NaN}'), 400, ''],
    ['single quotes', text("{'a':1}"), 400, ''],
    ['nothing but blanks', text('   '), 400, ''],
    ['UTF-16', { body: Buffer.from('{"a":1}', 'utf16le') }, 400, ''],
    ['broken UTF-8', { body: Buffer.from('7b226465766963655f6964223a22c3227d', 'hex') }, 400, ''],
    ['half a character in UTF-8', { body: Buffer.from('7b2261223a22eda0bd227d', 'hex') }, 400, ''],
    ['a name twice', text('{"device_id":"a","device_id":"b"}'), 400, ''],
    ['a name twice, spelled in two ways', text('{"device_id":"a","device_\\u0069d":"b"}'), 400, ''],
    ['a name twice, deep inside', text('{"x":[{"y":{"z":1,"z":2}}]}'), 400, ''],
    ['__proto__', text('{"__proto__":{"take_over":true}}'), 400, '/__proto__'],
    ['__proto__, escaped', text('{"\\u005f_proto__":{"take_over":true}}'), 400, '/__proto__'],
    [
      '__proto__ among attributes',
      text('{"participant_attributes":{"__proto__":"a"}}'),
      400,
      '/participant_attributes/__proto__',
    ],
    ['2,000 levels', text(deep(2_000)), 400, '/a'.repeat(64)],
    ['8,000 levels of lists', text(deepList(8_000)), 400, '/0'.repeat(64)],
    ['a list', json([]), 422, ''],
    ['a text', json('room-42'), 422, ''],
    ['a number', json(7), 422, ''],
    ['a room name that is a number', json({ room_name: 42 }), 422, '/room_name'],
    ['an empty room name', json({ room_name: '' }), 422, '/room_name'],
    ['a room name of 257 bytes', json({ room_name: 'x'.repeat(257) }), 422, '/room_name'],
    ['a room name with NUL', json({ room_name: 'a\0' }), 422, '/room_name'],
    ['a room name with half a character', text('{"room_name":"\\ud83c"}'), 422, '/room_name'],
    ['an identity that is a list', json({ participant_identity: ['u-7'] }), 422, '/participant_identity'],
    ['a name of 129 characters', json({ participant_name: 'x'.repeat(129) }), 422, '/participant_name'],
    ['a name with half a character', text('{"participant_name":"\\udfa5"}'), 422, '/participant_name'],
    ['metadata as an object', json({ participant_metadata: { role: 'admin' } }), 422, '/participant_metadata'],
    ['metadata of 2,049 bytes', json({ participant_metadata: 'x'.repeat(2_049) }), 422, '/participant_metadata'],
    [
      'metadata of 2,049 bytes of umlauts',
      json({ participant_metadata: '\u00e4'.repeat(1_025) }),
      422,
      '/participant_metadata',
    ],
    ['attributes as a list', json({ participant_attributes: ['a'] }), 422, '/participant_attributes'],
    ['an attribute that is a number', json({ participant_attributes: { a: 1 } }), 422, '/participant_attributes/a'],
    [
      '17 attributes',
      json({ participant_attributes: Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`a${n}`, ''])) }),
      422,
      '/participant_attributes',
    ],
    [
      'an attribute whose name has a slash and is bad',
      json({ participant_attributes: { 'a/b~c': 1 } }),
      422,
      '/participant_attributes/a~1b~0c',
    ],
    ['a room configuration that is a text', json({ room_config: '{}' }), 422, '/room_config'],
    ['nine agents', json({ room_config: { agents: Array(9).fill({ agent_name: 'a' }) } }), 422, '/room_config/agents'],
    ['an agent without a name', json({ room_config: { agents: [{}] } }), 422, '/room_config/agents/0/agent_name'],
    ['a device with a blank', json({ device_id: 'my phone' }), 422, '/device_id'],
    ['a device with a colon', json({ device_id: 'a:b' }), 422, '/device_id'],
    ['a device of 65 characters', json({ device_id: 'x'.repeat(65) }), 422, '/device_id'],
    ['a device with a line break', json({ device_id: 'phone\n' }), 422, '/device_id'],
    ['taking over by a text', json({ take_over: 'true' }), 422, '/take_over'],
    ['taking over by a number', json({ take_over: 1 }), 422, '/take_over'],
    ['a position that is a number', json({ at_least: 7 }), 422, '/at_least'],
    ['a position in other letters', json({ at_least: 'a+b/c=' }), 422, '/at_least'],
    [
      'a position that is no position',
      json({ at_least: Buffer.from('{"a":1}').toString('base64url') }),
      422,
      '/at_least',
    ],
    [
      'a position of 64 bits and more',
      json({ at_least: Buffer.from('[["t",[[0,"9223372036854775808"]]]]').toString('base64url') }),
      422,
      '/at_least',
    ],
    ['80 KB of attributes', json({ participant_attributes: { a: 'x'.repeat(80_000) } }), 413],
    ['17 KiB', text(`"${'x'.repeat(17_000)}"`), 413],
    ['no content type', { type: '', body: '{}' }, 415],
    ['text/plain', { type: 'text/plain', body: '{}' }, 415],
    ['a form', { type: 'application/x-www-form-urlencoded', body: 'room_name=room-42' }, 415],
    ['an upload', { type: 'multipart/form-data; boundary=x', body: '--x--' }, 415],
    ['CloudEvents', { type: 'application/cloudevents+json', body: '{}' }, 415],
    ['a content type that is none', { type: 'json', body: '{}' }, 415],
    ['a content type with rubbish behind it', { type: 'application/json, text/plain', body: '{}' }, 415],
    ['gzip', { body: '{}', headers: { 'content-encoding': 'gzip' } }, 415],
  ];

  for (const [name, request, ...answer] of rows)
    test(name, async () => {
      expectRefusal(await send('/api/realtime/rooms/room-42/join', request), answer);
    });

  test('null is no body', async () => {
    expect((await send('/api/realtime/rooms/room-42/join', text('null'))).statusCode).toBe(200);
  });
});

describe('C19: join: bad paths', () => {
  const rows: readonly (readonly [string, ...Answer])[] = [
    ['a%00b', 422, '/roomId'],
    ['%00', 422, '/roomId'],
    ['x'.repeat(257), 422, '/roomId'],
    ['%F0%9F%8E%A5'.repeat(65), 422, '/roomId'],
    ['x'.repeat(8_000), 422, '/roomId'],
    ['', 422, '/roomId'],
    ['%E0%A4%A', 400],
    ['%', 400],
    ['%zz', 400],
    ['%C3', 400],
    ['%ED%A0%BD', 400],
    ['%C0%AF', 400],
    ['a/b', 404],
  ];

  for (const [room, ...answer] of rows)
    test(room, async () => {
      expectRefusal(await send(`/api/realtime/rooms/${room}/join`, {}), answer);
    });
});

describe('events: bad bodies', () => {
  const structured = 'application/cloudevents+json';
  const batch = 'application/cloudevents-batch+json';
  const event = {
    specversion: '1.0',
    id: 'e-1',
    source: '/s',
    type: 'member.added',
    subject: 'room-42',
    data: { userId: 'u-7', role: 'host' },
  };
  const one = (changes: Record<string, unknown>): Request => ({
    type: structured,
    body: JSON.stringify({ ...event, ...changes }),
  });
  const many = (value: unknown): Request => ({ type: batch, body: JSON.stringify(value) });
  const headers = {
    'ce-specversion': '1.0',
    'ce-id': 'e-1',
    'ce-source': '/s',
    'ce-type': 'member.added',
    'ce-subject': 'room-42',
  };
  const binary = (changes: Record<string, string>, body = JSON.stringify(event.data)): Request => ({
    body,
    headers: { ...headers, ...changes },
  });

  const rows: readonly (readonly [string, Request, ...Answer])[] = [
    ['half a document', { type: structured, body: '{"id":' }, 400],
    ['a name twice', { type: structured, body: JSON.stringify(event).replace('"id"', '"id":"e-2","id"') }, 400],
    [
      'a name twice in the data',
      { type: structured, body: JSON.stringify(event).replace('"userId"', '"userId":"u-8","userId"') },
      400,
    ],
    [
      '__proto__ in the data',
      { type: structured, body: JSON.stringify(event).replace('"userId"', '"__proto__":{},"userId"') },
      400,
    ],
    ['2,000 levels in the data', { type: structured, body: JSON.stringify(event).replace('"host"', deep(2_000)) }, 400],
    ['400,000 levels', { type: batch, body: deepList(400_000) }, 400],
    ['no body', { type: structured, body: '' }, 422, ''],
    ['a list where one is meant', { type: structured, body: JSON.stringify([event]) }, 422, ''],
    ['one where a list is meant', many(event), 422, ''],
    ['an empty list', many([]), 422, ''],
    ['1,001 events', many(Array(1_001).fill(event)), 422, ''],
    ['a batch of lists', many([[event]]), 422, '/0'],
    ['a batch of nulls', many([null]), 422, '/0'],
    ['another version', one({ specversion: '0.3' }), 422, '/specversion'],
    ['no id', one({ id: undefined }), 422, '/id'],
    ['an id that is a number', one({ id: 1 }), 422, '/id'],
    ['an id of 257 bytes', one({ id: 'x'.repeat(257) }), 422, '/id'],
    ['no source', one({ source: undefined }), 422, '/source'],
    ['no subject', one({ subject: undefined }), 422, '/subject'],
    ['a subject of 257 bytes', one({ subject: 'x'.repeat(257) }), 422, '/subject'],
    ['a subject with NUL', one({ subject: 'a\0' }), 422, '/subject'],
    ['a subject with half a character', one({ subject: '\ud83c' }), 422, '/subject'],
    ['a time without offset', one({ time: '2026-03-01T10:00:00' }), 422, '/time'],
    ['30 February', one({ time: '2026-02-30T00:00:00Z' }), 422, '/time'],
    ['a time that is a number', one({ time: 1_772_359_200_000 }), 422, '/time'],
    ['a sequence that is a number', one({ sequence: 7 }), 422, '/sequence'],
    ['data in base64', one({ data: undefined, data_base64: 'e30=' }), 422, '/data_base64'],
    ['data that are XML', one({ datacontenttype: 'text/xml' }), 422, '/datacontenttype'],
    ['data as a text', one({ data: JSON.stringify(event.data) }), 422, '/data'],
    ['no data', one({ data: undefined }), 422, '/data'],
    ['a type that nobody knows', one({ type: 'member.promoted' }), 422, '/type'],
    ['a type that every object has', one({ type: 'constructor' }), 422, '/type'],
    ['a user id of 192 bytes', one({ data: { userId: 'u'.repeat(192), role: 'host' } }), 422, '/data/userId'],
    ['a user id with NUL', one({ data: { userId: 'u\0', role: 'host' } }), 422, '/data/userId'],
    ['a role that nobody knows', one({ data: { userId: 'u-7', role: 'king' } }), 422, '/data/role'],
    [
      'a person named twice',
      one({
        type: 'room.created',
        data: {
          members: [
            { userId: 'u-7', role: 'host' },
            { userId: 'u-7', role: 'listener' },
          ],
        },
      }),
      422,
      '/data/members/1/userId',
    ],
    ['a subject that is not the user', one({ type: 'user.disabled', data: { userId: 'u-7' } }), 422, '/subject'],
    ['binary without attributes', { body: '{}' }, 422, '/specversion'],
    ['binary with a broken escape', binary({ 'ce-subject': '%E0%A4%A' }), 422, '/subject'],
    ['binary with an id beyond ASCII', binary({ 'ce-id': 'caf\u00e9' }), 422, '/id'],
    ['binary with bad data', binary({}, '{"userId":"u-7"}'), 422, '/data/role'],
    ['binary with a list as data', binary({}, '[]'), 422, '/data'],
    ['text/plain', { type: 'text/plain', body: JSON.stringify(event) }, 415],
    ['Avro', { type: 'application/cloudevents+avro', body: 'x' }, 415],
    ['gzip', { type: structured, body: JSON.stringify(event), headers: { 'content-encoding': 'gzip' } }, 415],
    ['more than 1 MiB', { type: batch, body: `[${' '.repeat(1_048_576)}]` }, 413],
  ];

  for (const [name, request, ...answer] of rows)
    test(name, async () => {
      expectRefusal(await send('/api/realtime/events', request), answer);
    });
});

describe('what no HTTP client would send', () => {
  /** @param line method and target */
  const rawOf = (line: string, more = '', body = ''): string =>
    `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: ${authorization}\r\n${more}\r\n${body}`;
  const post = (target: string, more = '', body = ''): string => rawOf(`POST ${target}`, more, body);

  test.each([
    ['POST /api/realtime/rooms/room-42/join', 200],
    ['POST /api/realtime/nowhere', 404],
    ['DELETE /api/realtime/rooms/room-42/bans/u-9', 422],
  ])('%s, with a type and without any length, is answered', async (line, status) => {
    const answer = await rawRequest(url, rawOf(line, 'Content-Type: application/json\r\n'));
    expect(readAnswer(answer)).toMatchObject({ status });
  });

  test('a method whose body must have a type is refused without one', async () => {
    const { status, body } = readAnswer(await rawRequest(url, rawOf('QUERY /')));
    expectRefusal({ statusCode: status, body }, [415]);
  });

  test.each(['..', '.', '%2e%2e', 'a%2Fb', 'a%252Fb'])('a room called %s is a room', async (room) => {
    const { status, body } = readAnswer(
      await rawRequest(url, post(`/api/realtime/rooms/${room}/join`, 'Content-Length: 0\r\n')),
    );
    expect({ status, body }).toMatchObject({ status: 200 });
    expect(api.made).toEqual([decodeURIComponent(room)]);
  });

  test.each([
    '/api/realtime/rooms/a/../room-42/join',
    '//api/realtime/rooms/room-42/join',
    '/api/realtime/rooms/room-42/join/',
    '/API/realtime/rooms/room-42/join',
    '/%61pi/realtime/rooms/room-42/%6Aoin/..',
  ])('%s leads nowhere else', async (target) => {
    const { status, body } = readAnswer(await rawRequest(url, post(target, 'Content-Length: 0\r\n')));
    expectRefusal({ statusCode: status, body }, [404]);
  });

  test.each([
    ['no request', 'nonsense\r\n\r\n'],
    ['two lengths', post('/api/realtime/events', 'Content-Length: 2\r\nContent-Length: 3\r\n', '{}')],
    [
      'a length and chunks',
      post('/api/realtime/events', 'Content-Length: 2\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
    ],
    ['a path with a broken escape', post('/api/realtime/rooms/%E0%A4%A/join', 'Content-Length: 2\r\n', '{}')],
    ['a header with a blank in its name', post('/api/realtime/events', 'X Y: z\r\n')],
    ['a header with NUL', post('/api/realtime/events', 'X-Y: a\0b\r\n')],
  ])('%s', async (_name, bytes) => {
    const { status, body } = readAnswer(await rawRequest(url, bytes));
    expectRefusal({ statusCode: status, body }, [400]);
  });

  test('an event whose subject came twice is about no room that anybody meant', async () => {
    const attributes = ['specversion: 1.0', 'id: 1', 'source: /s', 'type: room.locked', 'subject: a', 'Subject: b'];
    const headers = attributes.map((attribute) => `ce-${attribute}\r\n`).join('');
    const { status, body } = readAnswer(await rawRequest(url, post('/api/realtime/events', headers)));
    expectRefusal({ statusCode: status, body }, [422, '/subject']);
  });

  test('chunks are a body like any other', async () => {
    const chunked = 'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n';
    const good = readAnswer(
      await rawRequest(url, post('/api/realtime/rooms/room-42/join', chunked, '2\r\n{}\r\n0\r\n\r\n')),
    );
    expect(good.status).toBe(200);
    api.made.length = 0;
    const { status, body } = readAnswer(
      await rawRequest(url, post('/api/realtime/rooms/room-42/join', chunked, '1\r\n{\r\n0\r\n\r\n')),
    );
    expectRefusal({ statusCode: status, body }, [400]);
  });
});
