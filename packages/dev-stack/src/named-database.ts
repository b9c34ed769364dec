import pg from 'pg';
import { StartFailure } from './start-failure.ts';

const timeoutMs = 5_000;

/**
 * Sees to it that the database of `DATABASE_URL` answers, before services wait for it.
 * @throws {StartFailure} that names host and port, and no password
 */
export async function requireDatabase(url: string): Promise<void> {
  const client = clientOf(url);
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.end();
  } catch (cause) {
    const where = client.host.startsWith('/') ? client.host : `${client.host}:${client.port}`;
    throw new StartFailure(
      `The PostgreSQL of DATABASE_URL, ${where}, cannot be used: ${reasonOf(cause)}. ` +
        'Start it or correct DATABASE_URL; without the variable an embedded one is started.',
      { cause },
    );
  }
}

function clientOf(url: string): pg.Client {
  try {
    // pg takes what is no URL for the name of a database, on a host of its own invention.
    if (!/^postgres(?:ql)?:$/.test(new URL(url).protocol)) throw new Error('not of PostgreSQL');
    return new pg.Client({ connectionString: url, connectionTimeoutMillis: timeoutMs });
  } catch (cause) {
    throw new StartFailure('DATABASE_URL is wrong: it should look like postgres://user:password@host:5432/database.', {
      cause,
    });
  }
}

/** A name with several addresses fails with several errors, whose own message is empty. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if ('code' in error && error.code === 'ECONNREFUSED') return 'nothing listens there';
  return error.message || ('code' in error ? String(error.code) : error.name);
}
