import { topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { type EventLog, partitionOf } from '@realtime-service/event-log';
import type { RoomService } from '@realtime-service/livekit';
import { permissionsOf, toJoinPermissions, toParticipantPermission } from '@realtime-service/room-model';
import { type Mark, type RoomStore, readMarkBacklog } from '@realtime-service/room-store';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type FakeLivekit, type Fault, startFakeLivekit } from '../test/fake-livekit.ts';
import { type RoomFact, readBatch, startProjection, type TestProjection } from '../test/projection.ts';
import { binaryRecord, partitionCount } from '../test/records.ts';
import { systemClock } from './clock.ts';
import { type Enforcement, startEnforcement } from './enforce.ts';
import { createLaneGate, type LaneGate } from './lane-gate.ts';
import { toLivekitRecord } from './livekit-record.ts';

const room = 'room-42';

/** Rooms whose lane is that of `room`. */
const neighbours = Array.from({ length: 500 }, (_, at) => `room-${at + 100}`)
  .filter((each) => partitionOf(each, partitionCount) === partitionOf(room, partitionCount))
  .slice(0, 3);

const speaker = toParticipantPermission(permissionsOf('speaker', null, []));
const listener = toParticipantPermission(permissionsOf('listener', null, []));

describeWith(['postgres'], 'enforcing', () => {
  let parts: TestProjection;
  let livekit: FakeLivekit;
  let enforcement: Enforcement | undefined;

  beforeEach(async () => {
    parts = await startProjection();
    livekit = await startFakeLivekit(2_000);
  });
  afterEach(async () => {
    await enforcement?.stop();
    enforcement = undefined;
    await livekit.stop();
    await parts.stop();
  });

  const start = ({
    gate = createLaneGate(parts.store, parts.log) as LaneGate,
    unknownRooms = 'observe' as 'observe' | 'close',
    closingNoticeMs = 60_000,
    store = parts.store,
    service = livekit.service,
    clock = systemClock,
  } = {}): void => {
    const { metrics, logger } = parts;
    enforcement = startEnforcement({
      store,
      livekit: service,
      gate,
      clock,
      unknownRooms,
      closingNoticeMs,
      metrics,
      logger,
    });
  };

  let told = 0;
  const tell = (event: string, roomId: string, participant?: { sid: string; identity: string }): Promise<unknown> => {
    told += 1;
    const data = {
      event,
      room: { sid: `RM_${roomId}`, name: roomId },
      ...(participant && { participant: { ...participant, joinedAtMs: String(1_000 + told) } }),
    };
    const about = {
      id: `w-${told}`,
      source: 'livekit',
      type: `livekit.${event}`,
      roomName: roomId,
      timeMs: undefined,
      traceparent: undefined,
    } as const;
    return parts.append(toLivekitRecord(about, data));
  };
  /** LiveKit says that somebody is not inside any more. */
  const tellLeft = (userId: string): Promise<unknown> =>
    tell('participant_left', room, { sid: `PA_${userId}`, identity: userId });
  /** Somebody is inside, and LiveKit says so. */
  const enter = async (
    roomId: string,
    userId: string,
    changes: {
      sid?: string;
      identity?: string;
      permission?: object;
      kind?: string;
      login?: string;
      loginEnd?: string;
      device?: string;
    } = {},
  ): Promise<void> => {
    const { sid = `PA_${userId}`, identity = userId, permission = speaker, kind, login, loginEnd, device } = changes;
    const attributes = {
      'rt.user': userId,
      ...(login === undefined ? {} : { 'rt.login': login }),
      ...(loginEnd === undefined ? {} : { 'rt.login_end': loginEnd }),
      ...(device === undefined ? {} : { 'rt.device': device }),
    };
    const participant = {
      sid,
      identity,
      attributes,
      permission: permission as Record<string, unknown>,
      ...(kind === undefined ? {} : { kind }),
    };
    livekit.put(roomId, participant);
    await tell('participant_joined', roomId, participant);
  };
  /** Once that is asked, LiveKit finds nobody until `find` is called. */
  const loseSightAt = (method: string): { readonly isLost: () => boolean; readonly find: () => void } => {
    const people = livekit.rooms.get(room) ?? new Map();
    let isLost = false;
    livekit.fail(method, () => {
      if (isLost) return undefined;
      isLost = true;
      livekit.rooms.delete(room);
      return { status: 404, body: { code: 'not_found', msg: 'participant does not exist' } };
    });
    return { isLost: () => isLost, find: () => void livekit.rooms.set(room, people) };
  };
  const inside = (roomId = room): string[] => [...(livekit.rooms.get(roomId)?.keys() ?? [])].sort();
  const marks = async (): Promise<number> => (await parts.pool.query('select count(*)::int as n from marks')).rows[0].n;
  const edges = async (): Promise<number> => (await parts.pool.query('select count(*)::int as n from edges')).rows[0].n;
  const answered = () =>
    until('every question is answered', async () => (await marks()) === 0 && (await edges()) === 0, 15_000);
  /** Which rights were announced, of whom. */
  const announced = async (): Promise<unknown[]> =>
    (
      await parts.pool.query(
        `select data from outbox where type = 'participant.permissions_applied' order by outbox_id`,
      )
    ).rows.map(({ data }) => data);
  const announcementOf = (userId: string, role: 'listener' | 'moderator') => ({
    roomSid: `RM_${room}`,
    participantSid: `PA_${userId}`,
    identity: userId,
    userId,
    permissions: toJoinPermissions(permissionsOf(role, null, [])),
  });
  const answers = async (): Promise<Record<string, number>> =>
    Object.fromEntries(
      (await parts.metrics.answers.get()).values
        .filter(({ value }) => value > 0)
        .map(({ labels, value }) => [`${labels.action} ${labels.reason}`.trim(), value]),
    );
  const removals = async (): Promise<{ count: number; seconds: number }> => {
    const { values } = await parts.metrics.removalSeconds.get();
    const sampleOf = (end: string): number => values.find(({ metricName }) => metricName?.endsWith(end))?.value ?? 0;
    return { count: sampleOf('_count'), seconds: sampleOf('_sum') };
  };
  const errors = async (kind: string): Promise<number> =>
    (await parts.metrics.enforcementErrors.get()).values.find(({ labels }) => labels.kind === kind)?.value ?? 0;

  /** A room with two people inside who are members; everything applied and answered. */
  const aCall = async (): Promise<void> => {
    parts.consume();
    await parts.publish([
      'room.created',
      room,
      {
        members: [
          { userId: 'u-7', role: 'speaker' },
          { userId: 'bob', role: 'speaker' },
        ],
      },
    ]);
    for (const each of neighbours) await parts.publish(['room.created', each]);
    await enter(room, 'u-7');
    await enter(room, 'bob');
    await parts.caughtUp();
  };

  describe('C15: a removal that LiveKit', () => {
    const unavailable: Fault = { status: 503, body: { code: 'unavailable' } };
    const cases: readonly (readonly [string, () => Fault[], { calls: number; withinMs: number; afterMs?: number }])[] =
      [
        ['never answers at first', () => ['silence', 'silence'], { calls: 3, withinMs: 5_000 }],
        [
          'answers with "participant does not exist", though it lists them',
          () => [{ status: 404, body: { code: 'not_found', msg: 'participant does not exist' } }],
          { calls: 2, withinMs: 2_000 },
        ],
        [
          'answers with "requested room does not exist", though it lists it',
          () => [{ status: 404, body: { code: 'not_found', msg: 'requested room does not exist' } }],
          { calls: 2, withinMs: 2_000 },
        ],
        ['refuses twice', () => [unavailable, unavailable], { calls: 3, withinMs: 5_000 }],
        ['answers after 40 s', () => [{ status: 200, afterMs: 40_000 }], { calls: 2, withinMs: 5_000 }],
        [
          'refuses with Retry-After: 2',
          () => [{ status: 429, headers: { 'retry-after': '2' } }],
          { calls: 2, withinMs: 6_000, afterMs: 2_000 },
        ],
        [
          'refuses with Retry-After: 0',
          () => [
            { status: 503, headers: { 'retry-after': '0' } },
            { status: 503, headers: { 'retry-after': '0' } },
          ],
          { calls: 3, withinMs: 5_000, afterMs: 300 },
        ],
        ["answers with a proxy's page", () => [{ status: 404, body: {} }], { calls: 2, withinMs: 5_000 }],
        [
          'answers with 200 that is none of its own',
          () => [{ status: 200, body: { message: 'maintenance' } }],
          { calls: 2, withinMs: 5_000 },
        ],
      ];

    test.each(cases)(
      '%s',
      async (_, faults, { calls, withinMs, afterMs = 0 }) => {
        await aCall();
        // Some are silent.
        start({ service: livekit.serviceWithin(1_000) });
        await answered();
        livekit.fail('RemoveParticipant', faults());
        const startedAtMs = performance.now();
        await parts.publish(['member.removed', room, { userId: 'u-7' }]);
        await parts.publish(
          ...neighbours.map((each): RoomFact => ['member.added', each, { userId: 'cid', role: 'listener' }]),
        );

        await until(
          "the neighbours' facts are applied",
          async () =>
            (await Promise.all(neighbours.map((each) => parts.ask('enter', each, 'cid')))).every(
              (answer) => answer === 'allow',
            ),
          2_000,
        );
        expect(performance.now() - startedAtMs).toBeLessThan(1_000);
        expect(await parts.ask('enter', room, 'u-7')).toBe('member_removed');

        await answered();
        const tookMs = performance.now() - startedAtMs;
        expect(tookMs).toBeLessThan(withinMs);
        expect(tookMs).toBeGreaterThanOrEqual(afterMs);
        expect(inside()).toEqual(['bob']);
        expect(livekit.callsOf('RemoveParticipant')).toHaveLength(calls);
        expect(await answers()).toMatchObject({ 'removed member_removed': 1 });
        const { count, seconds } = await removals();
        expect(count).toBe(1);
        expect(seconds).toBeGreaterThanOrEqual(afterMs / 1000);
        expect(seconds).toBeLessThan(withinMs / 1000);
      },
      20_000,
    );

    test.each([
      ['member.removed', { userId: 'u-7' }],
      ['participant.kick_requested', { participantSid: 'PA_u-7', identity: 'u-7', by: 'bob' }],
      ['room.closed', {}],
    ])('carries out is measured from the time of its fact: %s', async (type, data) => {
      await aCall();
      start();
      await answered();
      const time = new Date(Date.now() - 30_000).toISOString();
      await parts.append(binaryRecord({ id: `late-${type}`, type, subject: room, time }, data));
      await until('u-7 is out', () => !inside().includes('u-7'));
      await answered();
      const { count, seconds } = await removals();
      expect(count).toBe(1);
      expect(seconds).toBeGreaterThanOrEqual(30);
      expect(seconds).toBeLessThan(60);
    });

    test('does not carry out since the person has left, or come anew, is done', async () => {
      await aCall();
      start();
      await answered();
      for (const isBack of [false, true]) {
        livekit.fail('RemoveParticipant', () => {
          livekit.rooms.get(room)?.delete('u-7');
          if (isBack) livekit.put(room, { sid: 'PA_new', identity: 'u-7', attributes: {}, permission: speaker });
          return { status: 404, body: { code: 'not_found', msg: 'participant does not exist' } };
        });
        await parts.publish(['member.removed', room, { userId: 'u-7' }]);
        await until('LiveKit was asked', () => livekit.callsOf('RemoveParticipant').length === (isBack ? 2 : 1));
        if (!isBack) await tellLeft('u-7');
        await answered();
        expect(livekit.callsOf('RemoveParticipant')).toHaveLength(isBack ? 2 : 1);
        expect(await errors('unavailable')).toBe(0);
        await parts.publish(['member.added', room, { userId: 'u-7', role: 'speaker' }]);
        await enter(room, 'u-7', { sid: 'PA_again' });
        await parts.caughtUp();
        await answered();
      }
    });

    test('refuses again and again counts as a question that waits, since its fact', async () => {
      await aCall();
      start();
      await answered();
      livekit.fail('RemoveParticipant', () => ({ status: 503 }));
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('it has failed', async () => (await errors('unavailable')) === 1);
      const failedAtMs = Date.now();
      await until('it fails again', async () => (await errors('unavailable')) === 3);
      const sinceFailedMs = Date.now() - failedAtMs;
      const { count, ageSeconds } = await readMarkBacklog(parts.pool);
      expect(count).toBe(1);
      expect(ageSeconds * 1000).toBeGreaterThan(sinceFailedMs);
    });

    test('refuses as not ours is told and not asked for again at once; others are served meanwhile', async () => {
      await aCall();
      start();
      await answered();
      livekit.fail('RemoveParticipant', () => ({ status: 401 }));
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('it is told', async () => (await errors('unauthorised')) === 1);
      await parts.publish(['member.updated', room, { userId: 'bob', role: 'listener' }]);
      await until('bob is a listener', () => livekit.rooms.get(room)?.get('bob')?.permission['canPublish'] === false);
      expect(livekit.callsOf('RemoveParticipant')).toHaveLength(1);
      const { rows } = await parts.pool.query(
        `select extract(epoch from due_at - now())::float8 as seconds from marks`,
      );
      expect(rows[0].seconds).toBeGreaterThan(20);
      expect(parts.lines.join('')).not.toContain('eyJ');
    });
  });

  describe('C15: a worker that dies between its call to LiveKit and its own commit', () => {
    /** Settles nothing until told that it lives: what it had claimed is then another's. */
    const dying = () => {
      let isDead = true;
      const unlessDead =
        <T extends unknown[], R>(work: (...given: T) => Promise<R>) =>
        (...given: T): Promise<R> =>
          isDead ? Promise.reject(new Error('died')) : work(...given);
      const { settleMark, postponeMark, settleEdge, postponeEdge } = parts.store;
      const store: RoomStore = {
        ...parts.store,
        settleMark: unlessDead(settleMark),
        postponeMark: unlessDead(postponeMark),
        settleEdge: unlessDead(settleEdge),
        postponeEdge: unlessDead(postponeEdge),
      };
      return {
        store,
        next: async () => {
          isDead = false;
          await parts.pool.query(`update marks set locked_until = now() - interval '1 second'`);
          await parts.pool.query(`update edges set locked_until = now() - interval '1 second'`);
        },
      };
    };
    /** A call with nothing left to ask, before a worker that dies. */
    const aCallBefore = async () => {
      await aCall();
      start();
      await answered();
      await enforcement?.stop();
      const { store, next } = dying();
      start({ store });
      return next;
    };

    test('of a removal that LiveKit never sees leaves it to another', async () => {
      await aCallBefore();
      livekit.fail('RemoveParticipant', ['silence']);
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('the call is under way', () => livekit.callsOf('RemoveParticipant').length === 1);
      // It claims nothing more. What it leaves is a claim that nobody will answer, and whose time is over.
      const dead = enforcement?.stop();
      await parts.pool.query(`update marks set locked_until = now() - interval '1 second'`);
      start();
      await until('u-7 is out', () => !inside().includes('u-7'));
      await dead;
    });

    test('of a removal leaves nothing to do', async () => {
      const next = await aCallBefore();
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('u-7 is out', () => !inside().includes('u-7'));
      expect(await marks()).toBe(1);
      await tellLeft('u-7');
      await next();
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toHaveLength(1);
      expect(inside()).toEqual(['bob']);
    });

    test('of a removal leaves whoever was added and came again meanwhile inside', async () => {
      const next = await aCallBefore();
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('u-7 is out', () => !inside().includes('u-7'));
      await parts.publish(['member.added', room, { userId: 'u-7', role: 'speaker' }]);
      await enter(room, 'u-7', { sid: 'PA_new' });
      await parts.caughtUp();
      await next();
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toHaveLength(1);
      expect(inside()).toEqual(['bob', 'u-7']);
    });

    test('of new rights sets and announces them once', async () => {
      const next = await aCallBefore();
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
      await until('u-7 listens', () => livekit.rooms.get(room)?.get('u-7')?.permission['canPublish'] === false);
      await next();
      await answered();
      expect(livekit.callsOf('UpdateParticipant')).toHaveLength(1);
      expect(await announced()).toEqual([announcementOf('u-7', 'listener')]);
    });

    test('of new rights announces none that others have followed meanwhile', async () => {
      const next = await aCallBefore();
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
      await until('u-7 listens', () => livekit.rooms.get(room)?.get('u-7')?.permission['canPublish'] === false);
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'moderator' }]);
      await parts.caughtUp();
      await next();
      await answered();
      expect(await announced()).toEqual([announcementOf('u-7', 'moderator')]);
    });

    test('of rights that others have followed announces what LiveKit was brought back to', async () => {
      const next = await aCallBefore();
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
      await until('u-7 listens', () => livekit.rooms.get(room)?.get('u-7')?.permission['canPublish'] === false);
      // Until the end: LiveKit does as it was asked first, and never as it was asked then.
      livekit.fail('UpdateParticipant', Array(50).fill({ status: 503, body: { code: 'unavailable' } }));
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'moderator' }]);
      await parts.caughtUp();
      await next();
      await until('LiveKit has refused the next', () => livekit.callsOf('UpdateParticipant').length > 1);
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
      await answered();
      expect(await announced()).toEqual([announcementOf('u-7', 'listener')]);
    });

    test('of new rights announces them of nobody who has come anew with them', async () => {
      const next = await aCallBefore();
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
      await until('u-7 listens', () => livekit.rooms.get(room)?.get('u-7')?.permission['canPublish'] === false);
      await enter(room, 'u-7', { sid: 'PA_new', permission: listener });
      await parts.caughtUp();
      await next();
      await answered();
      expect(await announced()).toEqual([]);
    });

    test('of a kick does not follow the person into the next session', async () => {
      const next = await aCallBefore();
      await parts.publish([
        'participant.kick_requested',
        room,
        { participantSid: 'PA_u-7', identity: 'u-7', by: 'bob' },
      ]);
      await until('u-7 is out', () => !inside().includes('u-7'));
      livekit.put(room, { sid: 'PA_new', identity: 'u-7', attributes: { 'rt.user': 'u-7' }, permission: speaker });
      expect(await edges()).toBe(1);
      await next();
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toHaveLength(1);
      expect(inside()).toEqual(['bob', 'u-7']);
    });
  });

  describe('a notice', () => {
    test('tells who is removed why, before the removal', async () => {
      await aCall();
      start();
      await answered();
      await parts.publish([
        'member.banned',
        room,
        { userId: 'u-7', privilege: 'join', until: '2099-01-01T00:00:00Z', reason: 'harassment' },
      ]);
      await until('u-7 is out', () => !inside().includes('u-7'));
      await parts.publish(['member.removed', room, { userId: 'bob', reason: 'left the team' }]);
      await until('bob is out', () => inside().length === 0);
      expect(livekit.notices()).toEqual([
        { to: ['u-7'], notice: { type: 'removed', code: 'banned', reason: 'harassment' } },
        { to: ['bob'], notice: { type: 'removed', code: 'room_not_found', reason: 'left the team' } },
      ]);
      const methods = livekit.calls.map(({ method }) => method).filter((method) => /SendData|Remove/.test(method));
      expect(methods).toEqual(['SendData', 'RemoveParticipant', 'SendData', 'RemoveParticipant']);
    });

    test.each<readonly [string, Fault]>([
      ['never answers', 'silence'],
      ['refuses', { status: 503 }],
      ['has lost sight of the person for', { status: 404, body: { code: 'not_found' } }],
    ])('that LiveKit %s holds the removal up by no more than tens of ms', async (_, fault) => {
      await aCall();
      start();
      await answered();
      livekit.fail('SendData', () => fault);
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('u-7 is out', () => !inside().includes('u-7'));
      const [told] = livekit.callsOf('SendData');
      const [removed] = livekit.callsOf('RemoveParticipant');
      // 50 ms, and the machine's own delays.
      expect((removed?.atMs ?? 0) - (told?.atMs ?? 0)).toBeLessThan(250);
      await answered();
      expect(livekit.callsOf('SendData')).toHaveLength(1);
    });
  });

  describe('a schedule', () => {
    const iso = (inMs: number): string => new Date(Date.now() + inMs).toISOString();
    const close = async (inMs: number): Promise<string> => {
      const closesAt = iso(inMs);
      await parts.publish(['room.updated', room, { closesAt }]);
      return closesAt;
    };
    const isOpen = (): boolean => livekit.rooms.has(room);
    const ended = { to: [], notice: { type: 'removed', code: 'room_closed' } };

    test('tells people of the end, and then ends the room, in one call each and on time', async () => {
      await aCall();
      start({ closingNoticeMs: 1_000 });
      await answered();
      const closesAt = await close(2_500);
      await until('people are told', () => livekit.notices().length > 0);
      expect(Date.parse(closesAt) - Date.now()).toBeLessThanOrEqual(1_000);
      expect(isOpen()).toBe(true);
      await until('the room is over', () => !isOpen());
      expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(closesAt));
      expect(Date.now() - Date.parse(closesAt)).toBeLessThan(1_500);
      await answered();
      expect(livekit.notices()).toEqual([{ to: [], notice: { type: 'closing', closesAt } }, ended]);
      expect(livekit.callsOf('DeleteRoom')).toHaveLength(1);
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
      expect(await answers()).toMatchObject({ 'room_deleted schedule_over': 1 });
      expect(await parts.ask('enter', room, 'u-7')).toBe('schedule_over');
    });

    test('whose end is put off, or taken back, ends nothing at the old time', async () => {
      await aCall();
      start({ closingNoticeMs: 0 });
      await answered();
      await close(2_000);
      const closesAt = await close(3_500);
      await until('the room is over', () => !isOpen());
      expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(closesAt));
      expect(livekit.notices()).toEqual([ended]);
      livekit.put(room, { sid: 'PA_u-7', identity: 'u-7', attributes: { 'rt.user': 'u-7' }, permission: speaker });
      await close(60_000);
      await parts.publish(['room.updated', room, { closesAt: null }]);
      await parts.caughtUp();
      await answered();
      expect(isOpen()).toBe(true);
      expect(await parts.ask('enter', room, 'u-7')).toBe('allow');
    });

    test('is carried out by one of two workers, and by the next one where both end meanwhile', async () => {
      await aCall();
      start({ closingNoticeMs: 1_500 });
      await answered();
      const first = enforcement;
      start({ closingNoticeMs: 1_500 });
      await close(3_000);
      await until('people are told', () => livekit.notices().length > 0);
      await Promise.all([first?.stop(), enforcement?.stop()]);
      expect(isOpen()).toBe(true);
      start({ closingNoticeMs: 1_500 });
      await until('the room is over', () => !isOpen());
      expect(livekit.notices()).toMatchObject([{ notice: { type: 'closing' } }, ended]);
      expect(livekit.callsOf('DeleteRoom')).toHaveLength(1);
    });

    test('whose end is moved to now tells people before the room ends', async () => {
      await aCall();
      start();
      await answered();
      const before = livekit.calls.length;
      await close(0);
      await until('the room is over', () => !isOpen());
      expect(livekit.calls.slice(before).map(({ method }) => method)).toEqual(['SendData', 'DeleteRoom']);
      expect(livekit.notices()).toEqual([ended]);
    });

    test('whose time comes while no worker runs ends the room at the next start', async () => {
      await aCall();
      await close(-1_000);
      await parts.caughtUp();
      start();
      await until('the room is over', () => !isOpen());
    });

    test('tells nobody of the end of a room that LiveKit has no more', async () => {
      await aCall();
      start();
      await answered();
      const { asked_each: before = 0 } = await answers();
      livekit.rooms.delete(room);
      const asked = livekit.callsOf('ListRooms').length;
      await close(30_000);
      await until('it was asked about', () => livekit.callsOf('ListRooms').length > asked);
      expect((await answers())['asked_each']).toBe(before);
      await tell('room_finished', room);
      await answered();
      expect((await answers())['asked_each']).toBe(before + 1);
      expect(livekit.notices()).toEqual([]);
    });

    test('of a room that is not live leaves no question until it is', async () => {
      parts.consume();
      start({ closingNoticeMs: 0 });
      const members = [{ userId: 'u-7', role: 'speaker' }];
      await parts.publish(['room.created', room, { closesAt: iso(60_000), members }]);
      await parts.caughtUp();
      await answered();
      await close(2_000);
      await enter(room, 'u-7');
      await parts.caughtUp();
      expect(isOpen()).toBe(true);
      await until('the room is over', () => !isOpen());
    });

    test('that was put off in the log ends nothing, though nobody has applied that yet', async () => {
      await aCall();
      start({ closingNoticeMs: 0 });
      await answered();
      await close(2_000);
      await parts.caughtUp();
      // As if the worker that applies this partition had died, and the group not noticed yet.
      const holder = await parts.pool.connect();
      await holder.query('begin; select from log_positions for update');
      await close(60_000);
      const isOver = () => parts.ask('enter', room, 'u-7').then((answer) => answer === 'schedule_over');
      await until('the end that is known has come', isOver);
      const mark = `select attempts from marks where room_id = $1 and identity = '' and due_at > now() and locked_until is null`;
      await until('the room was asked about, or is over', async () => {
        return !isOpen() || (await parts.pool.query(mark, [room])).rowCount === 1;
      });
      const wasOpen = isOpen();
      await holder.query('rollback');
      holder.release();
      expect(wasOpen).toBe(true);
      await parts.caughtUp();
      await until('it is asked again by the new end', async () => {
        const { rows } = await parts.pool.query(
          `select due_at > now() + interval '1 s' as waits from marks where identity = ''`,
        );
        return rows[0]?.waits;
      });
      expect(isOpen()).toBe(true);
    });

    test('of an older state ends nothing: the end may have been put off since', async () => {
      await aCall();
      await close(-1_000);
      await parts.caughtUp();
      let isOld = true;
      let questions = 0;
      const real = createLaneGate(parts.store, parts.log);
      start({
        gate: {
          ...real,
          compare: () => {
            const compare = real.compare();
            return async (keys, standing) => {
              if (keys.join() === room) questions += 1;
              return !isOld && compare(keys, standing);
            };
          },
        },
      });
      await until('the room was asked about twice', () => questions > 1);
      expect(isOpen()).toBe(true);
      await close(60_000);
      await parts.caughtUp();
      isOld = false;
      await until('the room is asked about again later', async () => {
        const { rows } = await parts.pool.query(
          `select due_at > now() + interval '1 s' as waits from marks where room_id = $1 and identity = ''`,
          [room],
        );
        return rows[0]?.waits;
      });
      expect(isOpen()).toBe(true);
      expect(livekit.callsOf('DeleteRoom')).toEqual([]);
    });

    test('that is put off between the reading and the look at the lane ends nothing', async () => {
      await aCall();
      await close(-1_000);
      await parts.caughtUp();
      const real = createLaneGate(parts.store, parts.log);
      let isPutOff = false;
      const isCaughtUp: LaneGate['isCaughtUp'] = async (keys) => {
        if (keys.join() === room && !isPutOff) {
          isPutOff = true;
          await close(60_000);
          await parts.caughtUp();
        }
        return real.isCaughtUp(keys);
      };
      start({ closingNoticeMs: 0, gate: { ...real, isCaughtUp } });
      await until('only its end is waited for', async () => isPutOff && (await marks()) === 1);
      expect(inside()).toEqual(['bob', 'u-7']);
    });
  });

  describe('a mark is a question', () => {
    test('about somebody who is believed to be inside stays while LiveKit does not find them', async () => {
      await aCall();
      start();
      await answered();
      const people = livekit.rooms.get(room) ?? new Map();
      livekit.rooms.delete(room);
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      const asked = livekit.callsOf('ListRooms').length;
      await until('it was asked about again', () => livekit.callsOf('ListRooms').length > asked + 2);
      expect(await marks()).toBe(1);
      livekit.rooms.set(room, people);
      await until('u-7 is out', () => !inside().includes('u-7'));
      await answered();
      expect(await answers()).not.toHaveProperty('absent');
      expect(inside()).toEqual(['bob']);
    });

    test.each([
      ['RemoveParticipant', 'member.removed', {}, 'removed member_removed'],
      ['UpdateParticipant', 'member.updated', { role: 'listener' }, 'permissions_set'],
    ])(
      'about somebody who is believed to be inside stays where LiveKit lost sight of them before %s',
      async (method, type, data, answer) => {
        await aCall();
        start();
        await answered();
        const sight = loseSightAt(method);
        await parts.publish([type, room, { userId: 'u-7', ...data }]);
        await until('LiveKit has lost sight of them', sight.isLost);
        const asked = livekit.callsOf('ListRooms').length;
        await until('it was asked about again', () => livekit.callsOf('ListRooms').length > asked + 2);
        expect(await marks()).toBe(1);
        sight.find();
        await answered();
        expect(livekit.callsOf(method)).toHaveLength(2);
        expect(await answers()).toMatchObject({ [answer]: 1 });
      },
    );

    test('about somebody who is believed to be inside goes as soon as LiveKit tells of the end', async () => {
      await aCall();
      start();
      await answered();
      livekit.rooms.delete(room);
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await parts.caughtUp();
      expect(await marks()).toBe(1);
      await tellLeft('u-7');
      await answered();
      expect(await answers()).toMatchObject({ absent: 1 });
    });

    test('about a room that is believed to be live stays while LiveKit does not find it', async () => {
      await aCall();
      start();
      await answered();
      const people = livekit.rooms.get(room) ?? new Map();
      livekit.rooms.delete(room);
      await parts.publish(['room.closed', room]);
      await until('it was asked to end twice', () => livekit.callsOf('DeleteRoom').length > 1);
      expect(await marks()).toBe(1);
      livekit.rooms.set(room, people);
      await until('it is over', () => !livekit.rooms.has(room));
      await answered();
      expect(await answers()).toMatchObject({ 'room_deleted room_closed': 1 });
    });

    test('raised while it is being answered, it is answered again, by the newer facts', async () => {
      await aCall();
      start();
      await answered();
      const release = livekit.hold('UpdateParticipant');
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
      await until('it is being answered', () => livekit.callsOf('UpdateParticipant').length === 1);
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'moderator' }]);
      await parts.caughtUp();
      release();
      await answered();
      const moderator = toParticipantPermission(permissionsOf('moderator', null, []));
      expect(livekit.rooms.get(room)?.get('u-7')?.permission).toMatchObject({
        canPublish: true,
        canPublishData: moderator.canPublishData,
      });
      expect(livekit.callsOf('UpdateParticipant')).toHaveLength(2);
    });

    test('who was removed and added again while LiveKit refused keeps the new session', async () => {
      await aCall();
      start();
      await answered();
      let isAway = true;
      livekit.fail('RemoveParticipant', () => (isAway ? { status: 503 } : undefined));
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('a removal was refused', () => livekit.callsOf('RemoveParticipant').length >= 1);
      await parts.publish(['member.added', room, { userId: 'u-7', role: 'speaker' }]);
      await enter(room, 'u-7', { sid: 'PA_new' });
      await parts.caughtUp();
      isAway = false;
      await answered();
      expect(inside()).toEqual(['bob', 'u-7']);
      expect(livekit.rooms.get(room)?.get('u-7')?.sid).toBe('PA_new');
    });

    test('who agrees with the facts is left alone', async () => {
      await aCall();
      start();
      await answered();
      await parts.publish(['member.updated', room, { userId: 'u-7', displayName: 'Seven' }]);
      await parts.caughtUp();
      await answered();
      expect(livekit.callsOf('UpdateParticipant')).toEqual([]);
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
    });

    test.each([
      ['is told so and removed', { type: 'AUDIO', source: 'CAMERA' }, true],
      ['stays with a source that is unknown', { type: 'AUDIO', source: 'UNKNOWN' }, false],
    ])('who publishes audio under another source %s', async (_, track, isOut) => {
      await aCall();
      livekit.put(room, {
        sid: 'PA_u-7',
        identity: 'u-7',
        attributes: { 'rt.user': 'u-7' },
        permission: speaker,
        tracks: [
          { sid: 'TR_1', type: 'VIDEO', source: 'CAMERA' },
          { sid: 'TR_2', ...track },
        ],
      });
      start();
      if (isOut) {
        await until('u-7 is out', () => !inside().includes('u-7'));
        await tellLeft('u-7');
      }
      await answered();
      expect(inside()).toEqual(isOut ? ['bob'] : ['bob', 'u-7']);
      const notice = { type: 'removed', code: 'kicked', reason: 'a track is not of the kind that its source says' };
      expect(livekit.notices()).toEqual(isOut ? [{ to: ['u-7'], notice }] : []);
      expect((await answers())['removed disguised_track']).toBe(isOut ? 1 : undefined);
    });

    test('the end of a ban is asked about by itself', async () => {
      await aCall();
      start();
      await answered();
      const ban = (more: object = {}) =>
        parts.publish(['member.banned', room, { userId: 'u-7', privilege: 'publish_audio', ...more }]);
      await ban();
      await until(
        'the microphone is taken',
        () => !JSON.stringify(livekit.rooms.get(room)?.get('u-7')?.permission).includes('MICROPHONE'),
      );
      const endsAt = new Date(Date.now() + 1_500).toISOString();
      await ban({ until: endsAt });
      await until(
        'the microphone is back',
        () => JSON.stringify(livekit.rooms.get(room)?.get('u-7')?.permission).includes('MICROPHONE'),
        5_000,
      );
      expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(endsAt));
    });

    test('the end of a login by policy is asked about by itself, and ends that login alone', async () => {
      await aCall();
      start();
      const endSeconds = Math.floor(Date.now() / 1000) + 5;
      await enter(room, 'u-7', { identity: 'u-7:old', sid: 'PA_old', loginEnd: String(endSeconds) });
      await enter(room, 'u-7', { identity: 'u-7:new', sid: 'PA_new', loginEnd: String(endSeconds + 600) });
      await parts.caughtUp();
      await until('both are judged', async () => (await marks()) === 2);
      expect(inside()).toEqual(['bob', 'u-7', 'u-7:new', 'u-7:old']);
      await until('the old login is out', () => !inside().includes('u-7:old'), 15_000);
      expect(Date.now()).toBeGreaterThanOrEqual(endSeconds * 1000);
      // The worker counts it once LiveKit has answered.
      await until('its question is answered', async () => (await marks()) === 1);
      expect(await answers()).toMatchObject({ 'removed login_ended': 1 });
      expect(inside()).toEqual(['bob', 'u-7', 'u-7:new']);
    });

    test('an end of a login that is no time counts as not said', async () => {
      await aCall();
      await enter(room, 'u-7', { loginEnd: 'soon' });
      await parts.caughtUp();
      start();
      await answered();
      expect(inside()).toEqual(['bob', 'u-7']);
    });

    describe('one device, where several were inside before the policy said so', () => {
      const identities = ['u-7:phone', 'u-7:desk'];
      const becomes = async (mode: string): Promise<void> => {
        await aCall();
        for (const identity of identities)
          await enter(room, 'u-7', { identity, sid: `PA_${identity}`, device: identity.slice('u-7:'.length) });
        livekit.rooms.get(room)?.delete('u-7');
        await parts.pool.query(`delete from sessions where identity = 'u-7'`);
        start();
        await parts.publish(['room.updated', room, { devicePolicy: { mode } }]);
        await parts.publish(['member.updated', room, { userId: 'u-7', displayName: 'Seven' }]);
        await parts.caughtUp();
        await answered();
      };

      test.each(['single_newest', 'single_oldest'])('%s throws nobody out', async (mode) => {
        await becomes(mode);
        expect(inside()).toEqual(['bob', 'u-7:desk', 'u-7:phone']);
      });

      test.each(['single_newest', 'single_oldest'])(
        '%s: whoever comes in by the identity that it gives ends the others, and nobody else',
        async (mode) => {
          await becomes(mode);
          await enter(room, 'u-7', { sid: 'PA_tab', device: 'tab' });
          await parts.caughtUp();
          await until('only the newcomer is inside', () => inside().join() === 'bob,u-7');
          await answered();
          expect(await answers()).toMatchObject({ 'removed device_conflict': 2 });
        },
      );

      test('whoever may not stay ends nobody by coming in by the identity that it gives', async () => {
        await becomes('single_newest');
        await parts.publish(['login.ended', 'u-7', { userId: 'u-7', sid: 'over' }]);
        await enter(room, 'u-7', { sid: 'PA_tab', device: 'tab', login: 'over' });
        await parts.caughtUp();
        await answered();
        expect(inside()).toEqual(['bob', 'u-7:desk', 'u-7:phone']);
        expect(await answers()).toMatchObject({ 'removed login_ended': 1 });
      });
    });

    test('every identity of a person is found, by attribute and not by name', async () => {
      await aCall();
      await enter(room, 'u-7', { identity: 'u-7:phone', sid: 'PA_phone' });
      await enter(room, 'u-7', { identity: 'u-7#screen', sid: 'PA_screen' });
      await enter(room, 'bob', { identity: 'u-7:bob', sid: 'PA_bob2' });
      start();
      await parts.caughtUp();
      await answered();
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await parts.caughtUp();
      await answered();
      expect(inside()).toEqual(['bob', 'u-7:bob']);
    });

    test('agents, recorders and people whom we did not admit are not judged', async () => {
      await aCall();
      await enter(room, 'stranger', { kind: 'AGENT' });
      livekit.put(room, { sid: 'PA_x', identity: 'x', attributes: {}, permission: speaker });
      start();
      await parts.publish(
        ['room.updated', room, { access: 'members' }],
        ['room.updated', room, { defaultRole: 'observer' }],
      );
      await parts.caughtUp();
      await answered();
      expect(inside()).toEqual(['bob', 'stranger', 'u-7', 'x']);
      const left = parts.lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'left as it is');
      expect(new Set(left.map(({ identity, reason }) => `${identity} ${reason}`))).toEqual(new Set(['x not_ours']));
    });

    test.each([{}, { 'rt.user': 'bob' }, { 'rt.user': 'bob', 'rt.device': 'tv' }])(
      'somebody whom others let write attributes is judged as whoever they came as: %j',
      async (attributes) => {
        await aCall();
        livekit.put(room, { sid: 'PA_u-7', identity: 'u-7', attributes, permission: speaker });
        start();
        await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
        await until('rights are those of u-7', async () => (await announced()).length > 0);
        expect(await announced()).toEqual([announcementOf('u-7', 'listener')]);
        expect(livekit.rooms.get(room)?.get('u-7')?.permission).toEqual(listener);
        await parts.publish(['member.removed', room, { userId: 'u-7' }]);
        await until('u-7 is out', () => inside().join() === 'bob');
      },
    );

    test.each([
      ['is put out', { access: 'members' }, undefined],
      ['gets the new rights', { defaultRole: 'listener' }, listener],
    ])('a guest %s, once the room says %j', async (_, change, permission) => {
      await aCall();
      await parts.publish(['room.updated', room, { access: 'authenticated', defaultRole: 'speaker' }]);
      await enter(room, 'guest');
      await parts.caughtUp();
      start();
      await answered();
      expect(livekit.rooms.get(room)?.get('guest')?.permission).toEqual(speaker);
      await parts.publish(['room.updated', room, change]);
      await parts.caughtUp();
      await answered();
      expect(livekit.rooms.get(room)?.get('guest')?.permission).toEqual(permission);
    });

    test('a disabled user and an ended login are out of every room; another login stays', async () => {
      await aCall();
      await enter(room, 'bob', { identity: 'bob:2', sid: 'PA_bob2', login: 'sid-2' });
      start();
      await parts.publish(
        ['user.disabled', 'u-7', { userId: 'u-7' }],
        ['login.ended', 'bob', { userId: 'bob', sid: 'sid-2' }],
      );
      await until('they are out', () => inside().join() === 'bob');
    });

    test('orders have places of their own, so that neither they nor questions delay the others', async () => {
      parts.consume();
      const people = Array.from({ length: 80 }, (_, at) => `p-${at}`);
      await parts.publish(['room.created', room, { members: people.map((userId) => ({ userId, role: 'speaker' })) }]);
      for (const each of people) await enter(room, each);
      const kicked = people.slice(0, 40).map((identity): RoomFact => {
        const data = { participantSid: `PA_${identity}`, identity, by: 'bob' };
        return ['participant.kick_requested', room, data];
      });
      await parts.publish(...kicked);
      await parts.caughtUp();
      const claimed: [string, number][] = [];
      const noting =
        <T, A extends readonly unknown[]>(what: string, claim: (...given: A) => Promise<T[]>) =>
        async (...given: A): Promise<T[]> => {
          const rows = await claim(...given);
          claimed.push([what, rows.length]);
          return rows;
        };
      const { claimMarks, claimEdges } = parts.store;
      const release = livekit.hold('ListRooms');
      start({
        store: { ...parts.store, claimMarks: noting('marks', claimMarks), claimEdges: noting('edges', claimEdges) },
      });
      await until('both are claimed', () => claimed.length >= 2);
      expect(claimed).toEqual([
        ['edges', 16],
        ['marks', 64],
      ]);
      release();
      await until('they are out', () => inside().length === 40);
      for (const each of people.slice(0, 40)) await tellLeft(each);
      await answered();
    });

    test('waiting for the lane counts as no try: LiveKit is soon asked again where it fails then', async () => {
      await aCall();
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await parts.caughtUp();
      const real = createLaneGate(parts.store, parts.log);
      let looks = 0;
      const hasReachedKnown: LaneGate['hasReachedKnown'] = async (keys) => {
        looks += 1;
        return looks > 4 && real.hasReachedKnown(keys);
      };
      await parts.pool.query(`delete from marks where identity <> 'u-7'`);
      livekit.fail('RemoveParticipant', [{ status: 503 }]);
      const delaysMs: number[] = [];
      const postponeMark: RoomStore['postponeMark'] = (mark, delayMs, attempts) => {
        delaysMs.push(delayMs);
        return parts.store.postponeMark(mark, delayMs, attempts);
      };
      start({
        store: { ...parts.store, postponeMark },
        gate: { ...real, hasReachedKnown },
        clock: { ...systemClock, random: () => 1 },
      });
      await until('u-7 is out', () => !inside().includes('u-7'));
      expect(delaysMs).toEqual([500, 500, 500, 500, 250]);
    });

    test('that is being answered is answered before the enforcement has stopped', async () => {
      await aCall();
      start();
      await answered();
      const release = livekit.hold('RemoveParticipant');
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('it is being answered', () => livekit.callsOf('RemoveParticipant').length === 1);
      const stopped = enforcement?.stop();
      release();
      await stopped;
      expect(await marks()).toBe(0);
    });

    test('fifty calls that wait in vain delay no other', async () => {
      parts.consume();
      const people = Array.from({ length: 50 }, (_, at) => `p-${at}`);
      const members = [...people, 'u-7'].map((userId) => ({ userId, role: 'speaker' }));
      await parts.publish(['room.created', room, { members }], ['room.created', 'sound', { members }]);
      for (const each of people) await enter(room, each);
      await enter('sound', 'u-7');
      await parts.caughtUp();
      start();
      await answered();
      await enforcement?.stop();
      const released = Promise.withResolvers<void>();
      let waiting = 0;
      const removeParticipant: RoomService['removeParticipant'] = async (roomId, identity) => {
        if (roomId === room) {
          waiting += 1;
          await released.promise;
        }
        return livekit.service.removeParticipant(roomId, identity);
      };
      start({ service: { ...livekit.service, removeParticipant } });
      await parts.publish(['room.created', room, { members: [] }]);
      await until('all are waited for', () => waiting === 50);
      await parts.publish(['member.removed', 'sound', { userId: 'u-7' }]);
      await until('u-7 is out', () => inside('sound').length === 0);
      expect(inside()).toHaveLength(50);
      released.resolve();
      await until('all are out', () => inside().length === 0, 15_000);
    }, 30_000);

    test.each([
      ['of somebody else', 'p-1500'],
      ['of one of them', 'u-7'],
    ])(
      'thousands who are asked about at once delay no removal %s',
      async (_, amidst) => {
        await aCall();
        start();
        await answered();
        await parts.pool.query(
          `insert into marks (room_id, identity, cause, caused_at, due_at)
          select $1, case at when 1500 then $2 else 'p-' || at end, 'rebuilt', clock_timestamp(), clock_timestamp()
            from generate_series(1, 3000) as at`,
          [room, amidst],
        );
        await parts.publish(['member.removed', room, { userId: 'u-7' }]);
        await until('u-7 is out', () => !inside().includes('u-7'), 30_000);
        expect(await marks()).toBeGreaterThan(1_000);
        await until('nobody is forgotten', async () => (await marks()) === 0, 30_000);
      },
      60_000,
    );

    const demotion: RoomFact = ['member.updated', room, { userId: 'u-7', role: 'listener' }];
    test.each([
      ['a removal that was found due', 'facts', 'elapsed', ['member.removed', room, { userId: 'u-7' }], ['bob']],
      [
        'a removal that a suspended machine found due',
        'facts',
        'now',
        ['member.removed', room, { userId: 'u-7' }],
        ['bob'],
      ],
      ['a removal that was told of', 'telling', 'elapsed', ['member.removed', room, { userId: 'u-7' }], ['bob']],
      ['a demotion that was found due', 'facts', 'elapsed', demotion, ['bob', 'u-7']],
      ['a demotion that was noted', 'note', 'elapsed', demotion, ['bob', 'u-7']],
      ['the end of a room that was found due', 'facts', 'elapsed', ['room.closed', room, {}], []],
      ['the end of a room that was told of', 'telling', 'elapsed', ['room.closed', room, {}], []],
    ] as [string, 'facts' | 'note' | 'telling', 'elapsed' | 'now', RoomFact, string[]][])(
      '%s too late is left to the next claim',
      async (_, slow, byClock, fact, rest) => {
        await aCall();
        let passedMs = 0;
        let isSlow = false;
        const pass = (what: typeof slow): void => {
          if (isSlow && slow === what) passedMs += 10_001;
        };
        const acts = ['RemoveParticipant', 'UpdateParticipant', 'DeleteRoom'];
        const acted = (): number => acts.reduce((count, method) => count + livekit.callsOf(method).length, 0);
        const readFacts: RoomStore['readFacts'] = async (...asked) => {
          const answers = await parts.store.readFacts(...asked);
          pass('facts');
          return answers;
        };
        const noteAnnouncement: RoomStore['noteAnnouncement'] = async (...given) => {
          const isNoted = await parts.store.noteAnnouncement(...given);
          pass('note');
          return isNoted;
        };
        const sendData: RoomService['sendData'] = async (...given) => {
          await livekit.service.sendData(...given);
          pass('telling');
        };
        const store = { ...parts.store, readFacts, noteAnnouncement };
        const service = { ...livekit.service, sendData };
        start({ store, service, clock: { ...systemClock, [byClock]: () => systemClock[byClock]() + passedMs } });
        await answered();
        isSlow = true;
        await parts.publish(fact);
        await until('it was found too late', async () => (await errors('store')) > 0);
        expect(acted()).toBe(0);
        isSlow = false;
        await answered();
        expect(acted()).toBe(1);
        expect(inside()).toEqual(rest);
      },
    );

    test('whose claim has ended before LiveKit is asked for new rights is left to whoever claimed it next', async () => {
      await aCall();
      start();
      await answered();
      await enforcement?.stop();
      let next: Mark | undefined;
      const noteAnnouncement: RoomStore['noteAnnouncement'] = async (mark, announcement) => {
        if (next === undefined) {
          const { rows } = await parts.pool.query(
            `update marks set locked_until = locked_until + interval '10 seconds' returning locked_until::text as claim`,
          );
          next = { ...mark, claim: rows[0]?.claim };
        }
        return parts.store.noteAnnouncement(mark, announcement);
      };
      await parts.publish(demotion);
      await parts.caughtUp();
      start({ store: { ...parts.store, noteAnnouncement } });
      await until('it is given up', async () => (await errors('store')) > 0);
      expect(livekit.callsOf('UpdateParticipant')).toEqual([]);
      await parts.store.postponeMark(next as Mark, 0);
      await answered();
      expect(livekit.callsOf('UpdateParticipant')).toHaveLength(1);
    });
  });

  describe('rooms', () => {
    test.each([{ reason: 'moved' }, {}])('a closed one ends in one call, and tells all why: %j', async (data) => {
      await aCall();
      start();
      await answered();
      const before = livekit.calls.length;
      await parts.publish(['room.closed', room, data]);
      await until('the room is gone', () => !livekit.rooms.has(room));
      await answered();
      expect(livekit.calls.slice(before).map(({ method }) => method)).toEqual(['SendData', 'DeleteRoom']);
      expect(livekit.notices()).toEqual([{ to: [], notice: { type: 'removed', code: 'room_closed', ...data } }]);
    });

    test('a closed one ends in one call for those too who came in just before, and are asked about first', async () => {
      await aCall();
      await parts.publish(['room.closed', room, {}]);
      await parts.caughtUp();
      await parts.pool.query(`update marks set due_at = now() + interval '500 ms' where identity = ''`);
      start();
      await until('the room is gone', () => !livekit.rooms.has(room));
      // Who is asked about late asks about the room once more, and until this was told it is believed to be live.
      await tell('room_finished', room);
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
      expect(livekit.notices()[0]).toEqual({ to: [], notice: { type: 'removed', code: 'room_closed' } });
      expect(await answers()).toMatchObject({ 'asked_room room_closed': 2 });
    });

    test('a closed one ends for whoever is asked about in it, also where nothing else asks about the room', async () => {
      await aCall();
      await parts.publish(['room.closed', room, {}]);
      await parts.caughtUp();
      await parts.pool.query(`delete from marks where identity = ''`);
      start();
      await until('the room is gone', () => !livekit.rooms.has(room));
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
    });

    test('of those inside one that has changed, no more is read at once than who they are', async () => {
      await aCall();
      const listParticipants = (): Promise<never> =>
        Promise.reject(new Error('it reads all that is known of thousands'));
      start({ service: { ...livekit.service, listParticipants } });
      await answered();
      await parts.publish(['room.updated', room, { defaultRole: 'observer' }]);
      await answered();
      expect(await errors('store')).toBe(0);
    });

    test('one that is not live, or has ended, leaves no question behind', async () => {
      parts.consume();
      await parts.publish(['room.created', room, { members: [{ userId: 'u-7', role: 'speaker' }] }]);
      await enter(room, 'u-7');
      livekit.rooms.delete(room);
      await tell('room_finished', room);
      await parts.publish(
        ['room.created', 'never-live'],
        ['room.closed', 'never-live'],
        ['member.removed', room, { userId: 'u-7' }],
      );
      await parts.caughtUp();
      start();
      await answered();
      expect(await errors('unavailable')).toBe(0);
      expect(await answers()).toMatchObject({ absent: 1 });
      expect(livekit.notices()).toEqual([]);
    });

    test('a closed one that is not in LiveKit counts as no removal', async () => {
      parts.consume();
      await parts.publish(['room.created', 'long-over'], ['room.closed', 'long-over']);
      await parts.caughtUp();
      start();
      await answered();
      expect(livekit.callsOf('DeleteRoom')).toHaveLength(1);
      expect(await answers()).toEqual({ 'absent room_closed': 1 });
      expect(await removals()).toEqual({ count: 0, seconds: 0 });
      expect(parts.lines.join('')).not.toContain('session ended');
    });

    test.each(['observe', 'close'] as const)('an unknown one, under policy %s', async (unknownRooms) => {
      parts.consume();
      await enter('stranger-room', 'u-7');
      const started = { event: 'room_started', room: { sid: 'RM_stranger-room', name: 'stranger-room' } };
      await parts.append(
        toLivekitRecord(
          {
            id: 'started',
            source: 'livekit',
            type: 'livekit.room_started',
            roomName: 'stranger-room',
            timeMs: undefined,
            traceparent: undefined,
          },
          started,
        ),
      );
      await parts.caughtUp();
      start({ unknownRooms });
      if (unknownRooms === 'close') {
        await until('the room is gone', () => !livekit.rooms.has('stranger-room'));
        await tell('participant_left', 'stranger-room', { sid: 'PA_u-7', identity: 'u-7' });
      }
      await answered();
      expect(livekit.rooms.has('stranger-room')).toBe(unknownRooms === 'observe');
      expect(inside('stranger-room')).toEqual(unknownRooms === 'observe' ? ['u-7'] : []);
      const notice = { type: 'removed', code: 'room_not_found' };
      // Whoever is inside may have been asked about, and told, before the room is.
      const toAll = livekit.notices().filter(({ to }) => to.length === 0);
      expect(toAll).toEqual(unknownRooms === 'observe' ? [] : [{ to: [], notice }]);
      const { [unknownRooms === 'observe' ? 'observed unknown_room' : 'room_deleted unknown_room']: count } =
        await answers();
      expect(count).toBeGreaterThanOrEqual(1);
      const said = parts.lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'left as it is');
      expect(
        said.some(({ room: of, identity, reason }) => [of, identity, reason].join() === 'stranger-room,,unknown_room'),
      ).toBe(unknownRooms === 'observe');
    });
  });

  describe('absence', () => {
    /** A gate that hears of a record more in the log than there is, until released. */
    const behind = (): { gate: LaneGate; catchUp: () => void } => {
      let missing = 1n;
      const log: EventLog = {
        ...parts.log,
        bounds: async (topic) =>
          (await parts.log.bounds(topic)).map((each) => ({ ...each, high: each.high + missing })),
      };
      const real = createLaneGate(parts.store, parts.log);
      return {
        gate: {
          ...real,
          isCaughtUp: createLaneGate(parts.store, log).isCaughtUp,
        },
        catchUp: () => {
          missing = 0n;
        },
      };
    };

    test('removes only when the lane is caught up; what is known acts at once', async () => {
      await aCall();
      await enter(room, 'stranger');
      await parts.caughtUp();
      const { gate, catchUp } = behind();
      start({ gate });
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('the removed one is out', () => !inside().includes('u-7'));
      await until(
        'the stranger was looked at twice',
        () => livekit.callsOf('GetParticipant').filter(({ body }) => body.identity === 'stranger').length > 1,
      );
      expect(inside()).toEqual(['bob', 'stranger']);
      catchUp();
      await until('the stranger is out', () => inside().join() === 'bob');
    });

    test('means nothing while the log is away, and that is told as such', async () => {
      await aCall();
      await enter(room, 'stranger');
      await parts.caughtUp();
      let isAway = true;
      const bounds: EventLog['bounds'] = async (topic) => {
        if (isAway) throw new Error('away');
        return parts.log.bounds(topic);
      };
      start({ gate: createLaneGate(parts.store, { bounds }) });
      await until('it is told', async () => (await errors('log')) > 0);
      expect(inside()).toContain('stranger');
      expect(await errors('store')).toBe(0);
      isAway = false;
      await until('the stranger is out', () => !inside().includes('stranger'));
    });

    test('of the newest facts lets nobody be given the rights of before', async () => {
      await aCall();
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
      await parts.caughtUp();
      let looks = 0;
      const real = createLaneGate(parts.store, parts.log);
      const hasReachedKnown: LaneGate['hasReachedKnown'] = async (keys) => {
        if (!keys.includes('u-7')) return real.hasReachedKnown(keys);
        looks += 1;
        return looks > 2 && real.hasReachedKnown(keys);
      };
      start({ gate: { ...real, hasReachedKnown } });
      await until('u-7 was asked about', () => looks === 2);
      expect(livekit.callsOf('UpdateParticipant')).toEqual([]);
      await answered();
      expect(livekit.callsOf('UpdateParticipant')).toHaveLength(1);
    });

    test("who is added between the reading and the sight of the log's end stays", async () => {
      await aCall();
      await enter(room, 'late');
      await parts.caughtUp();
      const real = createLaneGate(parts.store, parts.log);
      start({
        gate: {
          ...real,
          isCaughtUp: async (keys) => {
            await parts.publish(['member.added', room, { userId: 'late', role: 'speaker' }]);
            await parts.caughtUp();
            return real.isCaughtUp(keys);
          },
        },
      });
      await answered();
      expect(inside()).toEqual(['bob', 'late', 'u-7']);
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
    });

    test('nobody is removed by an older state that came in between the look at the lane and the reading', async () => {
      await aCall();
      start();
      await answered();
      await enforcement?.stop();
      let isRestored = false;
      const readFacts: RoomStore['readFacts'] = async (...asked) => {
        if (!isRestored) {
          isRestored = true;
          await parts.pool.query(`update members set is_removed = true where user_id = 'u-7'`);
          await parts.pool.query(
            'update log_positions set next_offset = next_offset - 1 where topic = $1 and partition = $2',
            [topics.roomEvents, partitionOf(room, partitionCount)],
          );
        }
        return parts.store.readFacts(...asked);
      };
      let postponed = 0;
      const postponeMark: RoomStore['postponeMark'] = (...given) => {
        postponed += 1;
        return parts.store.postponeMark(...given);
      };
      await parts.store.markIdentities(room, ['u-7'], { cause: 'test', causedAtMs: Date.now() });
      start({ store: { ...parts.store, readFacts, postponeMark } });
      await until('it was asked about', async () => postponed > 0 || (await marks()) === 0);
      expect(inside()).toEqual(['bob', 'u-7']);
    });

    test.each([
      [
        'nobody is removed',
        ['member.removed', room, { userId: 'u-7' }],
        ['member.added', room, { userId: 'u-7', role: 'speaker' }],
        speaker,
      ],
      [
        'nobody keeps rights that were taken',
        ['member.updated', room, { userId: 'u-7', role: 'speaker' }],
        ['member.updated', room, { userId: 'u-7', role: 'listener' }],
        { canPublish: false },
      ],
    ] as const)('%s by an older primary that answers, too', async (_, older, newer, rights) => {
      await aCall();
      await parts.publish(older);
      await parts.caughtUp();
      const asked = [{ roomId: room, userId: 'u-7', loginId: null }];
      let stood: readonly bigint[] = [];
      const stale = await parts.store.readFacts(asked, (nextOffsets) => {
        stood = nextOffsets;
      });
      await parts.publish(newer);
      await parts.caughtUp();
      let isOlder = true;
      const readFacts: RoomStore['readFacts'] = async (queries, noteStanding) => {
        if (!isOlder || queries[0]?.userId !== 'u-7') return parts.store.readFacts(queries, noteStanding);
        noteStanding?.(stood);
        return stale;
      };
      let postponed = 0;
      const postponeMark: RoomStore['postponeMark'] = (...given) => {
        postponed += 1;
        return parts.store.postponeMark(...given);
      };
      start({ store: { ...parts.store, readFacts, postponeMark } });
      const isAskedAbout = async () =>
        (await parts.pool.query(`select from marks where identity = 'u-7'`)).rowCount === 1;
      await until('it was tried to answer', async () => postponed > 1 || !(await isAskedAbout()));
      expect(await isAskedAbout()).toBe(true);
      isOlder = false;
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
      expect(livekit.rooms.get(room)?.get('u-7')?.permission).toMatchObject(rights);
    });

    test('no room is closed by an older state that came in between the look at the lane and the reading', async () => {
      await aCall();
      const lane = partitionOf(room, partitionCount);
      const sameLane = Array.from({ length: 1_000 }, (_, at) => `new-${at}`);
      const created = sameLane.find((each) => partitionOf(each, partitionCount) === lane) ?? '';
      livekit.put(created, { sid: 'PA_9', identity: 'u-9', attributes: { 'rt.user': 'u-9' }, permission: {} });
      const real = createLaneGate(parts.store, parts.log);
      let looks = 0;
      // As a standby answers that does not know of the room's creation yet.
      const failOver = () =>
        parts.pool.query('update log_positions set next_offset = next_offset - 1 where topic = $1 and partition = $2', [
          topics.roomEvents,
          lane,
        ]);
      const isCaughtUp: LaneGate['isCaughtUp'] = async (keys) => {
        looks += 1;
        const is = await real.isCaughtUp(keys);
        if (is) await failOver();
        return is;
      };
      await parts.store.markIdentities(created, [''], { cause: 'test', causedAtMs: Date.now() });
      start({ unknownRooms: 'close', gate: { ...real, isCaughtUp } });
      await until('it was asked about again, or answered', async () => looks > 1 || (await marks()) === 0);
      expect(inside(created)).toEqual(['u-9']);
      expect(livekit.callsOf('DeleteRoom')).toEqual([]);
    });

    test('a room that is created in that moment is not closed', async () => {
      parts.consume();
      await enter('new-room', 'u-7');
      const started = { event: 'room_started', room: { sid: 'RM_new-room', name: 'new-room' } };
      await parts.append(
        toLivekitRecord(
          {
            id: 'started',
            source: 'livekit',
            type: 'livekit.room_started',
            roomName: 'new-room',
            timeMs: undefined,
            traceparent: undefined,
          },
          started,
        ),
      );
      await parts.caughtUp();
      const real = createLaneGate(parts.store, parts.log);
      start({
        unknownRooms: 'close',
        gate: {
          ...real,
          isCaughtUp: async (keys) => {
            await parts.publish(['room.created', 'new-room', { members: [{ userId: 'u-7', role: 'speaker' }] }]);
            await parts.caughtUp();
            return real.isCaughtUp(keys);
          },
        },
      });
      await answered();
      expect(inside('new-room')).toEqual(['u-7']);
      expect(livekit.callsOf('DeleteRoom')).toEqual([]);
    });

    test('of a member whose facts stand in another lane than their key gives waits until that has been read, too', async () => {
      const lane = partitionOf(room, partitionCount);
      const theirs = [lane, partitionOf('u-7', partitionCount)];
      const other = [0, 1, 2].find((each) => !theirs.includes(each)) ?? 0;
      await parts.publish(['member.added', room, { userId: 'u-7', role: 'speaker' }]);
      const toOther = [topics.roomEvents, other];
      await parts.pool.query('update log_records set partition = $2 where topic = $1', toOther);
      await parts.pool.query('update log_heads set next_offset = (partition = $2)::int where topic = $1', toOther);
      await parts.publish(['room.created', room]);
      await enter(room, 'u-7');
      await parts.project(await readBatch(parts, topics.roomEvents, lane));
      await parts.project(await readBatch(parts, topics.livekitWebhooks, lane));
      start();
      const judged = () => livekit.callsOf('GetParticipant').length > 2 || !inside().includes('u-7');
      await until('u-7 was judged', judged);
      await parts.project(await readBatch(parts, topics.roomEvents, other));
      await answered();
      expect(inside()).toEqual(['u-7']);
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
    });

    test('nothing is enforced on old facts: an empty database that replays the log under live people empties no call', async () => {
      const people = Array.from({ length: 8 }, (_, at) => `p-${at}`);
      await parts.publish(['room.created', room]);
      for (const userId of people) {
        await parts.publish(['member.added', room, { userId, role: 'speaker' }], ['member.removed', room, { userId }]);
        await parts.publish(['member.added', room, { userId, role: 'speaker' }]);
      }
      for (const each of people) await enter(room, each);
      // LiveKit's lane is applied first, and so is every removal, one record at a time, with the enforcement running.
      await parts.project(await readBatch(parts, topics.livekitWebhooks, partitionOf(room, partitionCount)));
      start({ unknownRooms: 'close' });
      const batch = await readBatch(parts, topics.roomEvents, partitionOf(room, partitionCount));
      for (const [at, record] of batch.records.entries()) {
        if (at === batch.records.length - 1) break;
        await parts.project({
          ...batch,
          fetchedOffset: record.offset,
          nextOffset: record.offset + 1n,
          records: [record],
        });
        const asked = livekit.callsOf('GetParticipant').length;
        enforcement?.wake();
        await until('somebody was looked at', () => livekit.callsOf('GetParticipant').length > asked);
        expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
      }
      await parts.project(batch);
      await until(
        "the lane's people were answered",
        async () => (await parts.pool.query('select from marks where room_id = $1', [room])).rowCount === 0,
      );
      expect(inside()).toEqual(people);
      expect(livekit.callsOf('RemoveParticipant').filter(({ body }) => body.room === room)).toEqual([]);
    }, 60_000);
  });

  describe('orders', () => {
    const kick = (participantSid: string): RoomFact => [
      'participant.kick_requested',
      room,
      { participantSid, identity: 'u-7', by: 'bob' },
    ];

    const expiryCounted = () => until('its expiry is counted', async () => (await answers())['expired kick'] === 1);

    test('a kick ends the session that it names, and tells why', async () => {
      await aCall();
      start();
      const reason = 'off topic';
      await parts.publish([
        'participant.kick_requested',
        room,
        { participantSid: 'PA_u-7', identity: 'u-7', by: 'bob', reason },
      ]);
      await until('u-7 is out', () => inside().join() === 'bob');
      expect(livekit.notices()).toEqual([{ to: ['u-7'], notice: { type: 'removed', code: 'kicked', reason } }]);
      expect(await parts.ask('enter', room, 'u-7')).toBe('allow');
    });

    test('a kick of another session of that identity does nothing', async () => {
      await aCall();
      start();
      await parts.publish(kick('PA_earlier'));
      await parts.caughtUp();
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
      await until('it is counted', async () => (await answers())['absent kick'] === 1);
      expect(parts.lines.filter((line) => line.includes('order has found nobody'))).toHaveLength(1);
    });

    test('a kick of somebody whom LiveKit does not find, though they are believed to be inside, is tried again', async () => {
      await aCall();
      const people = livekit.rooms.get(room) ?? new Map();
      livekit.rooms.delete(room);
      start();
      await parts.publish(kick('PA_u-7'));
      await until('it was tried', async () => (await errors('unavailable')) > 0);
      livekit.rooms.set(room, people);
      await until('u-7 is out', () => inside().join() === 'bob');
      await answered();
      expect(await answers()).not.toHaveProperty('absent kick');
    });

    test.each([
      ['RemoveParticipant', 'participant.kick_requested', {}, 'kick requested'],
      ['MutePublishedTrack', 'track.mute_requested', { trackSid: 'TR_1' }, 'mute requested'],
    ])('an order is tried again where LiveKit lost sight of somebody before %s', async (method, type, data, answer) => {
      await aCall();
      const u7 = { sid: 'PA_u-7', identity: 'u-7', attributes: { 'rt.user': 'u-7' }, permission: speaker };
      livekit.put(room, { ...u7, tracks: [{ sid: 'TR_1' }] });
      start();
      await answered();
      const sight = loseSightAt(method);
      await parts.publish([type, room, { participantSid: 'PA_u-7', identity: 'u-7', by: 'bob', ...data }]);
      await until('it was tried', async () => (await errors('unavailable')) > 0);
      sight.find();
      await until('it is carried out', async () => (await answers())[answer] === 1);
      expect(livekit.callsOf(method)).toHaveLength(2);
    });

    test('a kick of somebody who has left meanwhile finds nobody', async () => {
      await aCall();
      livekit.rooms.get(room)?.delete('u-7');
      await parts.publish(kick('PA_u-7'));
      await tellLeft('u-7');
      start();
      await until('it is counted', async () => (await answers())['absent kick'] === 1);
    });

    test('a kick that has expired does nothing', async () => {
      await aCall();
      await parts.publish(kick('PA_u-7'));
      await parts.caughtUp();
      await parts.pool.query(`update edges set expires_at = now() - interval '1 ms'`);
      start();
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
      await expiryCounted();
      expect(parts.lines.filter((line) => line.includes('order has expired'))).toHaveLength(1);
    });

    test('a kick that expires while it is being carried out counts as carried out', async () => {
      await aCall();
      start();
      await answered();
      const release = livekit.hold('RemoveParticipant');
      await parts.publish(kick('PA_u-7'));
      await until('it is being carried out', () => livekit.callsOf('RemoveParticipant').length === 1);
      await parts.pool.query('update edges set expires_at = now()');
      // Claims, and by then drops what has expired.
      await parts.publish(['member.updated', room, { userId: 'bob', role: 'listener' }]);
      await until('bob is a listener', () => livekit.rooms.get(room)?.get('bob')?.permission['canPublish'] === false);
      release();
      await answered();
      expect(inside()).toEqual(['bob']);
      expect(await answers()).toMatchObject({ 'kick requested': 1 });
      expect(await answers()).not.toHaveProperty('expired kick');
    });

    test('a kick that LiveKit refuses for longer than it lives is dropped', async () => {
      await aCall();
      start();
      await answered();
      livekit.fail('RemoveParticipant', () => ({ status: 503 }));
      await parts.publish(kick('PA_u-7'));
      await until('it was refused', () => livekit.callsOf('RemoveParticipant').length > 0);
      await parts.pool.query('update edges set expires_at = now()');
      await answered();
      await expiryCounted();
      const calls = livekit.callsOf('RemoveParticipant').length;
      livekit.fail('RemoveParticipant', []);
      await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
      await until('what came later took effect', () => livekit.callsOf('UpdateParticipant').length > 0);
      expect(livekit.callsOf('RemoveParticipant')).toHaveLength(calls);
      expect(inside()).toEqual(['bob', 'u-7']);
    });

    test('a mute that a worker finds after it stood still is left to the next claim: another may have muted since', async () => {
      await aCall();
      const attributes = { 'rt.user': 'u-7' };
      livekit.put(room, { sid: 'PA_u-7', identity: 'u-7', attributes, permission: speaker, tracks: [{ sid: 'TR_1' }] });
      let stoodStillMs = 0;
      start({ clock: { ...systemClock, elapsed: () => performance.now() + stoodStillMs } });
      await answered();
      const release = livekit.hold('GetParticipant');
      const asked = livekit.callsOf('GetParticipant').length;
      const data = { participantSid: 'PA_u-7', identity: 'u-7', trackSid: 'TR_1', by: 'bob' };
      await parts.publish(['track.mute_requested', room, data]);
      await until('it is being carried out', () => livekit.callsOf('GetParticipant').length > asked);
      stoodStillMs = 600_000;
      release();
      await until('it is put back', () => parts.lines.some((line) => line.includes('could not be carried out yet')));
      expect(livekit.callsOf('MutePublishedTrack')).toEqual([]);
      await answered();
      expect(livekit.callsOf('MutePublishedTrack')).toHaveLength(1);
    });

    test('a kick that was told of by a worker which then stood still is left to the next claim: the person may be back', async () => {
      await aCall();
      let stoodStillMs = 0;
      const sendData: RoomService['sendData'] = async (...given) => {
        await livekit.service.sendData(...given);
        if (stoodStillMs > 0) return;
        stoodStillMs = 600_000;
        livekit.put(room, { sid: 'PA_new', identity: 'u-7', attributes: { 'rt.user': 'u-7' }, permission: speaker });
      };
      const clock = { ...systemClock, elapsed: () => performance.now() + stoodStillMs };
      start({ service: { ...livekit.service, sendData }, clock });
      await answered();
      await parts.publish(kick('PA_u-7'));
      await until('the person was told', () => stoodStillMs > 0);
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
      expect(inside()).toEqual(['bob', 'u-7']);
    });

    test.each([503, 404])('a kick that LiveKit refused with %i is tried again within seconds', async (status) => {
      await aCall();
      start();
      await answered();
      livekit.fail('RemoveParticipant', [{ status, body: { code: status === 404 ? 'not_found' : 'unavailable' } }]);
      await parts.publish(kick('PA_u-7'));
      await until('u-7 is out', () => inside().join() === 'bob', 4_000);
    });

    test('a mute is of the session and the track that it names, where they are still there', async () => {
      await aCall();
      const u7 = { sid: 'PA_u-7', identity: 'u-7', attributes: { 'rt.user': 'u-7' }, permission: speaker };
      livekit.put(room, { ...u7, tracks: [{ sid: 'TR_1' }] });
      start();
      const mute = (participantSid: string, trackSid: string): RoomFact => [
        'track.mute_requested',
        room,
        { participantSid, identity: 'u-7', trackSid, by: 'bob' },
      ];
      await parts.publish(mute('PA_earlier', 'TR_1'), mute('PA_u-7', 'TR_gone'), mute('PA_u-7', 'TR_1'));
      await parts.caughtUp();
      await answered();
      expect(livekit.callsOf('MutePublishedTrack').map(({ body }) => body)).toEqual([
        { room, identity: 'u-7', track_sid: 'TR_1', muted: true },
      ]);
      expect(livekit.notices()).toEqual([{ to: ['u-7'], notice: { type: 'muted', trackSid: 'TR_1' } }]);
      await until('the others are counted', async () => (await answers())['absent mute'] === 2);
    });

    test('a mute of somebody who leaves in that moment counts as one that found nobody', async () => {
      await aCall();
      const u7 = { sid: 'PA_u-7', identity: 'u-7', attributes: { 'rt.user': 'u-7' }, permission: speaker };
      livekit.put(room, { ...u7, tracks: [{ sid: 'TR_1' }] });
      start();
      await answered();
      const sight = loseSightAt('MutePublishedTrack');
      const data = { participantSid: 'PA_u-7', identity: 'u-7', trackSid: 'TR_1', by: 'bob' };
      await parts.publish(['track.mute_requested', room, data]);
      await until('they are gone', sight.isLost);
      await tellLeft('u-7');
      await answered();
      expect(livekit.notices()).toEqual([]);
      expect(await answers()).toMatchObject({ 'absent mute': 1 });
    });
  });

  test('rights are announced once LiveKit enforces them, to those who may see whom they are of', async () => {
    await aCall();
    start();
    await answered();
    livekit.fail('UpdateParticipant', [{ status: 503, body: { code: 'unavailable' } }]);
    await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
    await until('LiveKit has refused', async () => (await errors('unavailable')) === 1);
    expect(await announced()).toEqual([]);
    await answered();
    expect(await announced()).toEqual([announcementOf('u-7', 'listener')]);
    await parts.publish(['member.updated', room, { userId: 'bob', role: 'observer' }]);
    await until('bob is hidden', () => livekit.rooms.get(room)?.get('bob')?.permission['hidden'] === true);
    await answered();
    expect(await announced()).toHaveLength(1);
  });

  test('rights of somebody who leaves in that moment are not announced', async () => {
    await aCall();
    start();
    await answered();
    livekit.fail('UpdateParticipant', () => {
      livekit.rooms.get(room)?.delete('u-7');
      return { status: 404, body: { code: 'not_found', msg: 'participant does not exist' } };
    });
    await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
    await until('LiveKit was asked', () => livekit.callsOf('UpdateParticipant').length === 1);
    await tellLeft('u-7');
    await answered();
    expect(await announced()).toEqual([]);
  });

  test('rights of somebody whom LiveKit lists and does not find are set by the next try', async () => {
    await aCall();
    start();
    await answered();
    livekit.fail('UpdateParticipant', [
      { status: 404, body: { code: 'not_found', msg: 'participant does not exist' } },
    ]);
    await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
    await until('LiveKit was asked', () => livekit.callsOf('UpdateParticipant').length > 0);
    await answered();
    expect(livekit.rooms.get(room)?.get('u-7')?.permission).toEqual(listener);
    expect(await announced()).toEqual([announcementOf('u-7', 'listener')]);
  });

  test('rights that differ in anything are set whole', async () => {
    await aCall();
    await enter(room, 'u-7', { permission: { ...speaker, canPublishSources: [] } });
    await enter(room, 'bob', { permission: { ...speaker, canUpdateMetadata: true } });
    start();
    await parts.publish(['member.updated', room, { userId: 'u-7', role: 'listener' }]);
    await parts.caughtUp();
    await answered();
    const permissionOf = (identity: string) => livekit.rooms.get(room)?.get(identity)?.permission;
    expect(permissionOf('u-7')).toEqual(listener);
    expect(permissionOf('bob')).toEqual({
      ...speaker,
      canPublishSources: speaker.canPublishSources.map((source) => source.toUpperCase()),
    });
  });
});
