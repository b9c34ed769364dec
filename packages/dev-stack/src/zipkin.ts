import { join } from 'node:path';
import { cached } from './cache.ts';
import { fetchArtifact, findJava } from './maven.ts';
import { type Part, type Report, silently } from './part.ts';
import { freePort } from './ports.ts';
import { runDirectory, startProcess } from './process-part.ts';

const zipkinVersion = '3.5.1';

export interface ZipkinOptions {
  readonly port?: number;
  readonly report?: Report;
}

export interface Zipkin extends Part {
  /** Web interface, query API, and `/api/v2/spans`. */
  readonly url: string;
}

/** A Zipkin on 127.0.0.1 that keeps its spans in memory. */
export async function startZipkin(options: ZipkinOptions = {}): Promise<Zipkin> {
  const { java, jar } = await zipkinProgram(options.report ?? silently);
  const port = options.port ?? (await freePort());
  const url = `http://127.0.0.1:${port}`;
  const part = await startProcess({
    name: `Zipkin ${zipkinVersion}`,
    command: java,
    args: [
      ...['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-jar', jar],
      '--armeria.ports[0].ip=127.0.0.1',
      `--armeria.ports[0].port=${port}`,
      '--armeria.ports[0].protocols[0]=http',
    ],
    logFile: join(runDirectory('zipkin'), 'zipkin.log'),
    isReady: async () => (await fetch(`${url}/health`)).ok,
    startTimeoutMs: 60_000,
  });
  return { ...part, url };
}

async function zipkinProgram(report: Report): Promise<{ java: string; jar: string }> {
  const java = await findJava('Zipkin', 'Traces are not looked at.');
  const directory = await cached(`zipkin-${zipkinVersion}`, report, async (unfinished) => {
    report(`fetching Zipkin ${zipkinVersion} (130 MB), once …`);
    await fetchArtifact(`io.zipkin:zipkin-server:${zipkinVersion}:jar:exec`, unfinished, 'zipkin.jar');
  });
  return { java, jar: join(directory, 'zipkin.jar') };
}
