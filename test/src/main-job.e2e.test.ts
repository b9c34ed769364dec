import { setTimeout as delay } from 'node:timers/promises';
import type { EventsAccepted } from '@realtime-service/contracts';
import { signalIn, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { permissionsOf, toParticipantPermission } from '@realtime-service/room-model';
import { TokenVerifier } from 'livekit-server-sdk';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Chromium, startChromium } from './browser.ts';
import { type Identity, startKeycloakIdentity } from './identity.ts';
import { connect } from './participant.ts';
import { livekitKey, type System, startSystem } from './system.ts';

describeWith(
  ['postgres', 'kafka', 'livekit', 'keycloak', 'chromium'],
  'the main job, with Keycloak, Kafka, LiveKit and real clients',
  () => {
    let identity: Identity;
    let system: System;
    let chromium: Chromium;

    beforeAll(async () => {
      identity = await startKeycloakIdentity();
      system = await startSystem({ identity });
      chromium = await startChromium();
    }, 240_000);

    afterAll(async () => {
      await chromium?.stop();
      await system?.stop();
      await identity?.stop();
    }, 60_000);

    const idOf = (user: string): string => identity.subjectOf(user);

    const remove = (user: string, room: string) =>
      system.publish({ type: 'member.removed', subject: room, data: { userId: idOf(user) } });
    const liveSids = async (room: string) => (await system.rooms.listParticipants(room)).map(({ sid }) => sid);

    test('a member joins; rtc-node and Chromium connect with the token and see each other', async () => {
      await system.createRoom('see-each-other', { ann: 'host', bob: 'speaker' });
      const [forAnn, forBob] = [
        await system.enter('ann', 'see-each-other'),
        await system.enter('bob', 'see-each-other'),
      ];
      const claims = await new TokenVerifier(livekitKey.apiKey, livekitKey.secret).verify(forBob.participant_token);
      expect(claims).toMatchObject({ sub: idOf('bob'), attributes: { 'rt.user': idOf('bob') } });

      const ann = await chromium.connect(forAnn.server_url, forAnn.participant_token);
      await ann.enableCamera();
      const bob = await connect(forBob.server_url, forBob.participant_token);
      await bob.publishVideo();
      await until('ann sees bob', async () => (await ann.seenPlaying()).includes(idOf('bob')), 20_000);
      await until('bob is subscribed to ann', () =>
        [...bob.room.remoteParticipants.values()].some(({ trackPublications }) =>
          [...trackPublications.values()].some(({ subscribed }) => subscribed),
        ),
      );

      const cleoTab = await chromium.connect(
        forAnn.server_url,
        (await system.enter('bob', 'see-each-other', { device_id: 'tab' })).participant_token,
      );
      await until('a second tab sees ann', async () => (await cleoTab.seenPlaying()).includes(idOf('ann')), 20_000);
      await bob.leave();
    }, 90_000);

    test('a stranger and an unknown room are answered alike', async () => {
      await system.createRoom('closed-circle', { ann: 'host' });
      const answers = await Promise.all([system.join('dan', 'closed-circle'), system.join('dan', 'no-such-room')]);
      const bodies = await Promise.all(
        answers.map(async (answer) => ({ status: answer.status, ...((await answer.json()) as object), trace_id: '' })),
      );
      expect(bodies[0]).toMatchObject({ status: 404, code: 'room_not_found' });
      expect(bodies[1]).toEqual(bodies[0]);
    });

    test('whoever was added a moment ago and brings the position is never refused', async () => {
      await system.createRoom('just-added', { ann: 'host' });
      const statuses: number[] = [];
      for (let round = 0; round < 200; round += 1) {
        const data = { userId: idOf('dan'), role: 'speaker' as const };
        const accepted = await system.publishOverHttp({ type: 'member.added', subject: 'just-added', data });
        const { at_least } = (await accepted.json()) as EventsAccepted;
        statuses.push((await system.join('dan', 'just-added', { at_least })).status);
        await system.publishOverHttp({ type: 'member.removed', subject: 'just-added', data: { userId: idOf('dan') } });
      }
      expect(statuses.filter((status) => status !== 200)).toEqual([]);
    }, 120_000);

    describe('removal', () => {
      test('ends both devices, and every later entry with the tokens that were kept', async () => {
        const room = 'removal';
        await system.createRoom(room, { ann: 'host', bob: 'speaker' });
        const joined = [
          await system.enter('bob', room, { device_id: 'phone' }),
          await system.enter('bob', room, { device_id: 'desk' }),
        ];
        const devices = await Promise.all(
          joined.map(({ server_url, participant_token }) => connect(server_url, participant_token)),
        );
        const kept = [
          ...joined.map(({ participant_token }) => participant_token),
          ...(await until('refresh tokens came', () => {
            const tokens = devices.map(({ room: { token } }) => token ?? '');
            return tokens.every((token, at) => token !== '' && token !== joined[at]?.participant_token) && tokens;
          })),
        ];

        await remove('bob', room);
        await Promise.all(devices.map(({ out }) => out));
        expect((await system.join('bob', room)).status).toBe(404);

        // One entry a second, with each token in turn; LiveKit's own list tells how long each stays.
        const stays = new Map<string, { fromMs: number; untilMs: number }>();
        const endsAtMs = performance.now() + 60_000;
        const watching = (async () => {
          while (performance.now() < endsAtMs + 2_000) {
            for (const sid of await liveSids(room)) {
              const nowMs = performance.now();
              stays.set(sid, { fromMs: stays.get(sid)?.fromMs ?? nowMs, untilMs: nowMs });
            }
            await delay(25);
          }
        })();
        const entering: Promise<void>[] = [];
        for (let at = 0; performance.now() < endsAtMs; at += 1) {
          const attempt = connect(system.livekit.url, kept[at % kept.length] ?? '').then(({ leave }) => leave());
          entering.push(attempt.catch(() => undefined));
          await delay(1_000);
        }
        await watching;
        const staysMs = [...stays.values()]
          .map(({ fromMs, untilMs }) => untilMs - fromMs)
          .toSorted((left, right) => left - right);
        expect(staysMs.length).toBeGreaterThan(30);
        const [p50Ms = 0, p99Ms = 0] = [0.5, 0.99].map((share) => staysMs[Math.ceil(staysMs.length * share) - 1]);
        process.stderr.write(
          `${staysMs.length} entries of somebody removed: ended after ${Math.round(p50Ms)} ms (p50), ${Math.round(p99Ms)} ms (p99)\n`,
        );
        expect(p99Ms).toBeLessThanOrEqual(300);
        expect(await liveSids(room)).toEqual([]);
        await Promise.all(entering);
      }, 150_000);

      test('of one person touches nobody else', async () => {
        const room = 'removal-of-one';
        await system.createRoom(room, { ann: 'host', bob: 'speaker' });
        const [forAnn, forBob] = [await system.enter('ann', room), await system.enter('bob', room)];
        const [ann, bob] = [
          await connect(forAnn.server_url, forAnn.participant_token),
          await connect(forBob.server_url, forBob.participant_token),
        ];
        await remove('bob', room);
        await bob.out;
        expect((await system.rooms.listParticipants(room)).map(({ identity }) => identity)).toEqual([idOf('ann')]);
        await ann.leave();
      }, 60_000);
    });

    test('a changed role changes the live permissions, and back', async () => {
      const room = 'demotion';
      await system.createRoom(room, { ann: 'host', bob: 'speaker' });
      const { server_url, participant_token } = await system.enter('bob', room);
      const bob = await connect(server_url, participant_token);
      await bob.publishVideo();
      const present = async () => system.rooms.getParticipant(room, idOf('bob'));
      await until('bob publishes', async () => (await present())?.tracks.length === 1);

      const becomes = async (role: 'listener' | 'speaker') => {
        await system.publish({ type: 'member.updated', subject: room, data: { userId: idOf('bob'), role } });
        const wanted = toParticipantPermission(permissionsOf(role, null, []));
        await until(`bob is ${role}`, async () => (await present())?.permission.canPublish === wanted.canPublish);
        expect((await present())?.permission).toEqual({
          ...wanted,
          canPublishSources: expect.arrayContaining(wanted.canPublishSources),
        });
      };
      await becomes('listener');
      await until('the SFU unpublished', async () => (await present())?.tracks.length === 0);
      await becomes('speaker');
      await bob.publishVideo();
      await until('bob publishes again', async () => (await present())?.tracks.length === 1);
      await bob.leave();
    }, 60_000);

    test('a closed room empties, refuses joins, and an old token finds no room', async () => {
      const room = 'closing';
      await system.createRoom(room, { ann: 'host', bob: 'speaker' });
      const joined = [await system.enter('ann', room), await system.enter('bob', room)];
      const inside = await Promise.all(
        joined.map(({ server_url, participant_token }) => connect(server_url, participant_token)),
      );
      await system.publish({ type: 'room.closed', subject: room });
      await Promise.all(inside.map(({ out }) => out));
      const refused = await system.join('ann', room);
      expect({ status: refused.status, code: ((await refused.json()) as { code: string }).code }).toEqual({
        status: 410,
        code: 'room_closed',
      });
      // LiveKit forgets the room a moment after it has disconnected everybody.
      const isRefused = () =>
        signalIn(system.livekit.url, joined[0]?.participant_token ?? '').then(
          ({ close }) => close(),
          () => true,
        );
      await until('an old token finds no room', isRefused, 2_000);
      expect((await system.rooms.listRooms()).map(({ name }) => name)).not.toContain(room);
    }, 60_000);
  },
);
