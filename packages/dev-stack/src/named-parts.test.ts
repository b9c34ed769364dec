import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { readStartSettings } from './config.ts';
import { requireNamedParts } from './named-parts.ts';
import { freePort } from './ports.ts';
import { StartFailure } from './start-failure.ts';

const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function listen(server: Server): Promise<string> {
  servers.push(server.listen(0, '127.0.0.1'));
  await once(server, 'listening');
  return `127.0.0.1:${Object(server.address()).port}`;
}

/** Answers each path that ends so with 200, others with 404. */
function listenHttp(path: string): Promise<string> {
  return listen(
    createHttpServer((request, response) => response.writeHead(request.url?.endsWith(path) ? 200 : 404).end()),
  );
}

function requireNamed(env: NodeJS.ProcessEnv): Promise<void> {
  return requireNamedParts(readStartSettings({ LIVEKIT_KEYS: 'key: hush', ...env }));
}

test.for([
  ['DATABASE_URL', 'postgres://me:hush@', '/x'],
  ['KAFKA_BROKERS', '', ''],
  ['OIDC_ISSUER', 'http://', '/realms/x'],
  ['LIVEKIT_URL', 'ws://', ''],
] as const)('names host and port where nothing listens, and no password: %s', async ([variable, before, after]) => {
  for (const host of ['127.0.0.1', 'localhost']) {
    const where = `${host}:${await freePort()}`;
    const failure: unknown = await requireNamed({ [variable]: `${before}${where}${after}` }).catch((error) => error);
    expect(failure).toBeInstanceOf(StartFailure);
    expect(String(failure)).toContain(`${variable}, ${where}, cannot be used: nothing listens there.`);
    expect(String(failure)).not.toContain('hush');
  }
});

test('tells that something else than PostgreSQL answers', async () => {
  const where = await listen(createServer((socket) => socket.destroy()));
  await expect(requireNamed({ DATABASE_URL: `postgres://me:hush@${where}/x` })).rejects.toThrow(
    `${where}, cannot be used: Connection terminated unexpectedly`,
  );
});

test('tells that the issuer has no such realm', async () => {
  const where = await listenHttp('/realms/y/protocol/openid-connect/certs');
  await expect(requireNamed({ OIDC_ISSUER: `http://${where}/realms/x` })).rejects.toThrow(
    `OIDC_ISSUER, ${where}, cannot be used: it answers /realms/x/protocol/openid-connect/certs with 404.`,
  );
  await requireNamed({ OIDC_ISSUER: `http://${where}/realms/y/` });
});

test('asks where the services would ask', async () => {
  const away = `127.0.0.1:${await freePort()}`;
  const where = await listenHttp('/keys');
  await requireNamed({
    KAFKA_BROKERS: `${away}, ${where}`,
    OIDC_ISSUER: `http://${away}`,
    OIDC_JWKS_URI: `http://${where}/keys`,
    LIVEKIT_URL: `ws://${away}`,
    LIVEKIT_API_URL: `http://${where}`,
  });
  await expect(requireNamed({ OIDC_ISSUER: `http://${where}`, OIDC_JWKS_URI: `http://${away}/keys` })).rejects.toThrow(
    `OIDC_JWKS_URI, ${away}, cannot be used`,
  );
  await expect(requireNamed({ LIVEKIT_URL: `ws://${where}`, LIVEKIT_API_URL: `http://${away}` })).rejects.toThrow(
    `LIVEKIT_API_URL, ${away}, cannot be used`,
  );
});

test.for([
  ['DATABASE_URL', 'postgres://me:hush@:x:y/'],
  ['DATABASE_URL', 'me:hush@db.example/x'],
  ['DATABASE_URL', 'mysql://me:hush@db.example/x'],
  ['KAFKA_BROKERS', 'me:hush@kafka.example:9092'],
  ['KAFKA_BROKERS', 'kafka.example'],
  ['KAFKA_BROKERS', 'kafka.example:99999'],
  ['OIDC_ISSUER', 'http://me:hush@id.example/realms/x'],
  ['OIDC_ISSUER', 'me:hush@id.example'],
  ['LIVEKIT_URL', 'wss://me:hush@livekit.example'],
] as const)('tells that the address is none, without repeating it: %s=%s', async ([variable, address]) => {
  await expect(requireNamed({ [variable]: address })).rejects.toThrow(
    new RegExp(`^${variable} is wrong: (?!.*(?:hush|example))`),
  );
});
