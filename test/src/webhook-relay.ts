import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Passes LiveKit's webhooks on, or not: dark as a host that is gone, lossy as one that loses what it has accepted. */
export interface WebhookRelay {
  mode: 'pass' | 'dark' | 'lossy';
  /** How many were accepted and not passed on. */
  lost: number;
  readonly through: (intakeUrl: string) => Promise<string>;
  readonly stop: () => Promise<void>;
}

/** Where it is lossy, so many of ten are lost. */
export const createWebhookRelay = (lostOfTen: number): WebhookRelay => {
  let server: Server | undefined;
  let count = 0;
  const relay: WebhookRelay = {
    mode: 'pass',
    lost: 0,
    through: async (intakeUrl) => {
      server = createServer((request, response) => {
        const pass = async (): Promise<void> => {
          const chunks = await request.toArray();
          count += 1;
          if (relay.mode === 'dark') return void request.socket.destroy();
          if (relay.mode === 'lossy' && count % 10 < lostOfTen) {
            relay.lost += 1;
            return void response.end();
          }
          const { authorization = '', 'content-type': type = '' } = request.headers;
          const body = Buffer.concat(chunks);
          const headers = { authorization, 'content-type': type };
          const { status } = await fetch(intakeUrl, { method: 'POST', headers, body });
          response.writeHead(status).end();
        };
        pass().catch(() => response.writeHead(503).end());
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      return `http://127.0.0.1:${(server.address() as AddressInfo).port}/webhooks/livekit`;
    },
    stop: async () => {
      server?.closeAllConnections();
      server?.close();
    },
  };
  return relay;
};
