import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Part, PartAbsent } from './part.ts';
import { acceptsConnections, runDirectory, startProcess } from './process-part.ts';
import { findProgram } from './programs.ts';

export interface NginxOptions {
  /** A file of `server` blocks, as nginx's image reads from `conf.d`. */
  readonly configFile: string;
  /** What to put in place of the addresses in that file. Each of them must occur. */
  readonly replacements: Readonly<Record<string, string>>;
  /** Where the replaced configuration listens. */
  readonly port: number;
}

/** Runs nginx with a configuration that is in the repository, and only its addresses exchanged. */
export async function startNginx(options: NginxOptions): Promise<Part> {
  const command = await findProgram('nginx');
  if (command === undefined) {
    throw new PartAbsent({
      part: 'nginx',
      missing: 'it is not on the PATH.',
      consequence: 'The reverse proxy in front of LiveKit is not tested.',
    });
  }
  const run = runDirectory('nginx');
  const servers = join(run, 'servers.conf');
  await writeFile(servers, replaceAll(await readFile(options.configFile, 'utf8'), options));
  const main = join(run, 'nginx.conf');
  await writeFile(main, mainConfiguration(run, servers));
  return startProcess({
    name: 'nginx',
    command,
    args: ['-p', run, '-c', main, '-e', 'stderr'],
    logFile: join(run, 'nginx.log'),
    isReady: () => acceptsConnections(options.port),
    startTimeoutMs: 10_000,
  });
}

function replaceAll(text: string, { configFile, replacements }: NginxOptions): string {
  return Object.entries(replacements).reduce((replaced, [from, to]) => {
    if (!replaced.includes(from)) throw new Error(`${configFile} does not contain ${from}`);
    return replaced.replaceAll(from, to);
  }, text);
}

function mainConfiguration(run: string, servers: string): string {
  // Without this, workers that root started would have no access to the run directory.
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `daemon off;
worker_processes 1;
pid ${join(run, 'nginx.pid')};
error_log stderr info;
${user}
events {}
http {
  access_log off;
  ${temporary.map((name) => `${name}_temp_path ${join(run, name)};`).join('\n  ')}
  include ${servers};
}
`;
}
