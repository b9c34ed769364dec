import Fastify from 'fastify';
import { expect, test } from 'vitest';
import { registerDocs } from './docs.ts';

test('pages that could not be built are built when somebody asks again, and then once', async () => {
  let built = 0;
  const app = Fastify();
  registerDocs(app, async () => {
    built += 1;
    if (built === 1) throw new Error('too many open files');
    const docs = Fastify();
    docs.get('/docs', () => 'pages');
    await docs.ready();
    return docs;
  });
  const statuses: number[] = [];
  for (let asked = 0; asked < 3; asked += 1) statuses.push((await app.inject({ url: '/docs' })).statusCode);
  expect(statuses).toEqual([500, 200, 200]);
  expect(built).toBe(2);
});
