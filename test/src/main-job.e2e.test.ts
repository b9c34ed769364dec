import type { EventsAccepted } from '@realtime-service/contracts';
import { signalIn, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { permissionsOf, toParticipantPermission } from '@realtime-service/room-model';
import { TokenVerifier } from 'livekit-server-sdk';
import { afterAll, beforeAll, expect, test } from 'vitest';
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

    test('removal of one person touches nobody else', async () => {
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
