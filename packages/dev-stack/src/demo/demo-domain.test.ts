import { UnsecuredJWT } from 'jose';
import { afterEach, expect, test, vi } from 'vitest';
import { createDemoDomain } from './demo-domain.ts';

const issuer = {
  url: 'http://issuer.test',
  tokenUrl: 'http://issuer.test/token',
  jwksUrl: 'http://issuer.test/certs',
  signIn: async (name: string) => new UnsecuredJWT().setSubject(name).encode(),
  domainToken: async () => 'token',
};

const answers = (status: number, code: string) => async (url: string) =>
  url.endsWith('/events')
    ? Response.json({ accepted: 1, at_least: 'here' }, { status: 202 })
    : Response.json({ status, code }, { status, headers: { 'content-type': 'application/problem+json' } });

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** With all the waiting of a client that is told 503 in no time. */
const createRoom = async (status: number, code: string) => {
  vi.useFakeTimers();
  vi.stubGlobal('fetch', answers(status, code));
  const domain = await createDemoDomain('http://api.test', issuer);
  const outcome = Promise.allSettled([domain.createRoom()]);
  await vi.runAllTimersAsync();
  return (await outcome)[0];
};

test.each([
  [410, 'room_closed'],
  [503, 'projection_stale'],
])('a demo room that was changed or is in doubt (%i) is told of', async (status, code) => {
  expect(await createRoom(status, code)).toMatchObject({ status: 'fulfilled', value: { code } });
});

test.each([
  [401, 'unauthenticated'],
  [503, 'store_unavailable'],
])('%i %s is a failure', async (status, code) => {
  expect(await createRoom(status, code)).toMatchObject({
    status: 'rejected',
    reason: { message: expect.stringContaining(code) },
  });
});
