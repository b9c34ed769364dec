import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts';

describe('a fault proxy', () => {
  let echo: Server;
  let proxy: FaultProxy;

  beforeEach(async () => {
    echo = createServer((socket) => socket.pipe(socket).on('error', () => undefined)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
    const address = echo.address();
    proxy = await startFaultProxy(typeof address === 'object' && address !== null ? address.port : 0);
  });
  afterEach(async () => {
    await proxy.stop();
    echo.close();
  });

  test('passes bytes in both directions, and the end of the stream', async () => {
    const client = await connectTo(proxy.port);
    client.end('hello');
    client.setEncoding('utf8');
    expect((await client.toArray()).join('')).toBe('hello');
  });

  test('breaks what is connected and refuses what comes when it is cut', async () => {
    const client = await connectTo(proxy.port);
    const broken = once(client, 'error');
    await proxy.cut();
    expect((await broken)[0]).toMatchObject({ code: 'ECONNRESET' });
    await expect(connectTo(proxy.port)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  test('accepts and passes nothing while it is stalled, old connections and new ones alike', async () => {
    const old = await connectTo(proxy.port);
    old.write('before');
    expect(await received(old)).toBe('before');

    proxy.stall();
    const fresh = await connectTo(proxy.port);
    const answers = [old, fresh].map((socket) => {
      socket.write('while stalled');
      return received(socket);
    });
    expect(await Promise.race([...answers, delay(100, 'nothing')])).toBe('nothing');

    await proxy.heal();
    expect(await Promise.all(answers)).toEqual(['while stalled', 'while stalled']);
    old.destroy();
    fresh.destroy();
  });

  test('passes what clients ask and no answers while it is muted, and those when it has healed', async () => {
    const old = await connectTo(proxy.port);
    const asked = new Promise<string>((resolve) => {
      echo.on('connection', (socket) => socket.once('data', (bytes) => resolve(String(bytes))));
    });
    proxy.mute();
    const fresh = await connectTo(proxy.port);
    const answers = [old, fresh].map((socket) => {
      socket.write('while muted');
      return received(socket);
    });
    expect(await asked).toBe('while muted');
    expect(await Promise.race([...answers, delay(100, 'nothing')])).toBe('nothing');

    await proxy.heal();
    expect(await Promise.all(answers)).toEqual(['while muted', 'while muted']);
    old.destroy();
    fresh.destroy();
  });

  test('serves at the same port after it has healed', async () => {
    const { port } = proxy;
    await proxy.cut();
    await proxy.heal();
    const client = await connectTo(port);
    client.write('again');
    expect(await received(client)).toBe('again');
    client.destroy();
  });

  test('has a port that nobody is given while it is cut', () => {
    // From here on, or from higher, systems take the ports of outgoing connections and of whoever names none.
    expect(proxy.port).toBeLessThan(32_768);
  });

  test('closes the client when the target closes', async () => {
    const [[target], client] = await Promise.all([once(echo, 'connection'), connectTo(proxy.port)]);
    const closed = once(client, 'close');
    target.destroy();
    await closed;
  });
});

async function connectTo(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' });
  await once(socket, 'connect');
  return socket;
}

async function received(socket: Socket): Promise<string> {
  const [bytes] = await once(socket, 'data');
  return String(bytes);
}
