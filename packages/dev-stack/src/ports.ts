import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { errorCode } from './error-code.ts';

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
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port between ${lowestPort} and ${lowestPort + portCount}`);
}

async function isFree(port: number): Promise<boolean> {
  return (await bindFailure(port, 'tcp')) === undefined && (await bindFailure(port, 'udp')) === undefined;
}

/** The system's code for why a port of 127.0.0.1 cannot be had now; undefined where it can. */
export async function bindFailure(port: number, protocol: 'tcp' | 'udp'): Promise<string | undefined> {
  const socket =
    protocol === 'udp' ? createSocket('udp4').bind(port, '127.0.0.1') : createServer().listen(port, '127.0.0.1');
  try {
    await once(socket, 'listening');
    return undefined;
  } catch (error) {
    const code = errorCode(error);
    if (code === undefined) throw error;
    return code;
  } finally {
    socket.close();
  }
}
