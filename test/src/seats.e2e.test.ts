/** Seats and devices with real clients, behind a real proxy that asks the gate. */

import { DisconnectReason, SimulateScenarioKind } from '@livekit/rtc-node';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { expect, test } from 'vitest';
import { behind, returned } from './gate-door.ts';
import { connect } from './participant.ts';

describeWith(['postgres', 'livekit', 'chromium', 'nginx'], 'seats and devices', () => {
  const { system, idOf, url, createRoom, listed } = behind('nginx');

  const enterBy = async (user: string, room: string, body: object = {}) => {
    const { participant_token, participant_identity } = await system().enter(user, room, body);
    return { ...(await connect(url(), participant_token)), identity: participant_identity };
  };
  const statusOf = async (user: string, room: string, body: object = {}): Promise<number> =>
    (await system().join(user, room, body)).status;
  const update = (room: string, data: object) => system().publish({ type: 'room.updated', subject: room, data });
  const device = (device_id: string, take_over = false) => ({ device_id, take_over });

  test('single_oldest: the second device is refused; one that takes over ends the first, and may reconnect', async () => {
    await createRoom('oldest', { ann: 'speaker' });
    await update('oldest', { devicePolicy: { mode: 'single_oldest' } });
    await until('the policy counts', async () => {
      const { participant_identity } = await system().enter('ann', 'oldest', device('phone'));
      return participant_identity === idOf('ann');
    });
    const phone = await enterBy('ann', 'oldest', device('phone'));
    await until('the phone is seen', async () => (await statusOf('ann', 'oldest', device('desk'))) === 409);
    const desk = await enterBy('ann', 'oldest', device('desk', true));
    expect((await phone.out).reason).toBe(DisconnectReason.DUPLICATE_IDENTITY);
    await until('the desk is seen', async () => (await statusOf('ann', 'oldest', device('phone'))) === 409);
    const back = returned(desk);
    await desk.room.simulateScenario(SimulateScenarioKind.SIMULATE_FULL_RECONNECT);
    await back;
    expect(await listed('oldest')).toHaveLength(1);
    await desk.leave();
  }, 60_000);

  test('single_newest: who comes by the one identity ends all that were inside by others, when the policy came later', async () => {
    await createRoom('newest', { ann: 'speaker', bob: 'speaker' });
    const [phone, desk, bob] = [
      await enterBy('ann', 'newest', device('phone')),
      await enterBy('ann', 'newest', device('desk')),
      await enterBy('bob', 'newest', device('phone')),
    ];
    await update('newest', { devicePolicy: { mode: 'single_newest' } });
    await until('the policy counts', async () => {
      const { participant_identity } = await system().enter('ann', 'newest', device('tab'));
      return participant_identity === idOf('ann');
    });
    expect(await listed('newest')).toHaveLength(3);
    const tab = await enterBy('ann', 'newest', device('tab'));
    await Promise.all([phone.out, desk.out]);
    const second = await enterBy('ann', 'newest', device('tab-2'));
    expect((await tab.out).reason).toBe(DisconnectReason.DUPLICATE_IDENTITY);
    expect((await listed('newest')).map(({ identity }) => identity).sort()).toEqual([bob.identity, idOf('ann')].sort());
    await Promise.all([second.leave(), bob.leave()]);
  }, 60_000);

  const doors: readonly (readonly [what: string, close: (room: string) => Promise<unknown>, status: number])[] = [
    ['full', (room) => update(room, { maxParticipants: 2 }), 409],
    ['locked', (room) => system().publish({ type: 'room.locked', subject: room, data: {} }), 423],
    ['not open', (room) => update(room, { opensAt: '2099-01-01T00:00:00Z' }), 425],
    [
      'in doubt',
      (room) =>
        system().pool.query(
          `insert into suspects (scope, room_id, user_id, detail, is_healed, event_id, topic, "partition", "offset", fact_at,
            cause_topic, cause_partition, cause_offset)
            values ('room', $1, '', '', false, 'e', 't', 0, 0, now(), 't', 0, 0)`,
          [room],
        ),
      503,
    ],
  ];
  test.each(doors)(
    'a room that is %s throws nobody out, and their reconnect passes desk and door',
    async (what, close, status) => {
      const room = `door-${what}`;
      await createRoom(room, { ann: 'speaker', bob: 'speaker', cleo: 'speaker' });
      const ann = await enterBy('ann', room);
      const bob = await enterBy('bob', room);
      await until('both are seen', async () => {
        const { rowCount } = await system().pool.query('select from sessions where room_id = $1 and is_live', [room]);
        return rowCount === 2;
      });
      await close(room);
      await until('cleo is refused', async () => (await statusOf('cleo', room)) === status);

      const sids = async (): Promise<string> =>
        (await listed(room))
          .map(({ sid }) => sid)
          .sort()
          .join();
      const before = await sids();
      const resumed = returned(ann);
      await ann.room.simulateScenario(SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT);
      await resumed;
      expect(await sids()).toBe(before);
      const back = returned(bob);
      await bob.room.simulateScenario(SimulateScenarioKind.SIMULATE_FULL_RECONNECT);
      let isBack = false;
      const waiting = async (): Promise<void> => {
        while (!isBack) expect(await statusOf('cleo', room)).toBe(status);
      };
      const bobReturns = async (): Promise<void> => {
        await back;
        await until('bob has a new session', async () => (await sids()) !== before);
        isBack = true;
      };
      await Promise.all([waiting(), bobReturns()]);
      expect(await listed(room)).toHaveLength(2);
      for (const user of ['ann', 'bob']) expect(await statusOf(user, room)).toBe(200);
      expect(await statusOf('cleo', room)).toBe(status);
      await Promise.all([ann.leave(), bob.leave()]);
    },
    60_000,
  );
});
