import { once } from 'node:events';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { errorCode } from './error-code.ts';
import { writeNew } from './kept-file.ts';
import { acceptsConnections } from './process-part.ts';
import { hasEnded } from './signals.ts';
import { StartFailure } from './start-failure.ts';

const fileName = 'start.lock';

export interface RunLock {
  /** An earlier start ended without giving it back: what it ran may still be on its way out. */
  readonly isAfterCrash: boolean;
  release(): Promise<void>;
}

/**
 * Sees to it that one start at a time uses the directory. The holder's number alone would not do: after a crash another
 * program may have got it. So the holder also listens, and the file says where.
 * @throws {StartFailure} when another one runs, or there can be no such directory
 */
export async function takeRunLock(dataDir: string): Promise<RunLock> {
  await makeDirectory(dataDir);
  const file = join(dataDir, fileName);
  const server = createServer((socket) => socket.destroy()).unref();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the lock does not listen on a TCP port');

  const content = `${process.pid} ${address.port}\n`;
  const isFree = await writeNew(file, content);
  if (!isFree) {
    const [pid = 0, port = 0] = (await readFile(file, 'utf8')).split(' ').map(Number);
    if (await isHeld(pid, port)) {
      server.close();
      throw new StartFailure(
        `This is running already, as process ${pid}, with the data in ${dataDir}. ` +
          `End it with Ctrl-C where it runs, or from here: ${endCommand(pid)}`,
      );
    }
    await writeFile(file, content);
  }
  return {
    isAfterCrash: !isFree,
    release: async () => {
      server.close();
      await rm(file, { force: true });
    },
  };
}

/** What nobody else would have there: by one of them, or its unfinished copy, a directory is known as ours. */
const signs = ['issuer-keys.json', 'livekit-key.json', 'postgres.password'].flatMap((name) => [name, `${name}.new`]);
/** Of little worth, and called as others may call theirs. */
const byproducts = ['logs', 'compile-cache'];
/** The signs last, so that a reset that was interrupted can be repeated. */
const kept = [...byproducts, 'postgres', ...signs];

/**
 * Removes what earlier starts kept in the directory, and nothing else; who calls holds the lock.
 * @throws {StartFailure} when it is somebody else's directory
 */
export async function forgetKept(dataDir: string): Promise<void> {
  const entries = (await readdir(dataDir)).filter((name) => name !== fileName);
  if (!entries.some((name) => signs.includes(name))) {
    const foreign = entries.find((name) => !byproducts.includes(name));
    if (foreign === undefined) return;
    throw new StartFailure(
      `DATA_DIR is ${dataDir}, which holds ${foreign} and nothing that an earlier start kept, so nothing was deleted. ` +
        'Set DATA_DIR to a directory of its own, or leave --reset out.',
    );
  }
  for (const name of kept) await rm(join(dataDir, name), { recursive: true, force: true, maxRetries: 5 });
}

/**
 * Takes away the lock of a PostgreSQL that was killed: it would not start while its old process number is somebody
 * else's, or nobody has waited for the dead process. Where nothing listens at its port it is gone, and the data are
 * still guarded, since PostgreSQL looks for processes that share its memory.
 */
export async function removeStalePostgresLock(postgresDir: string): Promise<void> {
  const file = join(postgresDir, 'postmaster.pid');
  const port = Number((await readFile(file, 'utf8').catch(() => '')).split('\n')[3]);
  const isServing = port > 0 && (await acceptsConnections(port).catch(() => false));
  if (!isServing) await rm(file, { force: true });
}

/** How a person ends a process. */
export function endCommand(pid: number): string {
  return process.platform === 'win32' ? `taskkill /PID ${pid} /F` : `kill ${pid}`;
}

async function makeDirectory(dataDir: string): Promise<void> {
  try {
    // Started by root, PostgreSQL runs as somebody else and must find its way to its data.
    await mkdir(dataDir, { recursive: true, mode: 0o711 });
  } catch (error) {
    const code = errorCode(error) ?? error;
    const fault = code === 'EEXIST' || code === 'ENOTDIR' ? 'a file is in the way' : code;
    throw new StartFailure(
      `DATA_DIR is ${dataDir}, where no directory can be made (${fault}): set it to another path.`,
      { cause: error },
    );
  }
}

async function isHeld(pid: number, port: number): Promise<boolean> {
  if (pid === 0 || port === 0 || hasEnded(pid)) return false;
  return acceptsConnections(port).catch(() => false);
}
