import { createLogger } from '@realtime-service/telemetry';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  answerKeys,
  createSigningKey,
  type KeyServer,
  type SigningKey,
  startKeyServer,
} from '../test/identity-provider.ts';
import { createKeySet, type KeySet } from './key-set.ts';

let k1: SigningKey;
let k2: SigningKey;
let server: KeyServer;
let keys: KeySet;
let nowMs: number;
let lines: string[];

const header = (kid: string) => ({ alg: 'RS256', kid });
const seconds = (count: number): void => {
  nowMs += count * 1_000;
};

beforeAll(async () => {
  [k1, k2] = await Promise.all([createSigningKey('k1'), createSigningKey('k2')]);
});
beforeEach(async () => {
  nowMs = Date.parse('2026-03-01T12:00:00Z');
  server = await startKeyServer(answerKeys(k1.jwk));
  lines = [];
  const logger = createLogger({ service: 'api', destination: { write: (line) => lines.push(line) } });
  keys = createKeySet({ url: server.url, logger, now: () => nowMs, fetchWithinMs: 2_000 });
});
afterEach(async () => {
  keys.stop();
  await server.close();
});

const isFound = async (kid: string): Promise<boolean> => (await keys.find(header(kid))) !== undefined;

describe('rotation', () => {
  test('a new key is fetched at its first use, once for all who wait', async () => {
    expect(await isFound('k1')).toBe(true);
    server.answer = answerKeys(k1.jwk, k2.jwk);
    seconds(31);
    expect(await Promise.all(Array.from({ length: 20 }, () => isFound('k2')))).toEqual(Array(20).fill(true));
    expect(server.requests()).toBe(2);
  });

  test('a new key that comes within 30 s of a fetch waits for the rest of them', async () => {
    expect(await isFound('k1')).toBe(true);
    server.answer = answerKeys(k1.jwk, k2.jwk);
    seconds(29);
    expect(await keys.find(header('k2'))).toBeUndefined();
    seconds(1);
    expect(await isFound('k2')).toBe(true);
  });

  test('a withdrawn key is gone after the next fetch', async () => {
    expect(await isFound('k1')).toBe(true);
    server.answer = answerKeys(k2.jwk);
    seconds(31);
    expect(await isFound('k2')).toBe(true);
    expect(await keys.find(header('k1'))).toBeUndefined();
  });

  test('500 made-up key ids in 10 s cause one fetch, and good callers notice nothing', async () => {
    expect(await isFound('k1')).toBe(true);
    seconds(60);
    for (let n = 0; n < 500; n += 1) {
      nowMs += 20;
      expect(await isFound(`made-up-${n}`)).toBe(false);
      expect(await isFound('k1')).toBe(true);
    }
    expect(server.requests()).toBe(2);
  });
});

describe('once started', () => {
  /** Time passes for the clock and for what waits for it. */
  const pass = (count: number): void => {
    seconds(count);
    vi.advanceTimersByTime(count * 1_000);
  };

  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
  afterEach(() => void vi.useRealTimers());

  test('a withdrawn key is gone after 200 s, though nobody names another', async () => {
    await keys.start();
    server.answer = answerKeys(k2.jwk);
    pass(199);
    expect(await isFound('k1')).toBe(true);
    pass(1);
    await vi.waitFor(async () => expect(await keys.find(header('k1'))).toBeUndefined());
    expect(server.requests()).toBe(2);
  });

  test('a provider in trouble is asked twice a minute, until it is well', async () => {
    await keys.start();
    server.answer = (response) => response.writeHead(503).end();
    for (const times of [2, 3, 4]) {
      pass(times === 2 ? 200 : 30);
      await vi.waitFor(() => expect(server.requests()).toBe(times));
    }
  });

  test.each([
    ['between two fetches', 0],
    ['during one', 200],
  ])('the provider is asked no more after a stop %s', async (_, passed) => {
    await keys.start();
    pass(passed);
    keys.stop();
    await vi.waitFor(() => expect(keys.ageMs()).toBe(0));
    await new Promise((resolve) => setImmediate(resolve));
    pass(200);
    seconds(1);
    // It may be asked only where it was not just now.
    expect(await keys.findForCertain(header('k2'))).toBeUndefined();
  });
});

