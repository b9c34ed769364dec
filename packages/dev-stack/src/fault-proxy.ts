import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { freePort } from './ports.ts';

/** Stands between a client and a part, so that a test can take away the network between them. */
export interface FaultProxy {
  /** The port that clients connect to, the same after `heal`. */
  readonly port: number;
  /** Breaks every connection and refuses new ones. */
  cut(): Promise<void>;
  /** Keeps connections and accepts new ones, and passes nothing in either direction. */
  stall(): void;
  /** Passes what clients ask, and no answers. */
  mute(): void;
  /** Passes everything again; what waited while stalled arrives first. */
  heal(): Promise<void>;
  stop(): Promise<void>;
}

export async function startFaultProxy(targetPort: number): Promise<FaultProxy> {
  const pairs = new Set<readonly [Socket, Socket]>();
  let isStalled = false;
  let isMuted = false;

  const server = createServer({ allowHalfOpen: true }, (client) => {
    const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true });
    const pair = [client, target] as const;
    pairs.add(pair);
    for (const [from, to] of [pair, [target, client]] as const) {
      from.setNoDelay(true);
      // `pipe` waits where the reader is slow; a broken end breaks the other.
      from.on('error', () => undefined);
      from.once('close', () => {
        pairs.delete(pair);
        to.destroy();
      });
    }
    if (!isStalled) join(pair);
    if (isMuted) mute(pair);
  });

  async function cut(): Promise<void> {
    const closed = close(server);
    for (const [client, target] of pairs) {
      client.resetAndDestroy();
      target.resetAndDestroy();
    }
    await closed;
  }

  const port = await freePort();
  await listen(server, port);
  return {
    port,
    cut,
    stall: () => {
      isStalled = true;
      for (const pair of pairs) part(pair);
    },
    mute: () => {
      isMuted = true;
      for (const pair of pairs) mute(pair);
    },
    heal: async () => {
      isStalled = false;
      isMuted = false;
      for (const pair of pairs) {
        part(pair);
        join(pair);
      }
      if (!server.listening) await listen(server, port);
    },
    stop: cut,
  };
}

function join([client, target]: readonly [Socket, Socket]): void {
  client.pipe(target);
  target.pipe(client);
}

function part([client, target]: readonly [Socket, Socket]): void {
  client.unpipe(target);
  target.unpipe(client);
}

function mute([client, target]: readonly [Socket, Socket]): void {
  target.unpipe(client);
}

async function listen(server: Server, port: number): Promise<void> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return;
  server.close();
  await once(server, 'close');
}
