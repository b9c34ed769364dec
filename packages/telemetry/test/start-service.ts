import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export type RunningService = {
  url: string;
  /** Everything it wrote on standard output so far, parsed. */
  lines: Record<string, unknown>[];
  /** Resolves with the first line, past or future, that satisfies the predicate. */
  line(matches: (line: Record<string, unknown>) => boolean): Promise<Record<string, unknown>>;
  errorOutput(): string;
  process: ChildProcess;
  /** Ends it as an orchestrator does; resolves with the milliseconds that it took. */
  stop(): Promise<number>;
};

const servicePath = fileURLToPath(new URL('./service.ts', import.meta.url));

/** Starts the fixture in a process of its own, since instrumentation is a matter of what loads first. */
export async function startService(env: Record<string, string>, nodeArguments: string[] = []): Promise<RunningService> {
  const child = spawn(process.execPath, [...nodeArguments, servicePath], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: Record<string, unknown>[] = [];
  const waiting = new Set<() => void>();
  let errorOutput = '';
  child.stderr.on('data', (chunk: Buffer) => {
    errorOutput += chunk.toString();
  });
  createInterface({ input: child.stdout }).on('line', (text) => {
    lines.push(JSON.parse(text));
    for (const look of waiting) look();
  });

  const line: RunningService['line'] = (matches) =>
    new Promise((resolve, reject) => {
      const look = () => {
        const found = lines.find(matches);
        if (found === undefined) return;
        waiting.delete(look);
        resolve(found);
      };
      waiting.add(look);
      child.once('exit', () => reject(new Error(`the service ended: ${errorOutput}`)));
      look();
    });

  const { url } = await line((candidate) => 'url' in candidate);
  return {
    url: String(url),
    lines,
    line,
    errorOutput: () => errorOutput,
    process: child,
    async stop() {
      const startedAtMs = performance.now();
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
      return performance.now() - startedAtMs;
    },
  };
}
