import { once } from 'node:events';
import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { requireDatabase } from './named-database.ts';
import { freePort } from './ports.ts';
import { StartFailure } from './start-failure.ts';

test.for(['127.0.0.1', 'localhost'])('names host and port where nothing listens, and no password: %s', async (host) => {
  const port = await freePort();
  const failure: unknown = await requireDatabase(`postgres://me:hush@${host}:${port}/x`).catch((error) => error);
  expect(failure).toBeInstanceOf(StartFailure);
  expect(String(failure)).toContain(`DATABASE_URL, ${host}:${port}, cannot be used: nothing listens there.`);
  expect(String(failure)).not.toContain('hush');
});

test('tells that something else than PostgreSQL answers', async () => {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = Object(server.address());
  await expect(requireDatabase(`postgres://me:hush@127.0.0.1:${port}/x`)).rejects.toThrow(
    `127.0.0.1:${port}, cannot be used: Connection terminated unexpectedly`,
  );
  server.close();
});

test.for(['postgres://me:hush@:x:y/', 'me:hush@db.example/x', 'mysql://me:hush@db.example/x'])(
  'tells that the address is none, without repeating it: %s',
  async (url) => {
    await expect(requireDatabase(url)).rejects.toThrow(/^DATABASE_URL is wrong: (?!.*hush)/);
  },
);
