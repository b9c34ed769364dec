import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createRoomService, type RoomService } from './index.ts';

const options = { emptyTimeoutSeconds: 60, departureTimeoutSeconds: 60 };

let server: Server;
let rooms: RoomService;
/** What is answered with 200, by the method. */
let answers: Readonly<Record<string, unknown>>;
let tokens: string[];

beforeEach(async () => {
  answers = {};
  tokens = [];
  server = createServer((request, response) => {
    tokens.push(request.headers.authorization ?? '');
    const method = request.url?.split('/').at(-1) ?? '';
    request.resume().on('end', () => response.end(JSON.stringify(answers[method] ?? {})));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const apiUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const key = { apiKey: 'key', secret: 'secret-of-no-value-outside-this-test' };
  rooms = createRoomService({ apiUrl, key, timeoutMs: 5_000 });
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
