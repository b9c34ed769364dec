import { once } from 'node:events';
import { createServer, type IncomingMessage, request } from 'node:http';
import type { AddressInfo } from 'node:net';

/** `refused`: answered with 503, and LiveKit hears nothing. `cut`: LiveKit does it, and nobody hears its answer. */
export type CallFault = 'refused' | 'cut';

/** Stands before LiveKit's API. */
export interface RoomServiceProxy {
  readonly url: string;
  /** LiveKit's port; to be told before the first call. */
  targetPort: number;
  /** What each call meets, by its method; a promise holds the call until then. */
  faultOf: (method: string) => CallFault | undefined | Promise<CallFault | undefined>;
  readonly stop: () => void;
}

export const startRoomServiceProxy = async (): Promise<RoomServiceProxy> => {
  const server = createServer(async (asked, answer) => {
    const { method, url = '', headers } = asked;
    const fault = await proxy.faultOf(url.slice(url.lastIndexOf('/') + 1));
    if (fault === 'refused') {
      asked.resume();
      answer.writeHead(503).end('{"code":"unavailable"}');
      return;
    }
    const give = (given: IncomingMessage): void => {
      if (fault === 'cut') {
        given.resume();
        given.once('end', () => asked.socket.resetAndDestroy());
        return;
      }
      answer.writeHead(given.statusCode ?? 502, given.headers);
      given.pipe(answer);
    };
    const passed = request({ host: '127.0.0.1', port: proxy.targetPort, method, path: url, headers }, give);
    passed.on('error', () => answer.writeHead(502).end());
    asked.pipe(passed);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy: RoomServiceProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    targetPort: 0,
    faultOf: () => undefined,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
  return proxy;
};
