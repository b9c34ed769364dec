import { describe, expect, test } from 'vitest';
import { type JoinOptions, joinRoom } from './join-room.ts';

const answer = { server_url: 'ws://x', participant_token: 'a.b.c', role: 'speaker' };
const admitted = () => Response.json(answer);
const problem =
  (status: number, code: string, headers: Record<string, string> = {}) =>
  () =>
    Response.json(
      { status, code, title: code },
      { status, headers: { ...headers, 'content-type': 'application/problem+json' } },
    );
const unreachable = () => {
  throw new TypeError('fetch failed');
};

/** Joins with a service that gives these answers in turn, and for ever the last one; waits take no time. */
async function join(answers: readonly (() => Response)[], more: Partial<JoinOptions> = {}) {
  const asked: Request[] = [];
  const waits: number[] = [];
  const outcome = await joinRoom({
    apiUrl: 'http://api',
    roomId: 'a/b',
    accessToken: 'token',
    fetch: async (url, init) => {
      asked.push(new Request(url, init));
      const give = answers[Math.min(asked.length, answers.length) - 1];
      return give?.() ?? Response.error();
    },
    wait: async () => undefined,
    onWait: (delayMs) => waits.push(delayMs),
    ...more,
  }).catch((error: unknown) => ({ kind: 'failed', error }));
  return { outcome, asked, waits };
}

describe('joinRoom', () => {
  test('asks once with the access token, the room spelled as one path segment', async () => {
    const { asked, waits, outcome } = await join([admitted], { body: { device_id: 'd1' } });
    expect(outcome).toEqual({ kind: 'admitted', answer });
    expect(waits).toEqual([]);
    expect(asked).toHaveLength(1);
    expect(asked[0]?.url).toBe('http://api/api/realtime/rooms/a%2Fb/join');
    expect(asked[0]?.headers.get('authorization')).toBe('Bearer token');
    expect(await asked[0]?.json()).toEqual({ device_id: 'd1' });
  });

  test.for([401, 403, 404, 409, 410, 422, 423, 425, 429, 500])('takes %i for an answer', async (status) => {
    const { asked, outcome } = await join([problem(status, 'some_code'), admitted]);
    expect(outcome).toMatchObject({ kind: 'refused', problem: { status, code: 'some_code' } });
    expect(asked).toHaveLength(1);
  });

  test('asks again after 503 and after no answer, with waits that grow', async () => {
    const unavailable = problem(503, 'overloaded');
    const { waits, outcome } = await join([unavailable, unreachable, unavailable, admitted]);
    expect(outcome).toEqual({ kind: 'admitted', answer });
    expect(waits).toHaveLength(3);
    waits.forEach((delayMs, index) => {
      expect(delayMs).toBeGreaterThanOrEqual(125 * 2 ** index);
      expect(delayMs).toBeLessThanOrEqual(250 * 2 ** index);
    });
  });

  test('waits as long as Retry-After says', async () => {
    const { waits } = await join([problem(503, 'projection_stale', { 'retry-after': '7' }), admitted]);
    expect(waits).toEqual([7000]);
  });

  test('gives up at last: with the problem, or with the error', async () => {
    const stale = await join([problem(503, 'projection_stale')]);
    expect(stale.outcome).toMatchObject({ kind: 'refused', problem: { code: 'projection_stale' } });
    expect(stale.asked).toHaveLength(8);
    expect(Math.max(...stale.waits)).toBeLessThanOrEqual(8000);
    expect((await join([unreachable])).outcome).toEqual({ kind: 'failed', error: new TypeError('fetch failed') });
  });

  test('connects with the answer, and asks for a new token when the connection fails', async () => {
    const tokens: string[] = [];
    const connect: JoinOptions['connect'] = async ({ participant_token: token }) => {
      tokens.push(token);
      if (tokens.length < 3)
        throw Object.assign(new Error('could not connect'), { status: tokens.length === 1 ? 503 : undefined });
    };
    const { asked, outcome } = await join([admitted], { connect });
    expect(outcome).toMatchObject({ kind: 'admitted' });
    expect(tokens).toHaveLength(3);
    expect(asked).toHaveLength(3);
  });

  test('does not insist when LiveKit, or the gate before it, refuses', async () => {
    const refusal = Object.assign(new Error('no'), { status: 403 });
    const { asked, outcome } = await join([admitted], { connect: () => Promise.reject(refusal) });
    expect(outcome).toEqual({ kind: 'failed', error: refusal });
    expect(asked).toHaveLength(1);
  });

  test('stops waiting when it is told to', async () => {
    const leaving = new AbortController();
    const joining = joinRoom({
      apiUrl: 'http://api',
      roomId: 'r',
      accessToken: 't',
      fetch: async () => problem(503, 'overloaded', { 'retry-after': '3600' })(),
      signal: leaving.signal,
      onWait: () => queueMicrotask(() => leaving.abort(new Error('left'))),
    });
    await expect(joining).rejects.toThrow('left');
  });

  test('understands what a proxy answers', async () => {
    const { outcome } = await join([() => new Response('<html>', { status: 413 })]);
    expect(outcome).toMatchObject({
      kind: 'refused',
      problem: { status: 413, code: 'unknown', title: 'The service answered 413.' },
    });
  });
});
