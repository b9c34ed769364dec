/** Whoever was removed keeps tokens that LiveKit takes: the call's own, and the fresh ones that it was handed. */
import { setTimeout as delay } from 'node:timers/promises';
import { signalIn } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { refreshed } from './gate-door.ts';
import { type Identity, startDevIdentity } from './identity.ts';
import { connect, type Participant } from './participant.ts';
import { type System, startSystem } from './system.ts';

/** Eleven minutes (`GATE_ATTACK_SECONDS=660`) see every refresh token to its end. */
const attackSeconds = Number(process.env['GATE_ATTACK_SECONDS'] ?? 60);
const timeoutMs = (attackSeconds + 90) * 1_000;
const room = 'siege';

interface Siege {
  readonly url: string;
  /** Somebody else, who stays. */
  readonly ann: Participant;
  readonly kept: readonly string[];
}

/** Bob is removed in a call with two devices, each of which keeps its tokens. */
const removeFromCall = async (identity: Identity, system: System): Promise<Siege> => {
  const url = system.door?.url ?? system.livekit.url;
  await system.createRoom(room, { ann: 'host', bob: 'speaker' });
  const ann = await connect(url, (await system.enter('ann', room)).participant_token);
  const originals: string[] = [];
  for (const device_id of ['phone', 'desk'])
    originals.push((await system.enter('bob', room, { device_id })).participant_token);
  const devices = await Promise.all(originals.map((token) => connect(url, token)));
  const handed = await Promise.all(devices.map((one, at) => refreshed(one, originals[at] ?? '')));
  await system.publish({ type: 'member.removed', subject: room, data: { userId: identity.subjectOf('bob') } });
  await Promise.all(devices.map(({ out }) => out));
  return { url, ann, kept: [...originals, ...handed] };
};

/** One attempt a second with each token in turn; `look` is shown all the while whom else LiveKit lists. */
const besiege = async (
  { rooms }: System,
  { ann, kept }: Siege,
  attempt: (token: string, at: number) => void,
  look: (sid: string) => void,
): Promise<void> => {
  const endsAtMs = performance.now() + attackSeconds * 1_000;
  const watching = (async () => {
    while (performance.now() < endsAtMs + 2_000) {
      for (const { identity, sid } of await rooms.listParticipants(room)) if (identity !== ann.identity) look(sid);
      await delay(20);
    }
  })();
  let attempts = 0;
  for (; performance.now() < endsAtMs; attempts += 1) {
    attempt(kept[attempts % kept.length] ?? '', attempts);
    await delay(1_000);
  }
  await watching;
  expect(attempts).toBeGreaterThanOrEqual(attackSeconds * 0.9);
  expect(ann.room.isConnected).toBe(true);
  await ann.leave();
};

describeWith(['postgres', 'kafka', 'livekit', 'nginx'], 'one entry a second with every token that was kept', () => {
  let identity: Identity;
  let behindGate: System;
  let withoutGate: System;

  beforeAll(async () => {
    identity = await startDevIdentity();
    behindGate = await startSystem({ identity, log: 'embedded', door: 'nginx' });
    withoutGate = await startSystem({ identity });
  }, 240_000);
  afterAll(async () => {
    await withoutGate?.stop();
    await behindGate?.stop();
    await identity?.stop();
  }, 60_000);

  test.concurrent(
    `behind the gate nobody gets in again, for ${attackSeconds} s`,
    async () => {
      const siege = await removeFromCall(identity, behindGate);
      const entries = new Set<string>();
      await besiege(
        behindGate,
        siege,
        (token, at) => {
          signalIn(siege.url, token).then(
            ({ participantSid }) => entries.add(participantSid),
            () => undefined,
          );
          if (at % 10 === 0) connect(siege.url, token).catch(() => undefined);
        },
        (sid) => entries.add(sid),
      );
      expect([...entries]).toEqual([]);
    },
    timeoutMs,
  );

  test.concurrent(
    `without the gate each entry is ended within 300 ms, for ${attackSeconds} s`,
    async () => {
      const siege = await removeFromCall(identity, withoutGate);
      expect((await withoutGate.join('bob', room)).status).toBe(404);
      // LiveKit's own list tells how long each stays.
      const stays = new Map<string, { fromMs: number; untilMs: number }>();
      const entering: Promise<void>[] = [];
      await besiege(
        withoutGate,
        siege,
        (token) => {
          const entry = connect(siege.url, token).then(({ leave }) => leave());
          entering.push(entry.catch(() => undefined));
        },
        (sid) => {
          const nowMs = performance.now();
          stays.set(sid, { fromMs: stays.get(sid)?.fromMs ?? nowMs, untilMs: nowMs });
        },
      );
      const staysMs = [...stays.values()]
        .map(({ fromMs, untilMs }) => untilMs - fromMs)
        .toSorted((left, right) => left - right);
      expect(staysMs.length).toBeGreaterThan(attackSeconds / 2);
      const [p50Ms = 0, p99Ms = 0] = [0.5, 0.99].map((share) => staysMs[Math.ceil(staysMs.length * share) - 1]);
      process.stderr.write(
        `${staysMs.length} entries of somebody removed: ended after ${Math.round(p50Ms)} ms (p50), ${Math.round(p99Ms)} ms (p99)\n`,
      );
      expect(p99Ms).toBeLessThanOrEqual(300);
      expect(await withoutGate.rooms.listParticipants(room)).toEqual([]);
      await Promise.all(entering);
    },
    timeoutMs,
  );
});
