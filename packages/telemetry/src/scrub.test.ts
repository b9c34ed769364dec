import { describe, expect, it } from 'vitest';
import { scrub, scrubLines } from './scrub.ts';

const jwt = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTcifQ.c2lnbmF0dXJl_-';

describe('scrub', () => {
  it.each([
    [`invalid token: ${jwt}`, 'invalid token: [jwt]'],
    [`GET /rtc?access_token=${jwt}&auto_subscribe=1`, 'GET /rtc?access_token=[jwt]&auto_subscribe=1'],
    [`"${jwt}", "${jwt}"`, '"[jwt]", "[jwt]"'],
    [`cut short: ${jwt.slice(0, 30)}`, 'cut short: [jwt]'],
    ['encrypted: eyJhbGciOiJSU0EifQ.a.b.c.d', 'encrypted: [jwt]'],
    ['authorization: Bearer 2YotnFZFEjr1zCsicMWpAA', 'authorization: Bearer [redacted]'],
    ['authorization: basic  dXNlcjpwYXM=', 'authorization: basic [redacted]'],
    ['encrypted with a shared key: eyJhbGciOiJkaXIifQ..a.b.c', 'encrypted with a shared key: [jwt]'],
    ['connect postgres://rt:hunter2@db:5432/rt failed', 'connect postgres://[redacted]@db:5432/rt failed'],
    ['none of http://:a@b, http://c:d@e answers', 'none of http://[redacted]@b, http://[redacted]@e answers'],
  ])('given %j, then %j', (text, scrubbed) => {
    expect(scrub(text)).toBe(scrubbed);
  });

  it.each(['room-42 is closed', 'keyJob.one.two', 'see https://example.test/a:b@c', 'time 12:30:01.5'])(
    'leaves %j alone',
    (text) => {
      expect(scrub(text)).toBe(text);
    },
  );
});

describe('scrubLines', () => {
  it.each([
    [{ authorization: 'x' }],
    [{ req: { headers: { Authorization: ['x', 'y'] } } }],
    [{ a: [{ b: { c: { d: { turnPassword: 'x' } } } }] }],
    [{ streamKey: 'a"b\\', other: 1 }],
    [{ token: 'x', access_token: 'x', refresh_token: 'x', logout_token: 'x', participant_token: 'x', cookie: 'x' }],
    [{ accessToken: 'x', refreshToken: 'x', logoutToken: 'x', participantToken: 'x', authorization: 'x' }],
    [{ secret: 'x', api_secret: 'x', client_secret: 'x', turn_password: 'x', stream_key: 'x' }],
    [{ apiSecret: 'x', clientSecret: 'x', turnPassword: 'x', streamKey: 'x' }],
    [{ user: { password: 'x', email: 'ann@example.test' } }],
  ])('given %j, then no secret and still JSON of the same shape', (value) => {
    const parsed: unknown = JSON.parse(scrubLines(JSON.stringify(value)));
    expect(JSON.stringify(parsed)).not.toMatch(/"x"|"y"|a\\"b|ann@/);
    expect(keysOf(parsed)).toEqual(keysOf(value));
  });

  it.each([{ tokenExpiresAt: 'soon' }, { room: 'token' }, { secretary: 'bob' }, { msg: 'token refused', tokens: 3 }])(
    'leaves %j alone',
    (value) => {
      expect(scrubLines(JSON.stringify(value))).toBe(JSON.stringify(value));
    },
  );

  it.each([
    [`{"token" : "x"}`, '{"token":"[redacted]"}'],
    [`{"token":"x`, '{"token":"[redacted]"'],
    [`{"token":"x\\`, '{"token":"[redacted]"'],
    [`{"token":["x`, '{"token":"[redacted]"'],
  ])("given others' JSON, cut short too, as %s, then %s", (text, scrubbed) => {
    expect(scrubLines(text)).toBe(scrubbed);
  });

  it('given several lines, then each as if it were alone', () => {
    const lines = [
      { email: 'ann@example.test' },
      { msg: 'cut "token":["x' },
      { token: ['x'] },
      { room: 'r' },
      { msg: jwt },
    ];
    const texts = lines.map((line) => `${JSON.stringify(line)}\n`);
    expect(scrubLines(texts.join(''))).toBe(texts.map(scrubLines).join(''));
  });

  it('given a megabyte of almost-secrets, then it takes no longer than the length', () => {
    const startedAtMs = performance.now();
    scrubLines(`{"msg":"${'"token":"eyJ.\\\\://a:Bearer '.repeat(40_000)}"}`);
    expect(performance.now() - startedAtMs).toBeLessThan(1_000);
  });
});

function keysOf(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, keysOf(each)]));
}
