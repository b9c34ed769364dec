import { setTimeout as delay } from 'node:timers/promises';
import { SimulateScenarioKind } from '@livekit/rtc-node';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { describe, expect, test } from 'vitest';
import { behind, returned, validate } from './gate-door.ts';

const allBackWithinMs = 15_000;

describeWith(['postgres', 'livekit', 'chromium', 'nginx'], 'outages behind the gate', () => {
  const { system, idOf, createRoom, tokenFor, enter, enterByBrowser, listed, knock } = behind('nginx');

  test('without the database nobody enters, and calls go on; then everybody enters again', async () => {
    const room = 'database-away';
    await createRoom(room, { ann: 'host', bob: 'speaker', cleo: 'listener' });
    const [ann, bob, forCleo] = [
      await enterByBrowser('ann', room),
      await enter('bob', room),
      await tokenFor('cleo', room),
    ];
    await bob.publishVideo();
    const annSeesBob = async () => (await ann.seenPlaying()).includes(idOf('bob'));
    await until('ann sees bob', annSeesBob, 20_000);

    await system().postgres.kill();
    await until('the door says 503', async () => (await knock(validate(forCleo))) === 503);
    for (let attempt = 0; attempt < 20; attempt += 1) expect(await knock(validate(forCleo))).toBe(503);
    expect(await annSeesBob()).toBe(true);
    // Its signalling drops now, and it tries again until it is let in.
    const back = returned(bob);
    await bob.room.simulateScenario(SimulateScenarioKind.SIMULATE_FULL_RECONNECT);
    await delay(2_000);
    expect(await knock(validate(forCleo))).toBe(503);

    await system().postgres.start();
    await until('the door opens again', async () => (await knock(validate(forCleo))) === 200, 20_000);
    await back;
    await bob.leave();
  }, 120_000);

  describe.each([1_000, 6_000])('LiveKit killed, and back after %i ms', (awayMs) => {
    test(`all three come back within ${allBackWithinMs} ms`, async () => {
      const room = `livekit-away-${awayMs}`;
      await createRoom(room, { ann: 'host', bob: 'speaker', cleo: 'listener' });
      const tab = await enterByBrowser('ann', room);
      const others = [await enter('bob', room), await enter('cleo', room)];
      const everybody = [idOf('ann'), idOf('bob'), idOf('cleo')];
      await system().livekit.kill();
      await delay(awayMs);
      await system().livekit.start();
      const startedAtMs = performance.now();
      const backAfterMs = new Map<string, number>();
      await until(
        'everybody is back',
        async () => {
          for (const { identity, state } of await listed(room))
            if (state === 'ACTIVE' && !backAfterMs.has(identity))
              backAfterMs.set(identity, Math.round(performance.now() - startedAtMs));
          return (
            everybody.every((identity) => backAfterMs.has(identity)) && (await tab.state()).connection === 'connected'
          );
        },
        60_000,
      );
      process.stderr.write(`back after the start: ${[...backAfterMs.values()].join(', ')} ms\n`);
      expect(performance.now() - startedAtMs).toBeLessThan(allBackWithinMs);
      await Promise.all(others.map(({ leave }) => leave()));
    }, 120_000);
  });
});
