import { topics } from '@realtime-service/contracts';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { type EventLog, partitionOf } from '@realtime-service/event-log';
import { permissionsOf, toParticipantPermission } from '@realtime-service/room-model';
import { activeProjection } from '@realtime-service/room-store';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type FakeLivekit, type Fault, startFakeLivekit } from '../test/fake-livekit.ts';
import { type RoomFact, readBatch, startProjection, type TestProjection } from '../test/projection.ts';
import { partitionCount } from '../test/records.ts';
import { until } from '../test/until.ts';
import { type Enforcement, startEnforcement } from './enforce.ts';
import { createLaneGate, type LaneGate } from './lane-gate.ts';
import { toLivekitRecord } from './livekit-record.ts';

const room = 'room-42';
const timeoutMs = 300;

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
    livekit = await startFakeLivekit(timeoutMs);
  });
  afterEach(async () => {
    await enforcement?.stop();
    enforcement = undefined;
    await livekit.stop();
    await parts.stop();
  });

  const start = ({
    gate = createLaneGate(parts.store, parts.log, activeProjection),
    unknownRooms = 'observe' as 'observe' | 'close',
  } = {}): void => {
    const { store, metrics, logger } = parts;
    enforcement = startEnforcement({ store, livekit: livekit.service, gate, unknownRooms, metrics, logger });
  };

  let told = 0;
  /** Somebody is inside, and LiveKit says so. */
  const enter = async (
    roomId: string,
    userId: string,
    changes: { sid?: string; identity?: string; permission?: object; kind?: string; login?: string } = {},
  ): Promise<void> => {
    told += 1;
    const { sid = `PA_${userId}`, identity = userId, permission = speaker, kind, login } = changes;
    const attributes = { 'rt.user': userId, ...(login === undefined ? {} : { 'rt.login': login }) };
    const participant = {
      sid,
      identity,
      attributes,
      permission: permission as Record<string, unknown>,
      ...(kind === undefined ? {} : { kind }),
    };
    livekit.put(roomId, participant);
    const data = {
      event: 'participant_joined',
      room: { sid: `RM_${roomId}`, name: roomId },
      participant: { ...participant, joinedAtMs: String(1_000 + told) },
    };
    await parts.append(
      toLivekitRecord(
        {
          id: `w-${told}`,
          source: 'livekit',
          type: 'livekit.participant_joined',
          roomName: roomId,
          timeMs: undefined,
          traceparent: undefined,
        },
        data,
      ),
    );
  };
  const inside = (roomId = room): string[] => [...(livekit.rooms.get(roomId)?.keys() ?? [])].sort();
  const marks = async (): Promise<number> => (await parts.pool.query('select count(*)::int as n from marks')).rows[0].n;
  const edges = async (): Promise<number> => (await parts.pool.query('select count(*)::int as n from edges')).rows[0].n;
  const answered = () =>
    until('every question is answered', async () => (await marks()) === 0 && (await edges()) === 0, 15_000);
  const answers = async (): Promise<Record<string, number>> =>
    Object.fromEntries(
      (await parts.metrics.answers.get()).values.map(({ labels, value }) => [
        `${labels.action} ${labels.reason}`.trim(),
        value,
      ]),
    );
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
          'answers with "participant does not exist"',
          () => [{ status: 404, body: { code: 'not_found', msg: 'participant does not exist' } }],
          { calls: 1, withinMs: 1_000 },
        ],
        [
          'answers with "requested room does not exist"',
          () => [{ status: 404, body: { code: 'not_found', msg: 'requested room does not exist' } }],
          { calls: 1, withinMs: 1_000 },
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
        ['answers with 200 that is none of its own', () => [{ status: 502 }], { calls: 2, withinMs: 5_000 }],
      ];

    test.each(cases)(
      '%s',
      async (_, faults, { calls, withinMs, afterMs = 0 }) => {
        await aCall();
        start();
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
        expect(livekit.callsOf('RemoveParticipant')).toHaveLength(calls);
        expect(await answers()).toMatchObject({ 'removed member_removed': 1 });
      },
      20_000,
    );

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

    test("never sees, since the worker is killed in the middle, is another worker's", async () => {
      await aCall();
      start();
      await answered();
      livekit.fail('RemoveParticipant', ['silence']);
      await parts.publish(['member.removed', room, { userId: 'u-7' }]);
      await until('the call is under way', () => livekit.callsOf('RemoveParticipant').length === 1);
      // What the killed one leaves: a claim that nobody will answer. Its time is over.
      await parts.pool.query(`update marks set locked_until = now() - interval '1 second'`);
      const { store, metrics, logger } = parts;
      const second = startEnforcement({
        store,
        livekit: livekit.service,
        gate: createLaneGate(store, parts.log, activeProjection),
        unknownRooms: 'observe',
        metrics,
        logger,
      });
      await until('u-7 is out', () => !inside().includes('u-7'));
      await second.stop();
    });
  });

  describe('a mark is a question', () => {
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

    test('the end of a ban is asked about by itself', async () => {
      await aCall();
      start();
      await answered();
      await parts.publish([
        'member.banned',
        room,
        { userId: 'u-7', privilege: 'publish_audio', until: new Date(Date.now() + 1_500).toISOString() },
      ]);
      await until(
        'the microphone is taken',
        () => !JSON.stringify(livekit.rooms.get(room)?.get('u-7')?.permission).includes('MICROPHONE'),
      );
      await until(
        'the microphone is back',
        () => JSON.stringify(livekit.rooms.get(room)?.get('u-7')?.permission).includes('MICROPHONE'),
        5_000,
      );
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

    test('a claim that holds 32 silent calls delays others by no more than their time-out', async () => {
      parts.consume();
      const people = Array.from({ length: 40 }, (_, at) => `p-${at}`);
      await parts.publish(['room.created', room, { members: people.map((userId) => ({ userId, role: 'speaker' })) }]);
      for (const each of people) await enter(room, each);
      await parts.caughtUp();
      start();
      await answered();
      let silent = 32;
      livekit.fail('RemoveParticipant', () => {
        silent -= 1;
        return silent >= 0 ? 'silence' : undefined;
      });
      const startedAtMs = performance.now();
      await parts.publish(['room.created', room, { members: [] }]);
      await until('the first are out', () => inside().length < 40);
      expect(performance.now() - startedAtMs).toBeLessThan(timeoutMs + 1_500);
      await until('all are out', () => inside().length === 0, 15_000);
    }, 30_000);
  });

  describe('rooms', () => {
    test('a closed one ends in one call', async () => {
      await aCall();
      start();
      await answered();
      await parts.publish(['room.closed', room]);
      await until('the room is gone', () => !livekit.rooms.has(room));
      await answered();
      expect(livekit.callsOf('DeleteRoom')).toHaveLength(1);
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
    });

    test('one that is not live, or has ended, leaves no question behind', async () => {
      parts.consume();
      await parts.publish(['room.created', room, { members: [{ userId: 'u-7', role: 'speaker' }] }]);
      await enter(room, 'u-7');
      livekit.rooms.delete(room);
      await parts.publish(['room.created', 'never-live'], ['member.removed', room, { userId: 'u-7' }]);
      await parts.caughtUp();
      start();
      await answered();
      expect(await errors('unavailable')).toBe(0);
      expect(await answers()).toMatchObject({ absent: 1 });
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
      await answered();
      expect(livekit.rooms.has('stranger-room')).toBe(unknownRooms === 'observe');
      expect(inside('stranger-room')).toEqual(unknownRooms === 'observe' ? ['u-7'] : []);
      const { [unknownRooms === 'observe' ? 'observed unknown_room' : 'room_deleted unknown_room']: count } =
        await answers();
      expect(count).toBeGreaterThanOrEqual(1);
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
      const real = createLaneGate(parts.store, parts.log, activeProjection);
      return {
        gate: {
          hasReachedKnown: real.hasReachedKnown,
          isCaughtUp: createLaneGate(parts.store, log, activeProjection).isCaughtUp,
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

    test("who is added between the reading and the sight of the log's end stays", async () => {
      await aCall();
      await enter(room, 'late');
      await parts.caughtUp();
      const real = createLaneGate(parts.store, parts.log, activeProjection);
      start({
        gate: {
          hasReachedKnown: real.hasReachedKnown,
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
      const real = createLaneGate(parts.store, parts.log, activeProjection);
      start({
        unknownRooms: 'close',
        gate: {
          hasReachedKnown: real.hasReachedKnown,
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

    test('a kick ends the session that it names', async () => {
      await aCall();
      start();
      await parts.publish(kick('PA_u-7'));
      await until('u-7 is out', () => inside().join() === 'bob');
      expect(await parts.ask('enter', room, 'u-7')).toBe('allow');
    });

    test('a kick of another session of that identity does nothing', async () => {
      await aCall();
      start();
      await parts.publish(kick('PA_earlier'));
      await parts.caughtUp();
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
    });

    test('a kick that has expired does nothing', async () => {
      await aCall();
      await parts.publish(kick('PA_u-7'));
      await parts.caughtUp();
      await parts.pool.query(`update edges set expires_at = now() - interval '1 ms'`);
      start();
      await answered();
      expect(livekit.callsOf('RemoveParticipant')).toEqual([]);
    });

    test('a kick that LiveKit refused is tried again within seconds', async () => {
      await aCall();
      start();
      await answered();
      livekit.fail('RemoveParticipant', [{ status: 503 }]);
      await parts.publish(kick('PA_u-7'));
      await until('u-7 is out', () => inside().join() === 'bob', 4_000);
    });

    test('a mute names the track of the session that it names', async () => {
      await aCall();
      start();
      const mute = (participantSid: string): RoomFact => [
        'track.mute_requested',
        room,
        { participantSid, identity: 'u-7', trackSid: 'TR_1', by: 'bob' },
      ];
      await parts.publish(mute('PA_earlier'), mute('PA_u-7'));
      await parts.caughtUp();
      await answered();
      expect(livekit.callsOf('MutePublishedTrack').map(({ body }) => body)).toEqual([
        { room, identity: 'u-7', track_sid: 'TR_1', muted: true },
      ]);
    });
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
