// What joins and the gate are measured against: the same framework, their routes, no work. It parses the same requests
// and serialises answers of the same shape and size.
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
app.get('/api/realtime/gate', (_request, reply) => reply.code(204).header('authorization', answer).send());
await app.listen({ host: '127.0.0.1', port: Number(PORT) });
process.on('SIGTERM', () => void app.close());
