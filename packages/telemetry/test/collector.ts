import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export type CollectedSpan = {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  /** OTLP's numbers: 1 internal, 2 server, 3 client, 4 producer, 5 consumer. */
  kind: number;
  attributes: { key: string; value: Record<string, unknown> }[];
  links?: { traceId: string; spanId: string }[];
  status?: { code?: number; message?: string };
};

type ExportRequest = {
  resourceSpans?: { resource: { attributes: CollectedSpan['attributes'] }; scopeSpans: { spans: CollectedSpan[] }[] }[];
};

export type Collector = {
  url: string;
  spans: CollectedSpan[];
  /** What was posted to: traces, metrics, logs. */
  paths: Set<string | undefined>;
  resource(): Record<string, unknown>;
  /** How it answers from now on; `hang` accepts and never replies. */
  behave(how: 'accept' | 'refuse' | 'hang'): void;
  requests(): number;
  close(): Promise<void>;
};

/** An OTLP collector in small: takes OTLP as JSON over HTTP and keeps the spans. */
export async function startCollector(): Promise<Collector> {
  const spans: CollectedSpan[] = [];
  const paths = new Set<string | undefined>();
  let resource: CollectedSpan['attributes'] = [];
  let behaviour: 'accept' | 'refuse' | 'hang' = 'accept';
  let requests = 0;
  const server = createServer(async (request, response) => {
    requests += 1;
    paths.add(request.url);
    const { resourceSpans = [] }: ExportRequest = JSON.parse(Buffer.concat(await request.toArray()).toString());
    if (behaviour === 'hang') return;
    if (behaviour === 'accept') {
      for (const each of resourceSpans) {
        resource = each.resource.attributes;
        spans.push(...each.scopeSpans.flatMap((scope) => scope.spans));
      }
    }
    response.writeHead(behaviour === 'accept' ? 200 : 503, { 'content-type': 'application/json' }).end('{}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    paths,
    resource: () => valuesOf(resource),
    behave: (how) => {
      behaviour = how;
    },
    requests: () => requests,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

function valuesOf(attributes: CollectedSpan['attributes']): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}
