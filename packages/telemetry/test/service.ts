/** A service in small, started as real ones are: `node service.ts` without a flag, telemetry first, static imports. */
import '@realtime-service/telemetry/register';
import { request as httpRequest } from 'node:http';
import {
  createLogger,
  currentTraceparent,
  shutdownTelemetry,
  traceRoutes,
  withSpan,
} from '@realtime-service/telemetry';
import Fastify from 'fastify';
import { Kafka, logLevel } from 'kafkajs';
import { Pool } from 'pg';

const { DATABASE_URL, KAFKA_BROKERS, PEER_URL } = process.env;
const logger = createLogger();
const pool = new Pool({ connectionString: DATABASE_URL });
const kafka = new Kafka({ brokers: [KAFKA_BROKERS ?? 'none:1'], logLevel: logLevel.NOTHING });
const app = Fastify();
traceRoutes(app);

app.get('/livez', () => 'alive');

app.post<{ Params: { roomId: string } }>('/rooms/:roomId/join', async (request) => {
  if (DATABASE_URL !== undefined) await pool.query('SELECT $1::text AS room', [request.params.roomId]);
  if (PEER_URL !== undefined) {
    await fetch(`${PEER_URL}/fetch?access_token=outgoing-secret`);
    await getByHttp(`${PEER_URL}/http`);
  }
  logger.info({ room: request.params.roomId }, 'joined');
  return { traceparent: currentTraceparent() ?? null };
});

/** Sends records in one batch and reads them back in one chunk, as the event log does. */
app.post<{ Params: { topic: string }; Body: { count: number } }>('/relay/:topic', async (request) => {
  const { topic } = request.params;
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({
    topic,
    messages: Array.from({ length: request.body.count }, (_, n) => ({ key: 'room-42', value: String(n) })),
  });
  await producer.disconnect();
  const consumer = kafka.consumer({ groupId: `relay-${topic}` });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const { promise, resolve } = Promise.withResolvers<void>();
  await consumer.run({
    eachBatch: async ({ batch }) => {
      const links = batch.messages.map((message) => message.headers?.['traceparent']?.toString());
      await withSpan('apply chunk', { links }, async () => logger.info({ records: links.length }, 'chunk applied'));
      resolve();
    },
  });
  await promise;
  await consumer.disconnect();
  return {};
});

function getByHttp(url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    httpRequest(url, (response) => response.resume().on('end', resolve))
      .on('error', reject)
      .end();
  });
}

process.once('SIGTERM', async () => {
  await app.close();
  await pool.end();
  await shutdownTelemetry();
  process.exit(0);
});

process.stdout.write(`${JSON.stringify({ url: await app.listen({ port: 0, host: '127.0.0.1' }) })}\n`);
