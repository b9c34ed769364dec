import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse, stringify } from 'yaml';
import { cached } from './cache.ts';
import { type Part, PartAbsent, type Report, silently } from './part.ts';
import { freePort } from './ports.ts';
import { runCommand, runDirectory, startProcess } from './process-part.ts';
import { findProgram } from './programs.ts';

const livekitVersion = '1.13.5';

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
 * A LiveKit server with the configuration of `livekit.yaml`, on 127.0.0.1: the program on the PATH, else one that is
 * built with Go, once. Throws `PartAbsent` when there is neither.
 */
export async function startLivekit(options: LivekitOptions): Promise<Livekit> {
  const command = await livekitProgram(options.report ?? silently);
  const ports = {
    http: options.ports?.http ?? (await freePort()),
    tcp: options.ports?.tcp ?? (await freePort()),
    udp: options.ports?.udp ?? (await freePort()),
    metrics: options.ports?.metrics ?? (await freePort()),
  };
  const run = runDirectory('livekit');
  const configFile = join(run, 'livekit.yaml');
  await writeFile(configFile, await configuration(options, ports), { mode: 0o600 });

  const apiUrl = `http://127.0.0.1:${ports.http}`;
  const part = await startProcess({
    name: `LiveKit ${livekitVersion}`,
    command,
    args: ['--config', configFile],
    logFile: join(run, 'livekit.log'),
    isReady: async () => (await fetch(apiUrl)).ok,
    startTimeoutMs: 20_000,
    // It would wait for everybody to leave.
    stopTimeoutMs: 3_000,
  });
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
  await livekitProgram(report);
}

async function livekitProgram(report: Report): Promise<string> {
  const installed = await findProgram('livekit-server');
  if (installed !== undefined) return installed;

  const go = await findProgram('go');
  if (go === undefined) {
    throw new PartAbsent({
      part: 'LiveKit',
      missing: 'there is no `livekit-server` on the PATH, and no Go to build it with.',
      consequence: 'Tokens are still issued, but nobody can connect with them.',
    });
  }
  const executable = process.platform === 'win32' ? '.exe' : '';
  const directory = await cached(`livekit-${livekitVersion}`, report, async (unfinished) => {
    report(`building LiveKit ${livekitVersion} with Go, about 3 minutes, once …`);
    const source = `github.com/livekit/livekit-server/cmd/server@v${livekitVersion}`;
    await runCommand({ command: go, args: ['install', source], env: { GOBIN: unfinished } });
    await rename(join(unfinished, `server${executable}`), join(unfinished, `livekit-server${executable}`));
  });
  return join(directory, `livekit-server${executable}`);
}

async function configuration(options: LivekitOptions, ports: LivekitPorts): Promise<string> {
  const base = parse(await readFile(fileURLToPath(new URL('../../../livekit.yaml', import.meta.url)), 'utf8'));
  const [firstKey] = Object.keys(options.keys);
  if (firstKey === undefined) throw new Error('LiveKit needs at least one key');
  const { webhook, ...rest } = base;
  return stringify({
    ...rest,
    port: ports.http,
    bind_addresses: ['127.0.0.1'],
    prometheus: { port: ports.metrics },
    // On this machine's own address alone.
    rtc: { ...base.rtc, tcp_port: ports.tcp, udp_port: ports.udp, ips: { includes: ['127.0.0.1/32'] } },
    keys: options.keys,
    ...(options.webhookUrl === undefined
      ? {}
      : { webhook: { ...webhook, api_key: firstKey, urls: [options.webhookUrl] } }),
  });
}
