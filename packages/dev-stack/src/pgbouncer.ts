import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Part, PartAbsent } from './part.ts';
import { freePort } from './ports.ts';
import { acceptsConnections, runDirectory, startProcess } from './process-part.ts';
import { findProgram } from './programs.ts';

export interface PgbouncerOptions {
  /** Of the database behind it. */
  readonly databaseUrl: string;
  /** Connections to the database; clients may have many more. */
  readonly poolSize: number;
}

export interface Pgbouncer extends Part {
  /** The same database, through the pooler. */
  readonly url: string;
}

/** PgBouncer in transaction mode, all else as its defaults are. */
export async function startPgbouncer({ databaseUrl, poolSize }: PgbouncerOptions): Promise<Pgbouncer> {
  const command = await findProgram('pgbouncer');
  if (command === undefined) {
    throw new PartAbsent({
      part: 'PgBouncer',
      missing: 'it is not on the PATH.',
      consequence: 'Services behind a pooler are not tested.',
    });
  }
  const { hostname, port: databasePort, username, password } = new URL(databaseUrl);
  const port = await freePort();
  const run = runDirectory('pgbouncer');
  const configFile = join(run, 'pgbouncer.ini');
  // Root must say as whom it runs.
  const user = process.getuid?.() === 0 ? 'user = nobody' : '';
  await writeFile(
    configFile,
    `[databases]
* = host=${hostname} port=${databasePort} user=${username} password=${password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = ${poolSize}
${user}
`,
  );
  const part = await startProcess({
    name: 'PgBouncer',
    command,
    args: [configFile],
    logFile: join(run, 'pgbouncer.log'),
    isReady: () => acceptsConnections(port),
    startTimeoutMs: 10_000,
  });
  const url = new URL(databaseUrl);
  url.port = String(port);
  return { ...part, url: url.href };
}
