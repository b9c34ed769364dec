import { once } from 'node:events';
import { createConnection } from 'node:net';
import pg from 'pg';
import type { StartSettings } from './config.ts';
import { errorCode } from './error-code.ts';
import { StartFailure } from './start-failure.ts';

const timeoutMs = 5_000;

/** A part that somebody else runs. */
interface NamedPart {
  readonly what: string;
  readonly variable: string;
  readonly example: string;
  readonly without: string;
}

/**
 * Sees to it that the parts of others that the settings name answer, before services wait for them.
 * @throws {StartFailure} that names the variable, host and port, and no password
 */
export async function requireNamedParts(settings: StartSettings): Promise<void> {
  if (settings.DATABASE_URL !== undefined) await requireDatabase(settings.DATABASE_URL);
  if (settings.KAFKA_BROKERS !== undefined) await requireKafka(settings.KAFKA_BROKERS);
  if (settings.OIDC_ISSUER !== undefined) await requireIssuer(settings.OIDC_ISSUER, settings.OIDC_JWKS_URI);
  if (settings.LIVEKIT_URL !== undefined) await requireLivekit(settings.LIVEKIT_URL, settings.LIVEKIT_API_URL);
}

const database: NamedPart = {
  what: 'PostgreSQL',
  variable: 'DATABASE_URL',
  example: 'postgres://user:password@host:5432/database',
  without: 'without the variable an embedded one is started',
};

async function requireDatabase(url: string): Promise<void> {
  const client = clientOf(url);
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.end();
  } catch (error) {
    const where = client.host.startsWith('/') ? client.host : `${client.host}:${client.port}`;
    throw unusable(database, where, error);
  }
}

function clientOf(url: string): pg.Client {
  try {
    // pg takes what is no URL for the name of a database, on a host of its own invention.
    if (!/^postgres(?:ql)?:$/.test(new URL(url).protocol)) throw new Error('not of PostgreSQL');
    return new pg.Client({ connectionString: url, connectionTimeoutMillis: timeoutMs });
  } catch (cause) {
    throw wrong(database, cause);
  }
}

const kafka: NamedPart = {
  what: 'Kafka',
  variable: 'KAFKA_BROKERS',
  example: 'host:9092,other-host:9092',
  without: 'without the variable the log is kept in PostgreSQL',
};

/** One broker leads to the others. TLS and SASL are left to the services, whose settings they are. */
async function requireKafka(brokers: string): Promise<void> {
  const addresses = brokers.split(',').map((broker) => {
    const [, ip6, host = ip6, port] = /^(?:\[([\da-f:]+)\]|([^\s:/@]+)):(\d{1,5})$/i.exec(broker.trim()) ?? [];
    if (host === undefined || Number(port) > 65_535) throw wrong(kafka);
    return { host, port: Number(port) };
  });
  try {
    await Promise.any(addresses.map(connect));
  } catch (error) {
    throw unusable(kafka, brokers, error instanceof AggregateError ? error.errors[0] : error);
  }
}

async function connect(address: { readonly host: string; readonly port: number }): Promise<void> {
  const socket = createConnection(address);
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(timeoutMs) });
  } finally {
    socket.destroy();
  }
}

/** Asks for what the api asks it for. */
async function requireIssuer(issuer: string, jwksUri: string | undefined): Promise<void> {
  const part: NamedPart = {
    what: 'issuer',
    variable: jwksUri === undefined ? 'OIDC_ISSUER' : 'OIDC_JWKS_URI',
    example: 'https://host/realms/name',
    without: 'without OIDC_ISSUER a dev issuer is started',
  };
  const url = httpUrlOf(part, jwksUri ?? `${issuer.replace(/\/$/, '')}/protocol/openid-connect/certs`);
  const status = await ask(part, url);
  if (status !== 200) throw unusable(part, url.host, new Error(`it answers ${url.pathname} with ${status}`));
}

/** Any answer will do: what stands at its root is no part of LiveKit's API. */
async function requireLivekit(clientsUrl: string, apiUrl: string | undefined): Promise<void> {
  const part: NamedPart = {
    what: 'LiveKit',
    variable: apiUrl === undefined ? 'LIVEKIT_URL' : 'LIVEKIT_API_URL',
    example: 'wss://host',
    without: 'without LIVEKIT_URL one is started',
  };
  await ask(part, httpUrlOf(part, (apiUrl ?? clientsUrl).replace(/^ws/, 'http')));
}

/** What fetch says of an address with a password repeats it. */
function httpUrlOf(part: NamedPart, address: string): URL {
  const url = URL.parse(address);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') throw wrong(part);
  return url;
}

async function ask(part: NamedPart, url: URL): Promise<number> {
  try {
    const { status, body } = await fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(timeoutMs) });
    await body?.cancel();
    return status;
  } catch (error) {
    throw unusable(part, url.host, error);
  }
}

function wrong({ variable, example }: NamedPart, cause?: unknown): StartFailure {
  return new StartFailure(`${variable} is wrong: it should look like ${example}.`, { cause });
}

function unusable({ what, variable, without }: NamedPart, where: string, cause: unknown): StartFailure {
  return new StartFailure(
    `The ${what} of ${variable}, ${where}, cannot be used: ${reasonOf(cause)}. Start it or correct ${variable}; ${without}.`,
    { cause },
  );
}

/** A name with several addresses fails with several errors, whose own message is empty. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.message === 'fetch failed') return reasonOf(error.cause);
  if (error.name === 'TimeoutError' || error.name === 'AbortError') return `no answer within ${timeoutMs / 1000} s`;
  if (errorCode(error) === 'ECONNREFUSED') return 'nothing listens there';
  return error.message || (errorCode(error) ?? error.name);
}
