import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse, stringify } from 'yaml';
import { cached, findCached } from './cache.ts';
import { containerNetwork, type Network, thisMachine } from './network.ts';
import { type Part, PartAbsent, type Report, silently } from './part.ts';
import { freePort } from './ports.ts';
import { runCommand, runDirectory, startProcess } from './process-part.ts';
import { findProgram } from './programs.ts';
import type { Readiness } from './readiness.ts';

const livekitVersion = '1.13.5';
const livekitImage = `livekit/livekit-server:v${livekitVersion}`;
const cacheName = `livekit-${livekitVersion}`;

export interface LivekitPorts {
  /** Signalling and server API. */
  readonly http: number;
  /** ICE over TCP. */
  readonly tcp: number;
  /** ICE over UDP, the way media goes. */
  readonly udp: number;
  readonly metrics: number;
}

export interface LivekitOptions {
  /** `key: secret`; secrets have 32 characters or more. The first key signs webhooks. */
  readonly keys: Readonly<Record<string, string>>;
  /** Where webhooks go; nowhere if absent. */
  readonly webhookUrl?: string;
  /** Those that are not given are free ones. */
  readonly ports?: Partial<LivekitPorts>;
  readonly report?: Report;
}

export interface Livekit extends Part {
  /** What clients connect to. */
  readonly url: string;
  /** What the server API is called at. */
  readonly apiUrl: string;
  /** Prometheus metrics, `livekit_webhook_dispatch_total` among them. */
  readonly metricsUrl: string;
  readonly ports: LivekitPorts;
}

/**
 * A LiveKit server with the configuration of `livekit.yaml`, on 127.0.0.1: the program on the PATH or one that was
 * built before, else a container where an engine answers, else one that is built with Go. Throws `PartAbsent` when none
 * of them can be had.
 */
export async function startLivekit(options: LivekitOptions): Promise<Livekit> {
  const source = await findLivekit(options.report ?? silently);
  const ports = {
    http: options.ports?.http ?? (await freePort()),
    tcp: options.ports?.tcp ?? (await freePort()),
    udp: options.ports?.udp ?? (await freePort()),
    metrics: options.ports?.metrics ?? (await freePort()),
  };
  const run = runDirectory('livekit');
  const apiUrl = `http://127.0.0.1:${ports.http}`;
  const readiness = {
    name: `LiveKit ${livekitVersion}`,
    logFile: join(run, 'livekit.log'),
    isReady: async () => (await fetch(apiUrl)).ok,
    startTimeoutMs: 20_000,
    // It would wait for everybody to leave.
    stopTimeoutMs: 3_000,
  };
  const network = source.kind === 'program' ? thisMachine : containerNetwork;
  const configuration = await configure(options, ports, network);
  const part = await (source.kind === 'program'
    ? startProgram(readiness, source.command, { configuration, run })
    : startImage(readiness, configuration, ports));
  return {
    ...part,
    url: `ws://127.0.0.1:${ports.http}`,
    apiUrl,
    metricsUrl: `http://127.0.0.1:${ports.metrics}/metrics`,
    ports,
  };
}

/** Has the program at hand, so that later starts take no time. Throws `PartAbsent` as they would. */
export async function prepareLivekit(report: Report): Promise<void> {
  await findLivekit(report);
}

type LivekitSource = { readonly kind: 'program'; readonly command: string } | { readonly kind: 'image' };

async function findLivekit(report: Report): Promise<LivekitSource> {
  const executable = `livekit-server${process.platform === 'win32' ? '.exe' : ''}`;
  const builtBefore = await findCached(cacheName);
  const command =
    (await findProgram('livekit-server')) ?? (builtBefore === undefined ? undefined : join(builtBefore, executable));
  if (command !== undefined) return { kind: 'program', command };

  // Loaded when it is needed: nearly everything else here starts sooner than this module.
  const { canRunImage } = await import('./container-part.ts');
  if (await canRunImage(livekitImage, report)) return { kind: 'image' };

  const go = await findProgram('go');
  if (go === undefined) {
    throw new PartAbsent({
      part: 'LiveKit',
      missing: 'there is no `livekit-server` on the PATH, no Docker to run it in, and no Go to build it with.',
      consequence: 'Tokens are still issued, but nobody can connect with them.',
    });
  }
  const built = await cached(cacheName, report, async (unfinished) => {
    report(`building LiveKit ${livekitVersion} with Go, about 3 minutes, once …`);
    const source = `github.com/livekit/livekit-server/cmd/server@v${livekitVersion}`;
    await runCommand({ command: go, args: ['install', source], env: { GOBIN: unfinished } });
    await rename(join(unfinished, executable.replace('livekit-', '')), join(unfinished, executable));
  });
  return { kind: 'program', command: join(built, executable) };
}

/** Of LiveKit's own settings those go before its file, and the services' and our own have some of these names. */
function withoutLivekitSettings(): NodeJS.ProcessEnv {
  const names = Object.keys(process.env).filter((name) => /^(?:LIVEKIT_|REDIS_|(?:NODE_IP|UDP_PORT)$)/.test(name));
  return Object.fromEntries(names.map((name) => [name, undefined]));
}

async function startProgram(
  readiness: Readiness & { readonly stopTimeoutMs: number },
  command: string,
  { configuration, run }: { readonly configuration: string; readonly run: string },
): Promise<Part> {
  const configFile = join(run, 'livekit.yaml');
  await writeFile(configFile, configuration, { mode: 0o600 });
  return startProcess({ ...readiness, command, args: ['--config', configFile], env: withoutLivekitSettings() });
}

async function startImage(
  readiness: Readiness & { readonly stopTimeoutMs: number },
  configuration: string,
  ports: LivekitPorts,
): Promise<Part> {
  const { startContainer } = await import('./container-part.ts');
  return startContainer({
    ...readiness,
    image: livekitImage,
    command: ['--config', '/livekit.yaml'],
    files: { '/livekit.yaml': configuration },
    ports: [
      { number: ports.http, protocol: 'tcp' },
      { number: ports.tcp, protocol: 'tcp' },
      { number: ports.udp, protocol: 'udp' },
      { number: ports.metrics, protocol: 'tcp' },
    ],
  });
}

async function configure(options: LivekitOptions, ports: LivekitPorts, network: Network): Promise<string> {
  const base = parse(await readFile(fileURLToPath(new URL('../../../livekit.yaml', import.meta.url)), 'utf8'));
  const [firstKey] = Object.keys(options.keys);
  if (firstKey === undefined) throw new Error('LiveKit needs at least one key');
  const { webhook, ...rest } = base;
  return stringify({
    ...rest,
    port: ports.http,
    bind_addresses: [network.bindAddress],
    prometheus: { port: ports.metrics },
    rtc: {
      ...base.rtc,
      tcp_port: ports.tcp,
      udp_port: ports.udp,
      // Media on this machine's own address alone.
      ...(network.isThisMachine ? { ips: { includes: ['127.0.0.1/32'] } } : {}),
    },
    keys: options.keys,
    ...(options.webhookUrl === undefined
      ? {}
      : { webhook: { ...webhook, api_key: firstKey, urls: [network.reach(options.webhookUrl)] } }),
  });
}
