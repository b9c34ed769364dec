import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { listening } from '../test/listening.ts';
import { createRoomService, type RoomService } from './index.ts';

const options = { emptyTimeoutSeconds: 60, departureTimeoutSeconds: 60 };

let server: Server;
let rooms: RoomService;
/** What is answered, by the method. */
let answers: Readonly<Record<string, unknown>>;
let status: number;
let headers: Readonly<Record<string, string>>;
let send: (response: ServerResponse, answer: string) => void;
let tokens: string[];

beforeEach(async () => {
  answers = {};
  status = 200;
  headers = {};
  send = (response, answer) => response.end(answer);
  tokens = [];
  server = createServer((request, response) => {
    tokens.push(request.headers.authorization ?? '');
    const method = request.url?.split('/').at(-1) ?? '';
    const answer = JSON.stringify(method in answers ? answers[method] : {});
    request.resume().on('end', () => send(response.writeHead(status, headers), answer));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const apiUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const key = { apiKey: 'key', secret: 'secret-of-no-value-outside-this-test' };
  rooms = createRoomService({ apiUrl, key, timeoutMs: 2_500 });
});
afterEach(async () => {
  vi.useRealTimers();
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

test('a token that names no room serves for half a minute, and not before it is valid', async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: 1_700_000_000_000 });
  const notBefore = async (afterSeconds: number): Promise<number> => {
    vi.setSystemTime(Date.now() + afterSeconds * 1_000);
    await rooms.createRoom('room-42', options);
    const payload = tokens.at(-1)?.split('.')[1] ?? '';
    return JSON.parse(Buffer.from(payload, 'base64url').toString()).nbf - 1_700_000_000;
  };
  expect(await notBefore(0)).toBe(0);
  expect(await notBefore(29)).toBe(0);
  expect(await notBefore(1)).toBe(30);
  // A clock that was ahead is put right.
  expect(await notBefore(-10)).toBe(20);
  expect(await notBefore(29)).toBe(20);
});

describe('an answer with 200 that is none of its own', () => {
  const room = { sid: 'RM_1', name: 'room-42' };
  const calls: readonly (readonly [string, () => Promise<unknown>])[] = [
    ['ListRooms', () => rooms.listRooms()],
    ['ListParticipants', () => rooms.listParticipants('room-42')],
    ['ListParticipants', () => rooms.listSids(room)],
    ['GetParticipant', () => rooms.getParticipant('room-42', 'ann')],
    ['DeleteRoom', () => rooms.deleteRoom('room-42')],
    ['RemoveParticipant', () => rooms.removeParticipant('room-42', 'ann')],
    ['UpdateParticipant', () => rooms.setPermission('room-42', 'ann', listening)],
    ['MutePublishedTrack', () => rooms.muteTrack('room-42', 'ann', 'TR_1')],
    ['SendData', () => rooms.sendData('room-42', { topic: 'news', text: 'to all' })],
  ];

  test.each(calls)('to %s passes as an outage does', async (method, call) => {
    for (const answer of [{ message: 'maintenance' }, [], null, 'maintenance']) {
      answers = { ListRooms: { rooms: [room] }, [method]: answer };
      await expect(call(), JSON.stringify(answer)).rejects.toMatchObject({
        name: 'LivekitError',
        kind: 'unavailable',
        message: `LiveKit answered ${method} with 200`,
      });
    }
  });
});

test.each<[string, typeof send]>([
  ['breaks off', (response) => response.write('{"rooms":', () => response.destroy())],
  ['never ends', (response) => response.write('{"rooms":')],
])('an answer that %s is none', async (_, sendPart) => {
  send = sendPart;
  await expect(rooms.listRooms()).rejects.toMatchObject({ kind: 'unavailable' });
});

test.each([
  [302, 'unavailable'],
  [400, 'refused'],
  [401, 'unauthorised'],
  [403, 'unauthorised'],
  [404, 'refused'],
  [429, 'unavailable'],
  [503, 'unavailable'],
])('an answer with %i is told as %s', async (answered, kind) => {
  status = answered;
  await expect(rooms.removeParticipant('room-42', 'ann')).rejects.toMatchObject({ kind, retryAfterMs: null });
});

test.each([
  ['2', 2_000],
  ['3600', 60_000],
  [new Date(Date.now() + 3_600_000).toUTCString(), 60_000],
  ['Wed, 21 Oct 2015 07:28:00 GMT', 0],
  ['soon', null],
])('to come again after "%s" means in %s ms', async (after, retryAfterMs) => {
  status = 503;
  headers = { 'retry-after': after };
  await expect(rooms.listRooms()).rejects.toMatchObject({ retryAfterMs });
});

test('a list of rooms is never "not found"', async () => {
  answers = { ListRooms: { code: 'not_found', msg: 'requested room does not exist' } };
  status = 404;
  await expect(rooms.listRooms()).rejects.toMatchObject({ kind: 'unavailable' });
});

test.each([
  ['getParticipant', () => rooms.getParticipant('room-42', 'ann')],
  ['listParticipants', async () => (await rooms.listParticipants('room-42'))[0]],
  ['listSids', async () => (await rooms.listSids({ sid: 'RM_1', name: 'room-42' }))[0]],
] as const)('what arrives in a track is read by the name that servers write: %s', async (_, read) => {
  const track = { type: 'VIDEO', source: 'CAMERA' };
  const ann = { sid: 'PA_1', identity: 'ann', tracks: [{ ...track, sid: 'TR_1', mime_type: 'audio/opus' }] };
  const ListRooms = { rooms: [{ sid: 'RM_1', name: 'room-42' }] };
  answers = { ListRooms, ListParticipants: { participants: [ann] }, GetParticipant: ann };
  expect((await read())?.tracks).toMatchObject([{ ...track, mimeType: 'audio/opus' }]);
});

describe('in a list, a name that nothing of ours can have', () => {
  const odd = ['a\0b', '', 'x'.repeat(600)];

  test('hides no other room', async () => {
    answers = { ListRooms: { rooms: [...odd, 'room-42'].map((name, at) => ({ sid: `RM_${at}`, name })) } };
    expect((await rooms.listRooms()).map(({ name }) => name)).toEqual(['room-42']);
  });

  test.each([
    ['listParticipants', () => rooms.listParticipants('room-42')],
    ['listSids', () => rooms.listSids({ sid: 'RM_1', name: 'room-42' })],
  ] as const)('hides nobody else: %s', async (_, list) => {
    const participants = [...odd, 'ann'].map((identity, at) => ({ sid: `PA_${at}`, identity }));
    answers = { ListRooms: { rooms: [{ sid: 'RM_1', name: 'room-42' }] }, ListParticipants: { participants } };
    expect((await list()).map(({ identity }) => identity)).toEqual(['ann']);
  });

  test.each([
    ['ListRooms', { rooms: [{ sid: '', name: 'room-42' }] }],
    ['ListRooms', { rooms: [{ sid: 'RM_1' }] }],
    ['ListParticipants', { participants: [{ sid: '', identity: 'ann' }] }],
    ['ListParticipants', { participants: [{ sid: 'PA_1' }] }],
  ])('is all that is left out, lest somebody look absent: %s %j', async (method, answer) => {
    answers = { ListRooms: { rooms: [{ sid: 'RM_1', name: 'room-42' }] }, [method]: answer };
    await expect(rooms.listParticipants('room-42')).rejects.toMatchObject({ kind: 'unavailable' });
  });
});
