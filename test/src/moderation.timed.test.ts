/** What moderators do over HTTP, and schedules, on the whole service with a real LiveKit. */

import { setTimeout as delay } from 'node:timers/promises';
import { TrackSource } from '@livekit/rtc-node';
import {
  ModerationAccepted,
  noticeTopic,
  ParticipantsView,
  type Privilege,
  RoomSight,
  RoomView,
} from '@realtime-service/contracts';
import { signalIn, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { permissionsOf, toParticipantPermission } from '@realtime-service/room-model';
import { decodeJwt } from 'jose';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Identity, startDevIdentity } from './identity.ts';
import { connect, type Participant } from './participant.ts';
import { type RoomServiceProxy, startRoomServiceProxy } from './room-service-proxy.ts';
import { type System, startSystem } from './system.ts';
import { createWebhookRelay } from './webhook-relay.ts';

/** How long LiveKit refuses, in one case; `FAULT_SECONDS=30` for the long run. */
const refusalSeconds = Number(process.env['FAULT_SECONDS'] ?? 2.5);

describeWith(['postgres', 'livekit'], 'moderation', () => {
  let identity: Identity;
  let system: System;
  let proxy: RoomServiceProxy;
  const webhooks = createWebhookRelay(10);

  beforeAll(async () => {
    proxy = await startRoomServiceProxy();
    identity = await startDevIdentity();
    system = await startSystem({
      identity,
      log: 'embedded',
      webhooksThrough: webhooks.through,
      env: { LIVEKIT_API_URL: proxy.url, CLOSING_NOTICE_SECONDS: '2' },
    });
    proxy.targetPort = system.livekit.ports.http;
  });
  afterEach(() => {
    webhooks.mode = 'pass';
    proxy.faultOf = () => undefined;
  });
  afterAll(async () => {
    await system?.stop();
    await identity?.stop();
    proxy.stop();
    await webhooks.stop();
  });

  const idOf = (user: string): string => identity.subjectOf(user);
  const createRoom = (room: string, more?: object): Promise<void> =>
    system.createRoom(room, { ann: 'host', bob: 'speaker', cleo: 'moderator' }, more);
  const call = async (user: string, method: string, path: string, body?: object) => {
    const response = await fetch(`${system.api.url}/api/realtime/rooms/${path}`, {
      method,
      headers: {
        authorization: `Bearer ${await identity.token(user)}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const answer: unknown = await response.json();
    return { status: response.status, answer };
  };
  /** Moderates, and answers the position from which on it counts. */
  const moderate = async (...asked: Parameters<typeof call>): Promise<string> => {
    const { status, answer } = await call(...asked);
    expect({ status, answer }).toMatchObject({ status: 202 });
    return ModerationAccepted.parse(answer).at_least;
  };
  /** Somebody inside, as presence knows, and what the service tells there. */
  const enter = async (user: string, room: string): Promise<Participant & { readonly notices: unknown[] }> => {
    const { server_url, participant_token } = await system.enter(user, room);
    const participant = await connect(server_url, participant_token);
    const notices: unknown[] = [];
    participant.room.on('dataReceived', (payload, sender, _kind, topic) => {
      if (topic === noticeTopic && sender === undefined) notices.push(JSON.parse(Buffer.from(payload).toString()));
    });
    const sid = participant.room.localParticipant?.sid;
    await until('presence knows', async () => (await inside('ann', room)).some((each) => each.participantSid === sid));
    return { ...participant, notices };
  };
  const inMs = (ms: number): string => new Date(Date.now() + ms).toISOString();
  const inside = async (user: string, room: string) =>
    ParticipantsView.parse((await call(user, 'GET', `${room}/participants`)).answer).participants;

  test('a kick is told, ends the session, and lets the person come again', async () => {
    await createRoom('kick');
    const bob = await enter('bob', 'kick');
    const path = `kick/participants/${encodeURIComponent(bob.identity)}/kick`;
    expect((await call('bob', 'POST', path)).status).toBe(403);
    expect((await call('dan', 'POST', path)).status).toBe(404);
    await moderate('cleo', 'POST', path, { reason: 'off topic' });
    await bob.out;
    await until('nobody is inside', async () => (await inside('ann', 'kick')).length === 0);
    if (bob.notices.length > 0) expect(bob.notices).toEqual([{ type: 'removed', code: 'kicked', reason: 'off topic' }]);
    const again = await enter('bob', 'kick');
    expect((await inside('ann', 'kick')).map(({ userId }) => userId)).toEqual([idOf('bob')]);
    const ann = await enter('ann', 'kick');
    const upwards = `kick/participants/${encodeURIComponent(ann.identity)}/kick`;
    expect((await call('cleo', 'POST', upwards)).status).toBe(403);
    await Promise.all([again.leave(), ann.leave()]);
  });

  test('after a kick and a lock whoever was kicked stays out, also where media were not up yet', async () => {
    await createRoom('kicked-early');
    const { server_url, participant_token, participant_identity } = await system.enter('bob', 'kicked-early');
    const bob = await signalIn(server_url, participant_token);
    await until('bob is seen', async () => (await inside('ann', 'kicked-early')).length === 1, 25_000);
    await moderate('ann', 'POST', `kicked-early/participants/${encodeURIComponent(participant_identity)}/kick`);
    await bob.closed;
    await until('nobody is inside', async () => (await inside('ann', 'kicked-early')).length === 0);
    await system.publish({ type: 'room.locked', subject: 'kicked-early' });
    await until('bob is refused', async () => (await system.join('bob', 'kicked-early')).status === 423);
  }, 60_000);

  test('a mute silences a track', async () => {
    await createRoom('mute');
    const bob = await enter('bob', 'mute');
    const trackSid = await bob.publishVideo();
    await until('the track is published', async () => {
      const tracks = (await system.rooms.getParticipant('mute', bob.identity))?.tracks ?? [];
      return tracks.some(({ sid }) => sid === trackSid);
    });
    const path = `mute/participants/${encodeURIComponent(bob.identity)}/tracks/${trackSid}/mute`;
    await moderate('ann', 'POST', path, { reason: 'noise' });
    await until('bob is told', () => bob.notices.length > 0);
    expect(bob.notices).toEqual([{ type: 'muted', trackSid, reason: 'noise' }]);
    await bob.leave();
  });

  test('a ban from the room ends the call and the next attempt, and ends by itself', async () => {
    await createRoom('ban');
    const bob = await enter('bob', 'ban');
    const body = { userId: idOf('bob'), privilege: 'join', reason: 'spam' };
    const banned = await moderate('ann', 'POST', 'ban/bans', body);
    await bob.out;
    expect((await system.join('bob', 'ban', { at_least: banned })).status).toBe(403);
    // The newest one counts.
    const endsAt = inMs(2_000);
    await moderate('ann', 'POST', 'ban/bans', { ...body, seconds: 2 });
    await until('the ban is over', async () => (await system.join('bob', 'ban')).status === 200);
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(endsAt));
    // And a ban without an end, lifted by another moderator.
    const again = await moderate('ann', 'POST', 'ban/bans', body);
    expect((await system.join('bob', 'ban', { at_least: again })).status).toBe(403);
    const lifted = await moderate('cleo', 'DELETE', `ban/bans/${encodeURIComponent(idOf('bob'))}?privilege=join`);
    expect((await system.join('bob', 'ban', { at_least: lifted })).status).toBe(200);
  });

  test('whoever watches the room sees people come and go, until not allowed to', async () => {
    await createRoom('watch');
    const leaving = new AbortController();
    const response = await fetch(`${system.api.url}/api/realtime/rooms/watch/events`, {
      headers: { authorization: `Bearer ${await identity.token('cleo')}` },
      signal: leaving.signal,
    });
    expect(response.status).toBe(200);
    let text = '';
    const reading = (async () => {
      for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) text += chunk;
    })();
    const counts = (): number[] =>
      [...text.matchAll(/^event: room\ndata: (.*)$/gm)].map(
        ([, data]) => RoomSight.parse(JSON.parse(data ?? '')).participants.length,
      );
    await until('the empty room is seen', () => counts().at(-1) === 0);
    const bob = await enter('bob', 'watch');
    await until('bob is seen', () => counts().at(-1) === 1);
    await bob.leave();
    await until('bob is gone', () => counts().at(-1) === 0);
    await system.publish({ type: 'member.removed', subject: 'watch', data: { userId: idOf('cleo') } });
    await reading;
    expect(text).toMatch(/event: end\ndata: {"code":"room_not_found"}\n\n$/);
  });

  test('a ban of one right takes it from the live session, and gives it back by itself', async () => {
    await createRoom('right');
    const bob = await enter('bob', 'right');
    const permission = async () => (await system.rooms.getParticipant('right', bob.identity))?.permission;
    const speaker = toParticipantPermission(permissionsOf('speaker', null, []));
    const muted = toParticipantPermission(permissionsOf('speaker', null, ['publish_audio']));
    const sources = async () => (await permission())?.canPublishSources.toSorted().join();
    const ban = { userId: idOf('bob'), privilege: 'publish_audio' };
    await moderate('ann', 'POST', 'right/bans', ban);
    await until('the right is gone', async () => (await sources()) === muted.canPublishSources.toSorted().join());
    const endsAt = inMs(2_000);
    await moderate('ann', 'POST', 'right/bans', { ...ban, seconds: 2 });
    await until('the right is back', async () => (await sources()) === speaker.canPublishSources.toSorted().join());
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(endsAt));
    expect(bob.room.isConnected).toBe(true);
    await bob.leave();
  });

  test('an observer who is promoted is seen by everybody, with the next sweep', async () => {
    await createRoom('promoted');
    const promote = (role: 'observer' | 'speaker') =>
      system.publish({ type: 'member.updated', subject: 'promoted', data: { userId: idOf('bob'), role } });
    await promote('observer');
    await until('bob may only watch', async () => {
      const { participant_token } = await system.enter('bob', 'promoted');
      return decodeJwt<{ video: { hidden: boolean } }>(participant_token).video.hidden;
    });
    const { server_url, participant_token } = await system.enter('bob', 'promoted');
    const bob = await connect(server_url, participant_token);
    const sessions = async () =>
      (await system.pool.query(`select is_hidden from sessions where room_id = 'promoted' and is_live`)).rows;
    await until('bob is inside', async () => (await sessions()).length === 1);
    expect([await sessions(), await inside('ann', 'promoted')]).toEqual([[{ is_hidden: true }], []]);
    await promote('speaker');
    await until('bob is seen', async () => (await inside('ann', 'promoted')).length === 1, 25_000);
    await moderate('ann', 'POST', `promoted/participants/${encodeURIComponent(bob.identity)}/kick`);
    await bob.out;
  }, 60_000);

  test.each<{ privilege: Privilege; publish: 'publishAudio' | 'publishVideo'; source: TrackSource; isLost?: boolean }>([
    { privilege: 'publish_audio', publish: 'publishAudio', source: TrackSource.SOURCE_CAMERA },
    { privilege: 'publish_video', publish: 'publishVideo', source: TrackSource.SOURCE_MICROPHONE },
    { privilege: 'screen_share', publish: 'publishAudio', source: TrackSource.SOURCE_CAMERA, isLost: true },
  ])(
    'whoever gets around a ban is out: %j',
    async ({ privilege, publish, source, isLost = false }) => {
      const room = `disguised-${privilege}`;
      await createRoom(room);
      const bob = await enter('bob', room);
      const banned = toParticipantPermission(permissionsOf('speaker', null, [privilege])).canPublishSources.length;
      await moderate('ann', 'POST', `${room}/bans`, { userId: idOf('bob'), privilege });
      await until('the right is gone', async () => {
        const present = await system.rooms.getParticipant(room, bob.identity);
        return present?.permission.canPublishSources.length === banned;
      });
      if (isLost) webhooks.mode = 'lossy';
      await bob[publish](source);
      const publishedAtMs = performance.now();
      const { atMs } = await bob.out;
      webhooks.mode = 'pass';
      expect(atMs - publishedAtMs).toBeLessThan(isLost ? 20_000 : 3_000);
      if (bob.notices.length > 0) expect(bob.notices).toMatchObject([{ type: 'removed', code: 'kicked' }]);
      await (await enter('bob', room)).leave();
    },
    60_000,
  );

  describe('a schedule', () => {
    const update = (room: string, data: object) => system.publish({ type: 'room.updated', subject: room, data });
    const viewOf = async (room: string) => RoomView.parse((await call('bob', 'GET', room)).answer);

    test('refuses before it opens and says until when, lets in, tells of the end, and ends', async () => {
      const planned = { opensAt: inMs(60_000), closesAt: inMs(120_000) };
      await createRoom('schedule', planned);
      const early = await system.join('bob', 'schedule');
      expect(early.status).toBe(425);
      expect(Number(early.headers.get('retry-after'))).toBeGreaterThan(1);
      expect(Number(early.headers.get('retry-after'))).toBeLessThanOrEqual(60);
      expect(await early.json()).toMatchObject({ opens_at: planned.opensAt });
      expect(await viewOf('schedule')).toMatchObject({ ...planned, ownRole: 'speaker' });
      const opensAt = inMs(1_500);
      await update('schedule', { opensAt });
      await until('it is open', async () => (await system.join('bob', 'schedule')).status === 200);
      expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(opensAt));
      const bob = await enter('bob', 'schedule');
      const closesAt = inMs(5_000);
      await update('schedule', { closesAt });
      await until('bob is told', () => bob.notices.length > 0);
      expect(bob.notices).toEqual([{ type: 'closing', closesAt }]);
      await bob.out;
      const lateMs = Date.now() - Date.parse(closesAt);
      expect(lateMs).toBeGreaterThanOrEqual(0);
      expect(lateMs).toBeLessThan(1_500);
      expect((await system.join('bob', 'schedule')).status).toBe(410);
    });

    test('is kept by the next worker, where one dies meanwhile', async () => {
      await createRoom('survives');
      const bob = await enter('bob', 'survives');
      const closesAt = inMs(6_000);
      await update('survives', { closesAt });
      // A question that is being answered when its worker dies is another one's only 15 s later.
      await until('the question about the end is kept', async () => {
        const kept = `select from marks where room_id = 'survives' and identity = '' and due_at > now() and locked_until is null`;
        return (await system.pool.query(kept)).rowCount === 1;
      });
      await system.worker.kill();
      await system.worker.start();
      await bob.out;
      expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(closesAt));
      expect(Date.now() - Date.parse(closesAt)).toBeLessThan(3_000);
    });
  });

  test('a lock keeps out who is not inside, but for hosts and moderators; whoever is inside stays', async () => {
    await createRoom('lock');
    const bob = await enter('bob', 'lock');
    await system.publish({ type: 'member.added', subject: 'lock', data: { userId: idOf('dan'), role: 'speaker' } });
    await system.publish({ type: 'room.locked', subject: 'lock' });
    await until('dan is refused', async () => (await system.join('dan', 'lock')).status === 423);
    for (const user of ['ann', 'bob', 'cleo'])
      expect([user, (await system.join(user, 'lock')).status]).toEqual([user, 200]);
    expect(bob.room.isConnected).toBe(true);
    await system.publish({ type: 'room.unlocked', subject: 'lock' });
    await until('dan may enter', async () => (await system.join('dan', 'lock')).status === 200);
    await bob.leave();
  });

  test(
    `removed while LiveKit answers 503 for ${refusalSeconds} s, added again and back inside meanwhile: the new session stays`,
    async () => {
      await createRoom('again');
      const bob = await enter('bob', 'again');
      let refusals = 0;
      proxy.faultOf = () => {
        refusals += 1;
        return 'refused';
      };
      const endsAtMs = performance.now() + refusalSeconds * 1_000;
      await system.publish({ type: 'member.removed', subject: 'again', data: { userId: idOf('bob') } });
      await until('LiveKit has refused a few times', () => refusals >= 3);
      await bob.leave();
      await system.publish({ type: 'member.added', subject: 'again', data: { userId: idOf('bob'), role: 'speaker' } });
      await until('bob may join', async () => (await system.join('bob', 'again')).status === 200);
      const back = await enter('bob', 'again');
      await delay(Math.max(0, endsAtMs - performance.now()));
      const questions = async (): Promise<number> =>
        (await system.pool.query(`select from marks where room_id = 'again'`)).rows.length;
      expect(await questions()).toBeGreaterThan(0);
      proxy.faultOf = () => undefined;
      await until('every question is answered', async () => (await questions()) === 0, 20_000);
      expect((await inside('ann', 'again')).map(({ participantSid }) => participantSid)).toEqual([
        back.room.localParticipant?.sid,
      ]);
      expect(back.room.isConnected).toBe(true);
      await back.leave();
    },
    (refusalSeconds + 60) * 1_000,
  );
});
