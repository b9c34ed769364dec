import { once } from 'node:events';
import { createConnection } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';
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
