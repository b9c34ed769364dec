import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import httpProxy from '@fastify/http-proxy';
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify';

declare module 'fastify' {
  interface FastifyRequest {
    /** What the gate gave for LiveKit to see. */
    freshAuthorization: string;
  }
}

export interface GateProxyServerOptions {
  /** 0 for a free one. */
  readonly port: number;
  readonly apiUrl: string;
  /** LiveKit's own address, as `http://…`. */
  readonly livekitUrl: string;
}

export interface GateProxyServer {
  readonly url: string;
  readonly port: number;
  readonly stop: () => Promise<void>;
}

/** As sent: LiveKit would serve //rtc and /%72tc too. */
const signalling = /^\/rtc(?:\/v1)?(?:\/validate)?(?:\?|$)/;
const gateTimeoutMs = 2_000;

/**
 * The smallest reverse proxy before LiveKit that asks the gate, where no other is installed: signalling, and nothing
 * else. Those for production are in `deploy/gate`.
 */
export const startGateProxyServer = async (options: GateProxyServerOptions): Promise<GateProxyServer> => {
  const app = Fastify({
    // As the api's own: a client's offer is in its URI.
    http: { maxHeaderSize: 32_768 },
    forceCloseConnections: true,
    return503OnClosing: false,
    frameworkErrors: (_error, _request, reply) => void reply.raw.writeHead(400).end(),
  });
  // Fastify's own answers repeat the address, and with it the token.
  app.setNotFoundHandler((_request, reply) => reply.code(404).send());
  app.decorateRequest('freshAuthorization', '');
  // Browsers that cannot read a refusal try again for 40 s.
  app.addHook('onSend', async (_request, reply) => {
    reply.header('access-control-allow-origin', '*');
  });
  await app.register(httpProxy, {
    upstream: options.livekitUrl,
    prefix: '/rtc',
    rewritePrefix: '/rtc',
    httpMethods: ['GET'],
    websocket: true,
    preHandler: (request, reply) => askGate(options.apiUrl, request, reply),
    replyOptions: {
      rewriteRequestHeaders: (request) => ({ authorization: request.freshAuthorization }),
      onError: (reply) => void reply.code(503).send(),
    },
    wsClientOptions: {
      rewriteRequestHeaders: (_headers: object, request: FastifyRequest) => ({
        authorization: request.freshAuthorization,
      }),
    },
  });
  surviveUpgrades(app.server);
  const url = new URL(await app.listen({ host: '127.0.0.1', port: options.port }));
  const port = Number(url.port);
  return { url: `ws://127.0.0.1:${port}`, port, stop: () => app.close() };
};

/**
 * The plugin's listener hears of no error of a client's connection while the gate is asked, and throws where an earlier
 * answer is still due on it: either would end this process.
 */
const surviveUpgrades = (server: Server): void => {
  const listeners = server.listeners('upgrade');
  server.removeAllListeners('upgrade');
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    try {
      for (const listener of listeners) listener.call(server, request, socket, head);
    } catch {
      socket.destroy();
    }
  });
};

const passedOn = ['authorization', 'traceparent', 'tracestate', 'b3', 'user-agent'];

/** Lets the request through with a fresh token, or answers it. */
const askGate = async (
  apiUrl: string,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply | undefined> => {
  const uri = request.raw.url ?? '';
  if (!signalling.test(uri)) return reply.code(404).send();
  const headers = new Headers({ 'x-original-uri': uri, 'x-forwarded-for': request.ip });
  for (const name of passedOn) {
    const value = request.headers[name];
    if (typeof value === 'string') headers.set(name, value);
  }
  const signal = AbortSignal.timeout(gateTimeoutMs);
  const answer = await fetch(`${apiUrl}/api/realtime/gate`, { headers, signal }).catch(() => undefined);
  const authorization = answer?.status === 204 ? answer.headers.get('authorization') : null;
  if (authorization === null) return reply.code(answer === undefined || answer.ok ? 503 : answer.status).send();
  request.freshAuthorization = authorization;
  return undefined;
};
