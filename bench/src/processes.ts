import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort, type Part, runDirectory, startProcess } from '@realtime-service/dev-stack';

const serverCore = 0;
const otherCore = 1;
const root = fileURLToPath(new URL('../../', import.meta.url));

/** Whether processes can be held to a core; where not, the sides disturb each other more. */
export const canPin = spawnSync('taskset', ['-c', String(otherCore), 'true']).status === 0;

/** Holds this process, and with it all that it starts from now on, to the core that measured servers do not use. */
export const leaveServerCore = (): void => {
  if (canPin) spawnSync('taskset', ['-a', '-c', '-p', String(otherCore), String(process.pid)]);
};

export interface ServerSpec {
  readonly name: string;
  readonly script: string;
  readonly env: Readonly<Record<string, string>>;
  /** Answers 200 as soon as it serves. */
  readonly readyUrl: string;
  readonly isPinned: boolean;
}

/** A server as it runs in production: `node script`, its log to a file. */
export const startServer = ({ name, script, env, readyUrl, isPinned }: ServerSpec): Promise<Part> => {
  const command = [process.execPath, ...profiling(name), script];
  const [program = '', ...args] = isPinned && canPin ? ['taskset', '-c', String(serverCore), ...command] : command;
  return startProcess({
    name,
    command: program,
    args,
    cwd: root,
    env: { NODE_OPTIONS: '', ...env },
    logFile: join(runDirectory(name), 'log'),
    isReady: async () => (await fetch(readyUrl)).ok,
    startTimeoutMs: 60_000,
  });
};

/** `BENCH_PROFILE=<directory>` has every server write a CPU profile there when it ends. */
const profiling = (name: string): string[] => {
  const directory = process.env['BENCH_PROFILE'];
  return directory === undefined
    ? []
    : ['--cpu-prof', `--cpu-prof-dir=${directory}`, `--cpu-prof-name=${name}.cpuprofile`];
};

/** What both services need to know. */
export const serviceEnv = (databaseUrl: string, livekit: LivekitEnv): Record<string, string> => ({
  DATABASE_URL: databaseUrl,
  LIVEKIT_URL: livekit.url,
  LIVEKIT_KEYS: livekit.keys,
});

export interface LivekitEnv {
  readonly url: string;
  readonly keys: string;
}

export const livekitKey = { name: 'bench', secret: randomBytes(32).toString('hex') };

export interface Service {
  readonly part: Part;
  readonly url: string;
  readonly metrics: () => Promise<ProcessMetrics>;
}

export interface ServiceSpec {
  readonly name: string;
  readonly service: 'api' | 'room-worker';
  readonly env: Readonly<Record<string, string>>;
  readonly isPinned: boolean;
}

/** One of the two services on free ports; resolves when it is ready to serve. */
export const startService = async ({ name, service, env, isPinned }: ServiceSpec): Promise<Service> => {
  const [port, opsPort] = [await freePort(), await freePort()];
  const prefix = service === 'api' ? 'API' : 'WORKER';
  const opsUrl = `http://127.0.0.1:${opsPort}`;
  const part = await startServer({
    name,
    script: `services/${service}/src/main.ts`,
    env: { ...env, [`${prefix}_PORT`]: String(port), [`${prefix}_OPS_PORT`]: String(opsPort) },
    readyUrl: `${opsUrl}/readyz`,
    isPinned,
  });
  return { part, url: `http://127.0.0.1:${port}`, metrics: () => readProcessMetrics(`${opsUrl}/metrics`) };
};

export interface ProcessMetrics {
  readonly cpuSeconds: number;
  readonly residentBytes: number;
}

/** Of any program with Prometheus' own names, LiveKit among them. */
export const readProcessMetrics = async (url: string): Promise<ProcessMetrics> => {
  const text = await (await fetch(url)).text();
  const metricOf = (name: string): number => {
    const value = Number(new RegExp(`^${name} (\\S+)`, 'm').exec(text)?.[1]);
    if (Number.isNaN(value)) throw new Error(`${url} does not tell ${name}`);
    return value;
  };
  return {
    cpuSeconds: metricOf('process_cpu_seconds_total'),
    residentBytes: metricOf('process_resident_memory_bytes'),
  };
};
