import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type Collector, startCollector } from '../test/collector.ts';
import { type RunningService, startService } from '../test/start-service.ts';

const otlp = { OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' };
const given = { trace: '4bf92f3577b34da6a3ce929d0e0e4736', span: '00f067aa0ba902b7' };
const traceparent = `00-${given.trace}-${given.span}-01`;
const token = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTcifQ.c2lnbmF0dXJl';

/** A fault comes to light within a test, not after ten seconds. */
const impatient = { OTEL_BSP_SCHEDULE_DELAY: '20', OTEL_EXPORTER_OTLP_TIMEOUT: '200', OTEL_BSP_EXPORT_TIMEOUT: '400' };

const running: { stop(): Promise<unknown> }[] = [];

afterEach(async () => {
  await Promise.all(running.splice(0).map((each) => each.stop()));
});

async function collector(): Promise<Collector> {
  const started = await startCollector();
  running.push({ stop: () => started.close() });
  return started;
}

async function service(env: Record<string, string>, nodeArguments: string[] = []): Promise<RunningService> {
  const started = await startService({ ...otlp, ...env }, nodeArguments);
  running.push({ stop: async () => started.process.exitCode ?? (await started.stop()) });
  return started;
}

async function join(url: string, headers: Record<string, string> = {}, query = ''): Promise<string | null> {
  const response = await fetch(`${url}/rooms/room-42/join${query}`, {
    method: 'POST',
    body: '{}',
    headers: { 'content-type': 'application/json', ...headers },
  });
  const body: unknown = await response.json();
  return (body as { traceparent: string | null }).traceparent;
}

describe('a service started without flags', () => {
  it('when asked 20 times, then there are 20 server spans, named by route, within the callers’ trace', async () => {
    const sink = await collector();
    const started = await service({ OTEL_EXPORTER_OTLP_ENDPOINT: sink.url, OTEL_METRIC_EXPORT_INTERVAL: '20' });
    for (let n = 0; n < 20; n += 1) await join(started.url, { traceparent });
    await fetch(`${started.url}/no/such/route`);
    await fetch(`${started.url}/livez?verbose`);
    await started.stop();

    const [unknown, ...joins] = sink.spans.filter((span) => span.kind === 2).toReversed();
    expect(joins.map((span) => [span.name, span.traceId, span.parentSpanId])).toEqual(
      Array.from({ length: 20 }, () => ['POST /rooms/:roomId/join', given.trace, given.span]),
    );
    expect(unknown?.name).toBe('GET');
    expect([...sink.paths]).toEqual(['/v1/traces']);
    expect(sink.resource()['service.name']).toBe('realtime-service-telemetry');
    expect(started.errorOutput()).toBe('');
  });

  it('when it calls others, then their requests carry the context, and no span carries the query', async () => {
    const seen: IncomingHttpHeaders[] = [];
    const peer = createServer((request, response) => {
      seen.push(request.headers);
      response.end();
    }).listen(0, '127.0.0.1');
    await once(peer, 'listening');
    const sink = await collector();
    const started = await service({
      OTEL_EXPORTER_OTLP_ENDPOINT: sink.url,
      PEER_URL: `http://127.0.0.1:${(peer.address() as AddressInfo).port}`,
    });
    await join(started.url, { traceparent, authorization: `Bearer ${token}` }, `?access_token=${token}`);
    await started.stop();
    peer.close();

    const server = sink.spans.find((span) => span.kind === 2);
    const clients = sink.spans.filter((span) => span.kind === 3);
    expect(clients.map((span) => span.parentSpanId)).toEqual([server?.spanId, server?.spanId]);
    expect(seen.flatMap((headers) => Object.keys(headers)).filter((name) => name.includes('b3'))).toEqual([]);
    expect(seen.map((headers) => headers['traceparent'])).toEqual(
      clients.map((span) => `00-${given.trace}-${span.spanId}-01`),
    );
    const everything = JSON.stringify(sink.spans);
    expect(everything).not.toContain('eyJ');
    expect(everything).not.toContain('outgoing-secret');
  });

  it('when it logs within a request, then the line carries the ids of the server span', async () => {
    const sink = await collector();
    const started = await service({ OTEL_EXPORTER_OTLP_ENDPOINT: sink.url });
    await join(started.url, { traceparent });
    const line = await started.line(({ msg }) => msg === 'joined');
    await started.stop();
    expect(line).toMatchObject({
      trace_id: given.trace,
      span_id: sink.spans.find((span) => span.kind === 2)?.spanId,
      room: 'room-42',
    });
  });

  it('when preloaded by --import as well, then nothing is traced twice', async () => {
    const sink = await collector();
    const started = await service({ OTEL_EXPORTER_OTLP_ENDPOINT: sink.url }, [
      '--import',
      '@realtime-service/telemetry/register',
    ]);
    await join(started.url, { traceparent });
    await started.stop();
    expect(sink.spans.map((span) => span.name)).toEqual(['POST /rooms/:roomId/join']);
  });

  it.each([
    ['absent', {}],
    ['all zeros', { traceparent: `00-${'0'.repeat(32)}-${'0'.repeat(16)}-01` }],
    ['garbage', { traceparent: 'garbage' }],
    ['upper case', { traceparent: traceparent.toUpperCase() }],
    ['twice', { traceparent: `${traceparent}, ${traceparent}` }],
  ])('when traceparent is %s, then a trace of its own begins', async (_case, headers) => {
    const started = await service({});
    const answer = await join(started.url, headers);
    expect(answer).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    expect(answer).not.toContain(given.trace);
  });

  it.each([
    ['B3 in one header', { b3: `${given.trace}-${given.span}-1` }],
    ['B3 in several', { 'X-B3-TraceId': given.trace, 'X-B3-SpanId': given.span, 'X-B3-Sampled': '1' }],
    ['W3C beside B3', { b3: `${'a'.repeat(32)}-${'b'.repeat(16)}-1`, traceparent }],
    ['4 KB of tracestate', { traceparent, tracestate: `a=${'x'.repeat(4_096)}` }],
  ])('when the context comes as %s, then the trace goes on', async (_case, headers) => {
    const started = await service({});
    expect(await join(started.url, headers)).toMatch(new RegExp(`^00-${given.trace}-`));
  });

  it('when OTEL_PROPAGATORS leaves B3 out, then B3 is not read', async () => {
    const started = await service({ OTEL_PROPAGATORS: 'tracecontext' });
    expect(await join(started.url, { b3: `${given.trace}-${given.span}-1` })).not.toContain(given.trace);
  });

  it('when no exporter is configured, then ids are real, nothing is said, and nobody is called', async () => {
    const tellOfConnections = `
      import { subscribe } from 'node:diagnostics_channel';
      subscribe('net.client.socket', () => process.stdout.write('{"connected":true}\\n'));`;
    const started = await service({}, ['--import', `data:text/javascript,${encodeURIComponent(tellOfConnections)}`]);
    const answer = await join(started.url);
    const line = await started.line(({ msg }) => msg === 'joined');
    await started.stop();
    expect(answer?.split('-')[1]).toBe(line['trace_id']);
    expect(started.lines.map(({ url, msg }) => url ?? msg)).toEqual([started.url, 'joined']);
    expect(started.errorOutput()).toBe('');
  });

  it('when OTEL_TRACES_SAMPLER says never, then nothing is sent and ids are still real', async () => {
    const sink = await collector();
    const started = await service({ OTEL_EXPORTER_OTLP_ENDPOINT: sink.url, OTEL_TRACES_SAMPLER: 'always_off' });
    expect(await join(started.url)).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    await started.stop();
    expect(sink.spans).toEqual([]);
  });
});

describe('a collector that is away', () => {
  it('when it refuses, then one line says so, requests are served, and export resumes by itself', async () => {
    const sink = await collector();
    sink.behave('refuse');
    const started = await service({ ...impatient, OTEL_EXPORTER_OTLP_ENDPOINT: sink.url });
    await join(started.url);
    await started.line(({ msg }) => msg === 'telemetry is impaired');
    const refused = sink.requests();
    while (sink.requests() < refused + 3) expect(await join(started.url)).toMatch(/-01$/);
    sink.behave('accept');
    while (sink.spans.length === 0) await join(started.url);
    await started.stop();
    expect(started.lines.filter(({ msg }) => msg === 'telemetry is impaired')).toHaveLength(1);
    expect(started.errorOutput()).toBe('');
  });

  it('when it accepts and never replies, then shutdown still keeps its deadline', async () => {
    const sink = await collector();
    sink.behave('hang');
    const started = await service({ OTEL_EXPORTER_OTLP_ENDPOINT: sink.url });
    expect(await join(started.url)).toMatch(/-01$/);
    expect(await started.stop()).toBeLessThan(3_000);
    expect(started.process.exitCode).toBe(0);
  });
});
