// What the join is measured against: the same framework, one route, no work. It parses the same request and serialises
// an answer of the same shape and size.
import Fastify from 'fastify';

const { PORT, ANSWER } = process.env;
const answer: unknown = JSON.parse(ANSWER ?? '');

const app = Fastify();
app.get('/ready', async () => 'ready');
app.get('/cpu-seconds', async () => {
  const { user, system } = process.cpuUsage();
  return String((user + system) / 1e6);
});
app.post('/api/realtime/rooms/:roomId/join', async () => answer);
await app.listen({ host: '127.0.0.1', port: Number(PORT) });
process.on('SIGTERM', () => void app.close());
