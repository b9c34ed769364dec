import { SimulateScenarioKind } from '@livekit/rtc-node';
import { signalIn, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { roles, toVideoGrant } from '@realtime-service/room-model';
import { decodeJwt, SignJWT } from 'jose';
import { beforeAll, describe, expect, test } from 'vitest';
import { behind, refreshed, returned, validate } from './gate-door.ts';
import { connect } from './participant.ts';
import { secondKey } from './system.ts';

describeWith(['postgres', 'livekit', 'chromium', 'nginx'], 'attempts at the gate', () => {
  const { system, idOf, url, createRoom, tokenFor, enterByBrowser, remove, listed, knock } = behind('nginx');

  describe('of somebody who was removed', () => {
    const room = 'removed-from';
    let kept: string;
    let rightful: string;

    beforeAll(async () => {
      await createRoom(room, { ann: 'host', bob: 'speaker' });
      const original = await tokenFor('bob', room);
      const bob = await connect(url(), original);
      kept = await refreshed(bob, original);
      await remove('bob', room);
      await bob.out;
      rightful = await tokenFor('ann', room);
      expect(await knock(validate(rightful))).toBe(200);
    }, 60_000);

    const uris: readonly (readonly [string, (token: string, other: string) => string, number])[] = [
      ['the plain way', validate, 403],
      ['LiveKit’s next version', (token) => `/rtc/v1/validate?access_token=${token}&join_request=`, 403],
      [
        'two tokens, a rightful one first',
        (token, other) => `/rtc/validate?access_token=${other}&access_token=${token}`,
        401,
      ],
      [
        'two tokens, a rightful one last',
        (token, other) => `/rtc/validate?access_token=${token}&access_token=${other}`,
        401,
      ],
      [
        'a token that Go’s parser skips',
        (token, other) => `/rtc/validate?access_token=${other};&access_token=${token}`,
        401,
      ],
      [
        'an escape that Go’s parser skips',
        (token, other) => `/rtc/validate?access_token=${other}%zz&access_token=${token}`,
        401,
      ],
      ['two slashes', (token) => `//rtc?access_token=${token}`, 404],
      ['an escaped path', (token) => `/%72tc?access_token=${token}`, 404],
      ['a dot', (token) => `/./rtc?access_token=${token}`, 404],
      ['the agents’ door', (token) => `/agent?access_token=${token}`, 404],
    ];
    test.each(uris)('by %s', async (_name, uri, status) => {
      expect(await knock(uri(kept, rightful))).toBe(status);
      expect(await knock(uri(kept, rightful), { connection: 'Upgrade', upgrade: 'websocket' })).toBe(status);
    });

    test('with a URI of their own for the gate', async () => {
      for (const header of ['x-original-uri', 'x-forwarded-uri', 'x_original_uri'])
        expect(await knock(validate(kept), { [header]: validate(rightful) })).toBe(403);
    });

    test('with a token in the header, beside a rightful one in the query', async () => {
      expect(await knock(validate(rightful), { authorization: `Bearer ${kept}` })).toBe(403);
      expect(await knock(validate(kept), { authorization: `bearer ${rightful}` })).toBe(401);
    });

    test('by WHIP, which LiveKit would take: for nobody', async () => {
      for (const token of [kept, rightful])
        for (const path of ['/whip/v1', '//whip/v1'])
          expect(
            await knock(path, { authorization: `Bearer ${token}`, 'content-type': 'application/sdp' }, 'POST'),
          ).toBe(404);
    });

    test('nobody is inside', async () => {
      expect(await listed(room)).toEqual([]);
    });
  });

  test('a session beside one’s own is refused', async () => {
    await createRoom('beside', { ann: 'host' });
    const token = await tokenFor('ann', 'beside');
    expect(await knock(`/rtc?publish=screen&access_token=${token}`)).toBe(403);
    expect(await listed('beside')).toEqual([]);
  });

  test('a client that only signals passes, and is ended with its membership', async () => {
    await createRoom('only-signals', { ann: 'host', bob: 'speaker' });
    const bob = await signalIn(url(), await tokenFor('bob', 'only-signals'));
    await remove('bob', 'only-signals');
    await bob.closed;
    expect(await knock(validate(bob.refreshToken))).toBe(403);
    await until('bob is listed no more', async () => (await listed('only-signals')).length === 0);
  }, 60_000);

  test('a second key of LiveKit’s lets rightful people in, and nobody else', async () => {
    await createRoom('second-key', { ann: 'host' });
    const bySecondKey = (user: string) =>
      new SignJWT({ attributes: { 'rt.user': user }, video: toVideoGrant('second-key', roles.host.permissions) })
        .setProtectedHeader({ alg: 'HS256' })
        .setIssuer(secondKey.apiKey)
        .setSubject(user)
        .setExpirationTime('1m')
        .sign(new TextEncoder().encode(secondKey.secret));
    expect(await knock(validate(await bySecondKey(idOf('dan'))))).toBe(403);
    const original = await bySecondKey(idOf('ann'));
    const ann = await connect(url(), original);
    const kept = await refreshed(ann, original);
    // LiveKit takes any of its keys.
    expect(['e2e-key', secondKey.apiKey]).toContain(decodeJwt(kept).iss);
    const back = returned(ann);
    await ann.room.simulateScenario(SimulateScenarioKind.SIMULATE_FULL_RECONNECT);
    await back;
    await ann.leave();
  }, 60_000);

  test('whoever is inside a locked room comes back into it, by browser too; nobody new does', async () => {
    const room = 'locked';
    await createRoom(room, { ann: 'host', bob: 'speaker', cleo: 'listener' });
    const forCleo = await tokenFor('cleo', room);
    const tab = await enterByBrowser('bob', room);
    await system().publish({ type: 'room.locked', subject: room });
    await until('the room is locked', async () => (await knock(validate(forCleo))) === 403);
    await tab.simulate('full-reconnect');
    await until('the browser is back', async () => (await tab.state()).returns === 1, 20_000);
  }, 60_000);
});
