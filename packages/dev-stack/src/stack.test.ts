import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { PartAbsent } from './part.ts';
import { createStack, logTail } from './stack.ts';
import { StartFailure } from './start-failure.ts';

/** A stack that keeps a record of what it says, and of what its parts are told. */
function recordingStack() {
  const record: string[] = [];
  const stack = createStack((line) => record.push(line.trim().replace(/\s+[\d.]+ s$/, ' is up')));
  const part = (name: string, more: object = {}) => ({
    stop: async () => void record.push(`${name} stops`),
    kill: async () => void record.push(`${name} is killed`),
    ...more,
  });
  return { record, stack, part };
}

describe('a stack', () => {
  test('starts parts in order and ends them in reverse, each before the next', async () => {
    const { record, stack, part } = recordingStack();
    const slow = { stop: () => Promise.resolve().then(() => void record.push('b has stopped')) };
    await stack.add('a', async () => part('a'));
    await stack.add('b', async () => slow);
    await stack.add('c', async () => part('c'));
    await stack.stop();
    expect(record).toEqual(['a is up', 'b is up', 'c is up', 'c stops', 'b has stopped', 'a stops']);
  });

  test('waits for a part that is being started, to end it as well, and starts no other', async () => {
    const { record, stack, part } = recordingStack();
    const started = Promise.withResolvers<void>();
    const adding = stack.add('a', async () => {
      await started.promise;
      return part('a');
    });
    const stopping = stack.stop();
    void stack.add('b', async () => part('b'));
    started.resolve();
    await Promise.all([adding, stopping]);
    expect(record).toEqual(['a is up', 'a stops']);
  });

  test('kills everything while an orderly end is under way', async () => {
    const { record, stack, part } = recordingStack();
    const never = new Promise<never>(() => undefined);
    await stack.add('a', async () => ({ stop: async () => void record.push('a stops') }));
    await stack.add('b', async () => part('b', { stop: () => never }));
    void stack.stop();
    await stack.kill();
    expect(record.slice(2).toSorted()).toEqual(['a stops', 'b is killed']);
  });

  test('tells which part it was that refused to start, in words and without JSON', async () => {
    const { stack } = recordingStack();
    const log =
      '{"level":"fatal","time":"2026-01-02T03:04:05.678Z","service":"api","topic":"t","msg":"consumer ended"}';
    const starting = stack.add('api', () => Promise.reject(new Error(`the end of its log:\n${log}\nplain`)));
    await expect(starting).rejects.toThrow(StartFailure);
    await expect(starting).rejects.toThrow(
      'api could not be started: the end of its log:\n03:04:05 fatal consumer ended {"topic":"t"}\nplain',
    );
  });

  test('tells a foreseen failure in its own words alone', async () => {
    const { stack } = recordingStack();
    const failure = new StartFailure('the key is damaged.', { cause: new SyntaxError('Unexpected token') });
    const starting = stack.add('issuer', () => Promise.reject(failure));
    await expect(starting).rejects.toThrow(/^issuer could not be started: the key is damaged\.$/);
  });

  test('passes on that a part cannot be had', async () => {
    const { stack } = recordingStack();
    const absence = new PartAbsent({ part: 'LiveKit', missing: 'no Go.', consequence: 'No media.' });
    await expect(stack.add('LiveKit', () => Promise.reject(absence))).rejects.toBe(absence);
  });

  test('notices the part whose port refuses connections', async () => {
    const { stack, part } = recordingStack();
    const servers = [createServer().listen(0, '127.0.0.1'), createServer().listen(0, '127.0.0.1')];
    await Promise.all(servers.map((server) => once(server, 'listening')));
    const ports = servers.map((server) => server.address()).map((address) => Object(address).port as number);
    await stack.add('a', async () => part('a', { port: ports[0] }));
    await stack.add('b', async () => part('b', { port: ports[1] }));
    servers[1]?.close();
    expect((await stack.firstToEnd()).name).toBe('b');
    servers[0]?.close();
  });
});

test('the end of a log is told line by line', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'log-tail-'));
  writeFileSync(
    join(directory, 'log'),
    'one\ntwo\n{"not json\n{"time":"2026-01-02T03:04:05.678Z","level":"info","msg":"up"}\n',
  );
  expect(await logTail(join(directory, 'log'), 3)).toBe('two\n{"not json\n03:04:05 info up');
  expect(await logTail(join(directory, 'nothing'), 3)).toBe('');
  rmSync(directory, { recursive: true });
});
