import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build, stop as stopBundler } from 'esbuild';
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify';
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';
import type { DemoDomain } from './demo-domain.ts';
import type { DemoSettings } from './demo-settings.ts';
import type { IssuerClient } from './issuer-client.ts';

export interface DemoServerOptions {
  readonly port: number;
  readonly apiUrl: string;
  readonly livekitUrl: string;
  readonly issuer: IssuerClient;
  readonly domain: DemoDomain;
}

export interface DemoServer {
  readonly url: string;
  stop(): Promise<void>;
}

interface Named {
  Params: { readonly name: string };
}

const pageFolder = new URL('./page/', import.meta.url);

/** Serves the demo page, and takes the host's decisions on members, which become facts in the log. */
export async function startDemoServer(options: DemoServerOptions): Promise<DemoServer> {
  const { port, apiUrl, livekitUrl, issuer, domain } = options;
  const { roomId, people } = domain;
  const settings: DemoSettings = { apiUrl, tokenUrl: issuer.tokenUrl, roomId, people };
  const page = await loadPage();
  const keys = createRemoteJWKSet(new URL(issuer.jwksUrl));
  const policy = contentPolicy([apiUrl, issuer.tokenUrl, livekitUrl, livekitUrl.replace(/^ws/, 'http')]);
  const app = Fastify({ requestTimeout: 10_000, forceCloseConnections: true });

  app.addHook('onRequest', async (_request, reply) => {
    reply.headers({ 'cache-control': 'no-store', 'content-security-policy': policy });
  });
  app.get('/', (_request, reply) => reply.type('text/html; charset=utf-8').send(page.html));
  app.get('/style.css', (_request, reply) => reply.type('text/css; charset=utf-8').send(page.css));
  app.get('/main.js', (_request, reply) => reply.type('text/javascript; charset=utf-8').send(page.script));
  app.get('/settings.json', () => settings);

  app.put<Named>('/members/:name', (request, reply) => decide(request, reply, domain.addMember));
  app.delete<Named>('/members/:name', (request, reply) => decide(request, reply, domain.removeMember));

  async function decide(request: FastifyRequest<Named>, reply: FastifyReply, act: DemoDomain['addMember']) {
    if (!(await isHost(request.headers.authorization))) return reply.code(403).send();
    const person = people.find(({ name }) => name === request.params.name);
    if (person === undefined) return reply.code(404).send();
    await act(person);
    return reply.code(204).send();
  }

  async function isHost(authorization = ''): Promise<boolean> {
    try {
      const { payload } = await jwtVerify(authorization.replace(/^Bearer /, ''), keys, { issuer: issuer.url });
      return people.some(({ userId, role }) => userId === payload.sub && role === 'host');
    } catch (error) {
      if (error instanceof errors.JOSEError) return false;
      throw error;
    }
  }

  await app.listen({ port, host: '127.0.0.1' });
  return { url: `http://127.0.0.1:${port}`, stop: () => app.close() };
}

async function loadPage(): Promise<{ html: string; css: string; script: string }> {
  const read = (name: string) => readFile(new URL(name, pageFolder), 'utf8');
  const [html, css, script] = await Promise.all([read('index.html'), read('style.css'), bundle()]);
  return { html, css, script };
}

/** The page's program with livekit-client in it, in memory; about a quarter of a second. */
async function bundle(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('main.ts', pageFolder))],
    bundle: true,
    write: false,
    format: 'esm',
    target: 'es2022',
    minify: true,
  });
  await stopBundler();
  return outputFiles.map(({ text }) => text).join('');
}

function contentPolicy(addresses: readonly string[]): string {
  const origins = new Set(addresses.map((address) => new URL(address).origin));
  return `default-src 'self'; connect-src 'self' ${[...origins].join(' ')}; img-src 'self' data:`;
}
