import { SimulateScenarioKind } from '@livekit/rtc-node';
import { gateProxyNames, signalIn, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { permissionsOf, toParticipantPermission } from '@realtime-service/room-model';
import { expect, test } from 'vitest';
import { behind, refreshed, returned, validate } from './gate-door.ts';
import { connect } from './participant.ts';

for (const name of gateProxyNames) {
  describeWith(['postgres', 'livekit', 'chromium', name], `real clients behind ${name}`, () => {
    const door = behind(name);
    const { system, idOf, url, createRoom, tokenFor, enterByBrowser, remove, setRole, listed, knock, chromium } = door;

    test('rtc-node joins, resumes, reconnects in full, and enters again with a refresh token', async () => {
      await createRoom('comes-back', { ann: 'host' });
      const token = await tokenFor('ann', 'comes-back');
      const ann = await connect(url(), token);
      const [first] = await listed('comes-back');

      const resumed = returned(ann);
      await ann.room.simulateScenario(SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT);
      await resumed;
      expect((await listed('comes-back')).map(({ sid }) => sid)).toEqual([first?.sid]);
      const back = returned(ann);
      await ann.room.simulateScenario(SimulateScenarioKind.SIMULATE_FULL_RECONNECT);
      await back;
      await until('ann has a new session', async () => {
        const sids = (await listed('comes-back')).map(({ sid }) => sid);
        return sids.length === 1 && sids[0] !== first?.sid;
      });

      const kept = await refreshed(ann, token);
      await ann.leave();
      const again = await connect(url(), kept);
      expect(again.identity).toBe(idOf('ann'));
      await again.leave();
    }, 90_000);

    test('livekit-client joins, resumes and reconnects in full', async () => {
      await createRoom('browser-comes-back', { ann: 'host' });
      const ann = await enterByBrowser('ann', 'browser-comes-back');
      const [first] = await listed('browser-comes-back');
      await ann.simulate('signal-reconnect');
      await until('ann resumed', async () => (await ann.state()).returns === 1, 20_000);
      expect((await listed('browser-comes-back'))[0]?.sid).toBe(first?.sid);
      await ann.simulate('full-reconnect');
      await until('ann reconnected', async () => (await ann.state()).returns === 2, 20_000);
      expect((await ann.state()).connection).toBe('connected');
    }, 90_000);

    test('whoever is removed is out, and stays out with every token', async () => {
      await createRoom('removal', { ann: 'host', bob: 'speaker' });
      const original = await tokenFor('bob', 'removal');
      const [bob, tab] = [await connect(url(), original), await enterByBrowser('ann', 'removal')];
      const kept = [original, await refreshed(bob, original)];
      const keptByAnn = await tab.token();
      await remove('bob', 'removal');
      await bob.out;
      for (const token of kept) {
        expect(await knock(validate(token))).toBe(403);
        await expect(signalIn(url(), token)).rejects.toThrow('refused');
        await expect(connect(url(), token)).rejects.toThrow();
      }
      await remove('ann', 'removal');
      await until('the browser is out', async () => (await tab.disconnectReason()) !== undefined);
      const startedAtMs = performance.now();
      await expect(chromium().connect(url(), keptByAnn)).rejects.toThrow();
      // It could read the refusal: else it would try for 40 s.
      expect(performance.now() - startedAtMs).toBeLessThan(10_000);
      expect(await listed('removal')).toEqual([]);
    }, 120_000);

    test('a session beside one’s own is not had by a form in the body', async () => {
      await createRoom('beside', { ann: 'host' });
      const token = await tokenFor('ann', 'beside');
      await door.signalBeside(token);
      expect((await listed('beside')).filter(({ identity }) => identity !== idOf('ann'))).toEqual([]);
    });

    test('a rich old token brings no right back', async () => {
      await createRoom('demotion', { ann: 'host', bob: 'speaker' });
      const rich = await tokenFor('bob', 'demotion');
      await setRole('bob', 'demotion', 'listener');
      await until('bob is a listener', async () => {
        const response = await system().join('bob', 'demotion');
        return ((await response.json()) as { role: string }).role === 'listener';
      });
      const bob = await connect(url(), rich);
      const [present] = await listed('demotion');
      expect(present?.permission).toEqual(toParticipantPermission(permissionsOf('listener', null, [])));
      await bob.leave();
    }, 60_000);
  });
}
