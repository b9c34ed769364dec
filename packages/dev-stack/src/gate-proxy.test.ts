import { once } from 'node:events';
import { type AddressInfo, createConnection, createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type GateProxyServer, startGateProxyServer } from './gate-proxy.ts';

let gate: GateProxyServer;
beforeAll(async () => {
  const nowhere = 'http://127.0.0.1:1';
  gate = await startGateProxyServer({ port: 0, apiUrl: nowhere, livekitUrl: nowhere });
});
afterAll(() => gate.stop());

/** What `fetch` would mend is sent as it is. */
async function answerTo(method: string, target: string): Promise<string> {
  const socket = createConnection({ port: gate.port, host: '127.0.0.1' });
  await once(socket, 'connect');
  socket.write(`${method} ${target} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n`);
  return text(socket);
}

test.for([
  ['GET', '/elsewhere', 404],
  ['GET', '//rtc', 404],
  ['GET', '/rtcx', 404],
  ['GET', '/rtc/other', 404],
  ['POST', '/rtc', 404],
  ['GET', '/%zz', 400],
  ['GET', '/rtc', 503],
] as const)('repeats no token in its answer: %s %s is %i', async ([method, path, status]) => {
  const answer = await answerTo(method, `${path}?access_token=a-secret`);
  expect(answer).toMatch(`HTTP/1.1 ${status} `);
  expect(answer).not.toContain('a-secret');
});

const upgrade = [
  'GET /rtc HTTP/1.1',
  'host: gate',
  'connection: upgrade',
  'upgrade: websocket',
  'sec-websocket-version: 13',
  'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
].join('\r\n');

describe('goes on where a client', () => {
  test('goes away while the gate is asked', async () => {
    // Accepts, and never answers.
    const api = createServer().listen(0, '127.0.0.1');
    await once(api, 'listening');
    const apiUrl = `http://127.0.0.1:${(api.address() as AddressInfo).port}`;
    const waiting = await startGateProxyServer({ port: 0, apiUrl, livekitUrl: apiUrl });
    const socket = createConnection({ port: waiting.port, host: '127.0.0.1' });
    socket.write(upgrade);
    const [question] = await once(api, 'connection');
    socket.resetAndDestroy();
    await expect(fetch(`http://127.0.0.1:${waiting.port}/elsewhere`)).resolves.toMatchObject({ status: 404 });
    question.destroy();
    api.close();
    await waiting.stop();
  });

  test('asks for WebSocket while an answer to it is due', async () => {
    const socket = createConnection({ port: gate.port, host: '127.0.0.1' });
    socket.write(`GET /elsewhere HTTP/1.1\r\nhost: gate\r\n\r\n${upgrade}`);
    await once(socket.resume(), 'close');
    expect(await answerTo('GET', '/elsewhere')).toMatch('HTTP/1.1 404 ');
  });
});
