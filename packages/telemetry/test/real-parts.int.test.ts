import { createDatabase, startZipkin, until, type Zipkin } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { Kafka, logLevel } from 'kafkajs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startCollector } from './collector.ts';
import { startService } from './start-service.ts';

type ZipkinSpan = {
  traceId: string;
  id: string;
  parentId?: string;
  name: string;
  kind: 'SERVER' | 'CLIENT';
  localEndpoint: { serviceName: string };
  tags: Record<string, string>;
};

describeWith(['postgres', 'kafka'], 'a service with real parts', ({ postgres, kafka }) => {
  let zipkin: Zipkin;

  beforeAll(async () => {
    zipkin = await startZipkin();
  });
  afterAll(() => zipkin.stop());

  it('shows each join in Zipkin as one server span with its query beneath, and logs the same trace', async () => {
    const service = await startService({
      DATABASE_URL: await createDatabase(postgres.url),
      OTEL_SERVICE_NAME: 'realtime-api',
      OTEL_TRACES_EXPORTER: 'zipkin',
      OTEL_EXPORTER_ZIPKIN_ENDPOINT: `${zipkin.url}/api/v2/spans`,
    });
    // Twice as many at once as the pool has connections: whoever waits for one must not run in its releaser's trace.
    const traceIds = Array.from({ length: 20 }, (_, n) => `4bf92f3577b34da6a3ce929d0e0e${4_736 + n}`);
    await Promise.all(
      traceIds.map((traceId) =>
        fetch(`${service.url}/rooms/secret-room/join`, {
          method: 'POST',
          headers: { traceparent: `00-${traceId}-00f067aa0ba902b7-01` },
        }),
      ),
    );
    await service.stop();

    const isQuery = ({ name }: ZipkinSpan) => name.startsWith('pg.query');
    const isServer = ({ kind }: ZipkinSpan) => kind === 'SERVER';
    // Stored a moment after it was taken, each batch by itself.
    const spans = await until('all of them are in Zipkin', async () => {
      const stored = await readTraces(zipkin, traceIds);
      return [isQuery, isServer].every((isOfKind) => stored.filter(isOfKind).length >= 20) && stored;
    });
    for (const traceId of traceIds) {
      const trace = spans.filter((span) => span.traceId === traceId);
      const servers = trace.filter(isServer);
      const queries = trace.filter(isQuery);
      // Zipkin writes names in lower case.
      const name = 'post /rooms/:roomid/join';
      expect(servers).toMatchObject([
        { name, parentId: '00f067aa0ba902b7', localEndpoint: { serviceName: 'realtime-api' } },
      ]);
      expect(queries).toMatchObject([
        { parentId: servers[0]?.id, tags: { 'db.query.text': 'SELECT $1::text AS room' } },
      ]);
      expect(JSON.stringify(queries)).not.toContain('secret-room');
    }
    const logged = service.lines.filter(({ msg }) => msg === 'joined').map((line) => line['trace_id']);
    expect(logged.toSorted()).toEqual(traceIds);
  });

  it('sends records with a span each, and reads them as one chunk with links to 64 of them', async () => {
    const topic = `telemetry-${process.pid}-${Date.now()}`;
    const admin = new Kafka({ brokers: [...kafka.brokers], logLevel: logLevel.NOTHING }).admin();
    await admin.createTopics({ topics: [{ topic, numPartitions: 1, replicationFactor: 1 }], waitForLeaders: true });
    await admin.disconnect();
    const collector = await startCollector();
    const service = await startService({
      KAFKA_BROKERS: kafka.brokers[0] ?? '',
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
    });
    const answer = await fetch(`${service.url}/relay/${topic}`, {
      method: 'POST',
      body: '{"count":100}',
      headers: { 'content-type': 'application/json' },
    });
    await service.stop();
    await collector.close();

    expect(answer.status).toBe(200);
    const byName = Map.groupBy(collector.spans, (span) => span.name);
    expect([...byName.keys()].toSorted()).toEqual(
      ['POST /relay/:topic', 'apply chunk', `poll ${topic}`, `send ${topic}`].toSorted(),
    );
    const [request] = byName.get('POST /relay/:topic') ?? [];
    const [poll] = byName.get(`poll ${topic}`) ?? [];
    const [chunk] = byName.get('apply chunk') ?? [];
    const sent = byName.get(`send ${topic}`) ?? [];
    expect(sent.map((span) => span.parentSpanId)).toEqual(Array.from({ length: 100 }, () => request?.spanId));
    expect(chunk?.parentSpanId).toBe(poll?.spanId);
    expect(chunk?.links?.map((link) => link.spanId)).toEqual(sent.slice(0, 64).map((span) => span.spanId));
  });
});

async function readTraces(zipkin: Zipkin, traceIds: string[]): Promise<ZipkinSpan[]> {
  const response = await fetch(`${zipkin.url}/api/v2/traceMany?traceIds=${traceIds.join(',')}`);
  const traces: ZipkinSpan[][] = JSON.parse(await response.text());
  return traces.flat();
}
