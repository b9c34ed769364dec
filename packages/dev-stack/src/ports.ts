import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';

// Below the ranges from which operating systems take the ports of outgoing connections. There, a part that is down for
// a moment could find its port taken when it comes back, and a client could connect to itself.
const portCount = 4_000;
/** Test files that run at the same time choose from ranges of their own. */
const lowestPort = 20_000 + portCount * (Number(process.env['VITEST_POOL_ID'] ?? 0) % 3);

const given = new Set<number>();

/** Keeps ports for those who were promised them, and do not listen yet. */
export function reservePorts(ports: readonly number[]): void {
  for (const port of ports) given.add(port);
}

/**
 * A port of 127.0.0.1 that is free for TCP and UDP now, and likely to stay free while its owner is restarted. This
 * process is never given one twice, though nothing may listen there yet.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = lowestPort + Math.floor(Math.random() * portCount);
    if (given.has(port)) continue;
    given.add(port);
    if ((await isTcpPortFree(port)) && (await isUdpPortFree(port))) return port;
  }
  throw new Error(`no free port between ${lowestPort} and ${lowestPort + portCount}`);
}

async function isTcpPortFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    server.close();
    await once(server, 'close');
    return true;
  } catch {
    return false;
  }
}

async function isUdpPortFree(port: number): Promise<boolean> {
  const socket = createSocket('udp4');
  try {
    socket.bind(port, '127.0.0.1');
    await once(socket, 'listening');
    return true;
  } catch {
    return false;
  } finally {
    socket.close();
  }
}