describe('for certain', () => {
  const notKnownYet = { code: 'store_unavailable', reason: 'key_not_known_yet' };

  test('a key that is not there is unknown only where the issuer was asked since', async () => {
    expect(await keys.findForCertain(header('k2'))).toBeUndefined();
    seconds(1);
    await expect(keys.findForCertain(header('k2'))).rejects.toMatchObject({
      ...notKnownYet,
      details: { retryAfterSeconds: 29 },
    });
    expect(await keys.findForCertain(header('k1'))).toBeDefined();
    seconds(29);
    expect(await keys.findForCertain(header('k2'))).toBeUndefined();
    expect(server.requests()).toBe(2);
  });

  test("a rotation while a stranger's token has used up the fetch: later, not never", async () => {
    expect(await isFound('made-up')).toBe(false);
    server.answer = answerKeys(k1.jwk, k2.jwk);
    seconds(1);
    await expect(keys.findForCertain(header('k2'))).rejects.toMatchObject(notKnownYet);
    seconds(29);
    expect(await keys.findForCertain(header('k2'))).toBeDefined();
  });

  test('an answer that was asked for before says nothing', async () => {
    const first = keys.find(header('k2'));
    await Promise.resolve();
    seconds(1);
    await expect(keys.findForCertain(header('k2'))).rejects.toMatchObject(notKnownYet);
    expect(await first).toBeUndefined();
    expect(server.requests()).toBe(1);
  });

  test('a new key is waited for, though the issuer takes longer than callers wait', async () => {
    expect(await isFound('k1')).toBe(true);
    const asked = Promise.withResolvers<Parameters<KeyServer['answer']>[0]>();
    server.answer = asked.resolve;
    seconds(30);
    const found = keys.findForCertain(header('k2'));
    // A caller's token with that key, whose wait is over first.
    expect(await keys.find(header('k2'))).toBeUndefined();
    answerKeys(k1.jwk, k2.jwk)(await asked.promise);
    expect(await found).toBeDefined();
  });

  test('nothing is, while the issuer does not answer', async () => {
    expect(await isFound('k1')).toBe(true);
    server.answer = (response) => response.writeHead(503).end();
    seconds(60);
    await expect(keys.findForCertain(header('k2'))).rejects.toMatchObject(notKnownYet);
    expect(await keys.findForCertain(header('k1'))).toBeDefined();
  });
});

test('a key is imported once, however many tokens name it', async () => {
  const found = await keys.find(header('k1'));
  const again = await keys.find(header('k1'));
  expect(found?.key).toBeInstanceOf(CryptoKey);
  expect(again?.key).toBe(found?.key);
});

describe('a provider in trouble', () => {
  const troubles: readonly (readonly [string, KeyServer['answer']])[] = [
    ['503', (response) => response.writeHead(503).end(JSON.stringify({ keys: [k2.jwk] }))],
    ['never an answer', () => undefined],
    ['an answer that never ends', (response) => response.writeHead(200).write('{"keys":[')],
    ['an empty set', answerKeys()],
    ['a set of encryption keys', (response) => answerKeys({ ...k2.jwk, use: 'enc' })(response)],
    ['10 MB', (response) => response.end(JSON.stringify({ keys: [k2.jwk], x: 'x'.repeat(10_000_000) }))],
    ['a page', (response) => response.setHeader('content-type', 'text/html').end('<html>sign in</html>')],
    ['a redirect', (response) => response.writeHead(302, { location: '/elsewhere' }).end()],
    ['null', (response) => response.end('null')],
    ['a connection that breaks', (response) => response.destroy()],
  ];

  test.each(troubles)(
    '%s: the last good keys serve for a day, asked for twice a minute at most',
    async (_name, answer) => {
      expect(await isFound('k1')).toBe(true);
      server.answer = answer;
      seconds(60);
      expect(await keys.find(header('k2'))).toBeUndefined();
      expect(await keys.find(header('k2'))).toBeUndefined();
      expect(await isFound('k1')).toBe(true);
      expect(server.requests()).toBe(2);

      seconds(23 * 3_600);
      expect(await isFound('k1')).toBe(true);
      expect(keys.ageMs()).toBe((23 * 3_600 + 60) * 1_000);
      seconds(3_600);
      expect(keys.ageMs()).toBeUndefined();
      await expect(keys.find(header('k1'))).rejects.toMatchObject({ code: 'store_unavailable', reason: 'no_keys' });

      server.answer = answerKeys(k1.jwk);
      seconds(30);
      // A fetch that is never answered goes on for longer than callers wait.
      await vi.waitFor(async () => expect(await isFound('k1')).toBe(true), { timeout: 4_000 });
    },
  );

  test('one that takes longer than callers wait: its keys are there for those who come after', async () => {
    const asked = Promise.withResolvers<Parameters<KeyServer['answer']>[0]>();
    server.answer = asked.resolve;
    const logger = createLogger({ service: 'api', destination: { write: () => undefined } });
    const slow = createKeySet({ url: server.url, logger });
    await slow.start();
    await expect(slow.find(header('k1'))).rejects.toMatchObject({ code: 'store_unavailable', reason: 'no_keys' });
    answerKeys(k1.jwk)(await asked.promise);
    await vi.waitFor(async () => expect(await slow.find(header('k1'))).toBeDefined());
    expect(server.requests()).toBe(1);
    slow.stop();
  });

  test('one that was away at the start is asked again', async () => {
    server.answer = (response) => response.writeHead(503).end();
    await keys.start();
    await expect(keys.find(header('k1'))).rejects.toMatchObject({ code: 'store_unavailable', reason: 'no_keys' });
    server.answer = answerKeys(k1.jwk);
    seconds(30);
    expect(await isFound('k1')).toBe(true);
  });

  test('the log names the address that was asked', async () => {
    server.answer = (response) => response.writeHead(404).end();
    await keys.start();
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      expect.objectContaining({
        msg: 'identity keys could not be fetched',
        url: server.url,
        err: expect.objectContaining({ message: 'The key address answered 404' }),
      }),
    ]);
  });

  test('one that does not say what its keys are for has them sign', async () => {
    server.answer = answerKeys({ ...k1.jwk, use: undefined });
    expect(await isFound('k1')).toBe(true);
  });

  test('two keys of one id count as none', async () => {
    server.answer = answerKeys(k1.jwk, { ...k2.jwk, kid: 'k1' });
    expect(await keys.find(header('k1'))).toBeUndefined();
  });
});
