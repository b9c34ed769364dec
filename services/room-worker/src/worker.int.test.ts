import { DisconnectReason } from '@livekit/rtc-node';
import { consumedTopics, type Privilege, partitionName } from '@realtime-service/contracts';
import { startFaultProxy, until } from '@realtime-service/dev-stack';
import { describeWith, realParts } from '@realtime-service/dev-stack/vitest';
import type { NewRecord } from '@realtime-service/event-log';
import {
  isSamePermission,
  type ParticipantPermission,
  type Permissions,
  permissionsOf,
  roles,
  toParticipantPermission,
} from '@realtime-service/room-model';
import { activeProjection, readPositions } from '@realtime-service/room-store';
import { RoomServiceClient } from 'livekit-server-sdk';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type FakeLivekit, type FakeParticipant, startFakeLivekit } from '../test/fake-livekit.ts';
import { type RoomFact, roomRecord, startProjection, type TestProjection } from '../test/projection.ts';
import { type Client, connect, livekitKey, type RealWorker, startRealWorker, tokenFor } from '../test/real-worker.ts';
import { partitionCount } from '../test/records.ts';
import { systemClock } from './clock.ts';
import { WorkerSettings } from './config.ts';
import { startEnforcement } from './enforce.ts';
import { createLaneGate, type Positions } from './lane-gate.ts';
import { toLivekitRecord } from './livekit-record.ts';
import { lookAtPositions, startPositionWatch, startsOf } from './position-watch.ts';
import { startPositions } from './start-positions.ts';
import { startWorker } from './worker.ts';

describeWith(['postgres', 'livekit'], 'the worker, with a real LiveKit', () => {
  let real: RealWorker;
  let clients: Client[] = [];
  let rooms = 0;

  beforeAll(async () => {
    real = await startRealWorker({ hasWebhooks: true, env: { CLOSING_NOTICE_SECONDS: '2' } });
  });
  afterEach(async () => {
    await Promise.all(clients.map(({ leave }) => leave()));
    clients = [];
  });
  afterAll(() => real.stop());

  /** A room of its own for each test, with these members. */
  const openRoom = async (...members: readonly string[]): Promise<string> => {
    rooms += 1;
    const room = `room-${rooms}`;
    await real.publish(['room.created', room, { members: members.map((userId) => ({ userId, role: 'speaker' })) }]);
    await real.createRoom(room);
    return room;
  };
  const enter = async (room: string, userId: string, token?: string): Promise<Client> => {
    const client = await connect(real.livekit.url, { room, userId }, token);
    clients.push(client);
    await until(
      'presence knows',
      async () =>
        (await real.pool.query('select from sessions where participant_sid = $1', [client.sid])).rowCount === 1,
    );
    return client;
  };
  const idle = () =>
    until('every question is answered', async () => {
      const { rows } = await real.pool.query(
        'select (select count(*) from marks)::int + (select count(*) from edges)::int as n',
      );
      return rows[0].n === 0;
    });
  const listed = async (room: string): Promise<string[]> =>
    (await real.rooms.listParticipants(room)).map(({ identity }) => identity).sort();

  test('who is removed is out, and told apart from who left', async () => {
    const room = await openRoom('ann', 'bob');
    const ann = await enter(room, 'ann');
    const bob = await enter(room, 'bob');
    await real.publish(['member.removed', room, { userId: 'ann' }]);
    expect(await ann.out).toBe(DisconnectReason.PARTICIPANT_REMOVED);
    await bob.leave();
    const told = await until('both ends are published', async () => {
      const { rows } = await real.pool.query(
        `select convert_from(decode(headers->>'ce_type', 'base64'), 'utf8') as type, convert_from(value, 'utf8')::json as data
        from log_records where topic = 'realtime.presence.v1' and convert_from(key, 'utf8') = $1 order by "offset"`,
        [room],
      );
      const ends = rows.filter(({ type }) => type === 'participant.removed' || type === 'participant.left');
      return ends.length === 2 && ends;
    });
    expect(told).toMatchObject([
      { type: 'participant.removed', data: { userId: 'ann', reason: 'PARTICIPANT_REMOVED' } },
      { type: 'participant.left', data: { userId: 'bob' } },
    ]);
  });

  test('who comes back with the token of before is out again', async () => {
    const room = await openRoom('ann');
    const token = await tokenFor({ room, userId: 'ann' });
    const ann = await enter(room, 'ann', token);
    await real.publish(['member.removed', room, { userId: 'ann' }]);
    await ann.out;
    const again = await connect(real.livekit.url, { room, userId: 'ann' }, token);
    clients.push(again);
    expect(await again.out).toBe(DisconnectReason.PARTICIPANT_REMOVED);
  });

  describe('rights', () => {
    const sets: readonly (readonly [string, Permissions])[] = [
      ...(Object.keys(roles) as (keyof typeof roles)[]).map((role) => [role, permissionsOf(role, null, [])] as const),
      ['a speaker without a camera', permissionsOf('speaker', { publishSources: ['microphone'] }, [])],
      ['a speaker who may not speak', permissionsOf('speaker', null, ['publish_audio'])],
    ];

    test.each(sets)('of %s: what a token grants is what is wanted, and so is what was set', async (_, permissions) => {
      // Unknown to the domain, so that only the test has a say in it.
      rooms += 1;
      const room = `rights-${rooms}`;
      await real.createRoom(room);
      const wanted = toParticipantPermission(permissions);
      const client = await connect(real.livekit.url, { room, userId: 'ann', permissions });
      clients.push(client);
      const byToken = await real.rooms.getParticipant(room, 'ann');
      expect(byToken?.permission).toSatisfy((actual) => isSamePermission(wanted, actual));
      await real.rooms.setPermission(
        room,
        'ann',
        toParticipantPermission(permissionsOf('host', { hidden: permissions.hidden }, [])),
      );
      await real.rooms.setPermission(room, 'ann', wanted);
      const bySetting = await real.rooms.getParticipant(room, 'ann');
      expect(bySetting?.permission).toSatisfy((actual) => isSamePermission(wanted, actual));
    });

    /** Looks at somebody's rights in LiveKit again and again; each change that was seen, in order. */
    const watch = (room: string, identity: string) => {
      const seen: ParticipantPermission[] = [];
      let isStopped = false;
      const look = async (): Promise<void> => {
        while (!isStopped) {
          const { permission } = (await real.rooms.getParticipant(room, identity)) ?? {};
          const last = seen.at(-1);
          if (permission !== undefined && (last === undefined || !isSamePermission(permission, last)))
            seen.push(permission as ParticipantPermission);
        }
      };
      const looking = look();
      return {
        seen,
        stop: async () => {
          isStopped = true;
          await looking;
        },
      };
    };
    const inOrder = (permission: ParticipantPermission): ParticipantPermission => ({
      ...permission,
      canPublishSources: permission.canPublishSources.toSorted(),
    });
    /** These rights were seen one after the other, each whole, and nothing between. */
    const expectSteps = (seen: readonly ParticipantPermission[], steps: readonly Permissions[]): void =>
      expect(seen.map(inOrder)).toEqual(steps.map(toParticipantPermission).map(inOrder));

    const bans: readonly (readonly Privilege[])[] = [
      ['publish_audio'],
      ['publish_video'],
      ['screen_share'],
      ['data'],
      ['publish_audio', 'publish_video'],
    ];
    test.each(bans.map((banned) => ({ banned })))(
      'a ban of $banned takes just that, and its end gives it back without anybody asking',
      async ({ banned }) => {
        const room = await openRoom('ann', 'bob');
        await enter(room, 'ann');
        await enter(room, 'bob');
        await idle();
        const [ann, bob] = [watch(room, 'ann'), watch(room, 'bob')];
        await until('the first rights are seen', () => ann.seen.length === 1 && bob.seen.length === 1);
        // In one transaction, so that two bans are one step.
        const ban = (more: object = {}) =>
          real.publish(
            ...banned.map((privilege) => ['member.banned', room, { userId: 'ann', privilege, ...more }] as const),
          );
        await ban();
        await until('the right is gone', () => ann.seen.length === 2);
        const endsAt = new Date(Date.now() + 1_500).toISOString();
        await ban({ until: endsAt });
        await until('the right is back', () => ann.seen.length === 3);
        expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(endsAt));
        await idle();
        await Promise.all([ann.stop(), bob.stop()]);
        const speaker = permissionsOf('speaker', null, []);
        expectSteps(ann.seen, [speaker, permissionsOf('speaker', null, banned), speaker]);
        expectSteps(bob.seen, [speaker]);
      },
    );

    test('of roles, overrides and bans that come and go are those compiled, step by step', async () => {
      const room = await openRoom('ann');
      await enter(room, 'ann');
      await idle();
      const { seen, stop } = watch(room, 'ann');
      const told = (data: object) => real.publish(['member.updated', room, { userId: 'ann', ...data }]);
      const ban = (privilege: string, more: object = {}) =>
        real.publish(['member.banned', room, { userId: 'ann', privilege, ...more }]);
      const unban = (privilege: string) => real.publish(['member.unbanned', room, { userId: 'ann', privilege }]);
      const only = { publishSources: ['microphone' as const] };
      const steps: readonly (readonly [() => Promise<void>, Permissions])[] = [
        [() => told({ role: 'listener' }), permissionsOf('listener', null, [])],
        [() => told({ role: 'moderator' }), permissionsOf('moderator', null, [])],
        [() => ban('data'), permissionsOf('moderator', null, ['data'])],
        [() => ban('publish_video'), permissionsOf('moderator', null, ['data', 'publish_video'])],
        [() => unban('data'), permissionsOf('moderator', null, ['publish_video'])],
        [() => told({ permissions: only }), permissionsOf('moderator', only, ['publish_video'])],
        // Nothing is left to publish: an empty list would mean everything.
        [() => ban('publish_audio'), permissionsOf('moderator', only, ['publish_video', 'publish_audio'])],
        [() => unban('publish_audio'), permissionsOf('moderator', only, ['publish_video'])],
        [() => told({ permissions: null }), permissionsOf('moderator', null, ['publish_video'])],
        [() => unban('publish_video'), permissionsOf('moderator', null, [])],
      ];
      await until('the first rights are seen', () => seen.length === 1);
      for (const [at, [step]] of steps.entries()) {
        await step();
        await until(`step ${at} is seen`, () => seen.length === at + 2);
      }
      await idle();
      await stop();
      expectSteps(seen, [permissionsOf('speaker', null, []), ...steps.map(([, permissions]) => permissions)]);
    });

    test('a demotion takes effect inside, and a promotion too', async () => {
      const room = await openRoom('ann');
      await enter(room, 'ann');
      const canPublish = async () => (await real.rooms.getParticipant(room, 'ann'))?.permission.canPublish;
      await real.publish(['member.updated', room, { userId: 'ann', role: 'listener' }]);
      await until('ann listens', async () => (await canPublish()) === false);
      await real.publish(['member.updated', room, { userId: 'ann', role: 'speaker' }]);
      await until('ann speaks', async () => (await canPublish()) === true);
    });
  });

  test('a closed room ends for everybody, who is told why, as a rule', async () => {
    const told: unknown[] = [];
    for (let round = 0; round < 4; round += 1) {
      const room = await openRoom('ann', 'bob');
      const both = [await enter(room, 'ann'), await enter(room, 'bob')];
      await real.publish(['room.closed', room, { reason: 'moved' }]);
      expect(await Promise.all(both.map(({ out }) => out))).toEqual(Array(2).fill(DisconnectReason.ROOM_DELETED));
      // LiveKit tells its clients before it forgets the room.
      await until('LiveKit has no such room', async () => (await real.rooms.listRooms([room])).length === 0);
      told.push(...both.flatMap(({ notices }) => notices));
    }
    // Not assured: the message races the end of its connection.
    expect(told.length).toBeGreaterThanOrEqual(4);
    expect(told).toEqual(told.map(() => ({ type: 'removed', code: 'room_closed', reason: 'moved' })));
  });

  test('a room with a schedule tells people of its end, and ends on time', async () => {
    const room = await openRoom('ann', 'bob');
    const both = [await enter(room, 'ann'), await enter(room, 'bob')];
    const closesAt = new Date(Date.now() + 3_000).toISOString();
    await real.publish(['room.updated', room, { closesAt }]);
    await until('both are told', () => both.every(({ notices }) => notices.length === 1));
    expect(both.map(({ notices }) => notices)).toEqual(Array(2).fill([{ type: 'closing', closesAt }]));
    expect(await Promise.all(both.map(({ out }) => out))).toEqual(Array(2).fill(DisconnectReason.ROOM_DELETED));
    const lateMs = Date.now() - Date.parse(closesAt);
    expect(lateMs).toBeGreaterThanOrEqual(0);
    expect(lateMs).toBeLessThan(1_500);
  });

  describe('orders', () => {
    test('whoever is kicked or banned is told why, as a rule; the others see it by presence', async () => {
      const people = Array.from({ length: 8 }, (_, at) => `p-${at}`);
      const room = await openRoom('bob', ...people);
      const bob = await enter(room, 'bob');
      const told: Client[] = [];
      for (const each of people) told.push(await enter(room, each));
      await idle();
      for (const [at, { sid }] of told.entries()) {
        const who = `p-${at}`;
        const order = { participantSid: sid, identity: who, by: 'bob', reason: 'off topic' };
        if (at % 2 === 0) await real.publish(['participant.kick_requested', room, order]);
        else await real.publish(['member.banned', room, { userId: who, privilege: 'join', reason: 'spam' }]);
      }
      await Promise.all(told.map(({ out }) => out));
      const notices = told.map((client) => client.notices);
      for (const [at, [notice]] of notices.entries())
        if (notice !== undefined)
          expect(notice).toEqual(
            at % 2 === 0
              ? { type: 'removed', code: 'kicked', reason: 'off topic' }
              : { type: 'removed', code: 'banned', reason: 'spam' },
          );
      // Not assured: the message races the end of its connection.
      expect(notices.flat().length).toBeGreaterThanOrEqual(people.length / 2);
      expect(bob.notices).toEqual([]);
      const removals = await until('all ends are published', async () => {
        const { rows } = await real.pool.query(
          `select convert_from(value, 'utf8')::json->>'userId' as who from log_records
            where topic = 'realtime.presence.v1' and convert_from(key, 'utf8') = $1
              and convert_from(decode(headers->>'ce_type', 'base64'), 'utf8') = 'participant.removed'`,
          [room],
        );
        return rows.length === people.length && rows;
      });
      expect(removals.map(({ who }) => who).sort()).toEqual(people);
    });

    const kick = (room: string, participantSid: string) =>
      real.publish(['participant.kick_requested', room, { participantSid, identity: 'ann', by: 'bob' }]);

    test('a kick ends that session; the same person may come again, and the old order does not follow', async () => {
      const room = await openRoom('ann');
      const ann = await enter(room, 'ann');
      await kick(room, ann.sid);
      expect(await ann.out).toBe(DisconnectReason.PARTICIPANT_REMOVED);
      const again = await enter(room, 'ann');
      await kick(room, ann.sid);
      await real.publish(['member.updated', room, { userId: 'ann', role: 'listener' }]);
      await until(
        'what came after the order took effect',
        async () => (await real.rooms.getParticipant(room, 'ann'))?.permission.canPublish === false,
      );
      await idle();
      expect(await listed(room)).toEqual(['ann']);
      expect(again.isOut()).toBe(false);
    });

    test('a mute silences the track', async () => {
      const room = await openRoom('ann');
      const ann = await enter(room, 'ann');
      const trackSid = await ann.publishVideo();
      const sdk = new RoomServiceClient(real.livekit.apiUrl, livekitKey.apiKey, livekitKey.secret);
      const isMuted = async () =>
        (await sdk.getParticipant(room, 'ann')).tracks.find(({ sid }) => sid === trackSid)?.muted;
      await until('it is published', async () => (await isMuted()) === false);
      await real.publish([
        'track.mute_requested',
        room,
        { participantSid: ann.sid, identity: 'ann', trackSid, by: 'bob' },
      ]);
      await until('it is muted', isMuted);
    });
  });

  describe('a room that the domain does not know', () => {
    const enterUnknown = async (room: string): Promise<Client> => {
      await real.createRoom(room);
      return enter(room, 'ann');
    };

    test('is left alone by default', async () => {
      const client = await enterUnknown('unknown-1');
      await idle();
      expect(client.isOut()).toBe(false);
      expect(await listed('unknown-1')).toEqual(['ann']);
    });

    test('is closed where the policy says so', async () => {
      await real.restart({ UNKNOWN_ROOMS: 'close' });
      await real.createRoom('unknown-2');
      await until(
        'the room is gone',
        async () => !(await real.rooms.listRooms()).some(({ name }) => name === 'unknown-2'),
      );
    });
  });
});

/** What LiveKit's webhook tells of somebody who has come. */
const joined = (roomName: string, participant: FakeParticipant): NewRecord =>
  toLivekitRecord(
    {
      id: participant.sid,
      source: 'livekit',
      type: 'livekit.participant_joined',
      roomName,
      timeMs: undefined,
      traceparent: undefined,
    },
    {
      event: 'participant_joined',
      room: { sid: `RM_${roomName}`, name: roomName },
      participant: { ...participant, joinedAtMs: '1001' },
    },
  );

describeWith(['postgres'], 'a database that is restored under running workers, or was away', () => {
  const room = 'room-42';
  const restored = ['log_positions', 'applied_facts', 'members'];
  const speaker = toParticipantPermission(permissionsOf('speaker', null, []));
  let parts: TestProjection;
  let livekit: FakeLivekit;
  let stops: (() => Promise<void>)[] = [];

  beforeEach(async () => {
    parts = await startProjection();
    livekit = await startFakeLivekit(2_000);
  });
  afterEach(async () => {
    await Promise.all(stops.map((stop) => stop()));
    stops = [];
    await livekit.stop();
    await parts.stop();
  });

  const askAboutAnn = () =>
    parts.store.markIdentities(room, ['ann'], { cause: 'participant_joined', causedAtMs: Date.now() });
  const answered = () =>
    until('ann was asked about', async () => (await parts.pool.query('select from marks')).rowCount === 0);
  const isLet = (): boolean =>
    livekit.rooms.get(room)?.has('ann') === true && livekit.callsOf('RemoveParticipant').length === 0;

  /** Ann is inside and was asked about. After that she was removed and, since the backup, added again. */
  const addAgainSinceBackup = async (): Promise<void> => {
    livekit.put(room, { sid: 'PA_ann', identity: 'ann', attributes: { 'rt.user': 'ann' }, permission: speaker });
    await parts.tell(roomRecord(['room.created', room, { members: [{ userId: 'ann', role: 'speaker' }] }]));
    await askAboutAnn();
    await answered();
    await parts.tell(roomRecord(['member.removed', room, { userId: 'ann' }]));
    for (const table of restored) await parts.pool.query(`create table backup_of_${table} as table ${table}`);
    await parts.tell(roomRecord(['member.added', room, { userId: 'ann', role: 'speaker' }]));
  };
  const restore = () =>
    parts.pool.query(
      restored.map((table) => `delete from ${table}; insert into ${table} table backup_of_${table};`).join(''),
    );

  const startAt = async (url: string): Promise<void> => {
    const settings = WorkerSettings.parse({
      DATABASE_URL: url,
      LIVEKIT_URL: livekit.url,
      LIVEKIT_KEYS: `${livekitKey.apiKey}: ${livekitKey.secret}`,
      WORKER_PORT: '0',
      WORKER_OPS_PORT: '0',
      SWEEP_INTERVAL_SECONDS: '3600',
    });
    const worker = await startWorker(settings, parts.logger, new AbortController().signal);
    stops.push(worker.stop);
  };

  test('a worker that has applied what is lost throws nobody out', async () => {
    await startAt(parts.url);
    await addAgainSinceBackup();
    await restore();
    await askAboutAnn();
    await answered();
    expect(isLet()).toBe(true);
  });

  test('nor does one that was away from the database: of the removals told meanwhile it carries out those that hold', async () => {
    const proxy = await startFaultProxy(realParts(['postgres']).postgres.port);
    stops.push(proxy.stop);
    await startAt(Object.assign(new URL(parts.url), { port: String(proxy.port) }).href);
    const people = ['ann', 'bob'];
    const members = people.map((userId) => ({ userId, role: 'speaker' }));
    await parts.tell(roomRecord(['room.created', room, { members }]));
    for (const identity of people) {
      const participant = { sid: `PA_${identity}`, identity, attributes: { 'rt.user': identity }, permission: speaker };
      livekit.put(room, participant);
      await parts.tell(joined(room, participant));
    }
    await answered();
    await proxy.cut();
    const cutAtMs = performance.now();
    await parts.publish(...people.map((userId): RoomFact => ['member.removed', room, { userId }]));
    const others = Array.from({ length: 500 }, (_, at): RoomFact => ['member.added', room, { userId: `u-${at}` }]);
    for (let times = 0; times < 20; times += 1) await parts.publish(...others);
    await parts.publish(['member.added', room, { userId: 'ann', role: 'speaker' }]);
    await until('it was away for some seconds', () => performance.now() - cutAtMs > 6_000);
    await proxy.heal();
    await parts.caughtUp();
    await until('bob is out', () => livekit.rooms.get(room)?.has('bob') === false);
    await answered();
    expect(livekit.callsOf('RemoveParticipant').map(({ body }) => body.identity)).toEqual(['bob']);
  }, 40_000);

  test('nor does one that takes partitions over: what waits in them comes first', async () => {
    const { store, pool, log } = parts;
    const gate = createLaneGate(store, log);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    await parts.publish(['room.created', room]);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    await startsOf({ pool, seen: new Map(), gate }, []);
    expect(await gate.hasReachedKnown([room])).toBe(false);
  });

  test('one that takes partitions over begins at the last record that was applied of each, and knows where all stand', async () => {
    const { pool } = parts;
    parts.consume();
    await parts.tell(roomRecord(['room.created', 'room-1']), roomRecord(['room.created', room]));
    const applied = (await readPositions(pool, activeProjection)).filter(({ nextOffset }) => nextOffset > 0n);
    expect(applied).toHaveLength(2);
    const seen: Positions = new Map();
    const starts = await startsOf({ pool, seen, gate: { beginAnew: () => {} } }, applied.slice(1));
    expect(starts).toEqual(
      applied.slice(1).map(({ topic, partition }) => ({ topic, partition, offset: 1n, lastRead: 0n })),
    );
    expect(seen).toEqual(new Map(applied.map((each) => [partitionName(each), 1n])));
  });

  test('is noticed while the log does not answer and the backlog cannot be read; no old number is shown then', async () => {
    const { store, pool, log, metrics, logger } = parts;
    const consumer = log.consume({ group: 'other', topics: consumedTopics, onBatch: parts.project });
    const seen: Positions = new Map();
    let repositioned = 0;
    const watch = startPositionWatch({
      pool,
      log: { ...log, bounds: () => Promise.withResolvers<never>().promise },
      consumer: {
        ...consumer,
        reposition: () => {
          repositioned += 1;
        },
      },
      consumergroup: 'other',
      partitionCounts: new Map(consumedTopics.map((topic) => [topic, partitionCount])),
      seen,
      gate: createLaneGate(store, log),
      metrics,
      logger,
    });
    stops.push(
      async () => watch.stop(),
      () => consumer.stop(5_000),
    );
    const shown = async () => (await metrics.deadLettersOpen.get()).values;
    await parts.tell(roomRecord(['room.created', room, {}]));
    await until('the room is known to be applied', () => [...seen.values()].some((offset) => offset > 0n));
    await until('the backlog is told', async () => (await shown()).length === 1);
    await pool.query('alter table dead_letters rename to letters');
    await until('it is not shown any more', async () => (await shown()).length === 0);
    await pool.query('update log_positions set next_offset = 0');
    await until('the restore is noticed', () => repositioned > 0);
  });

  test('nor does one that had no questions since, while another one applied it', async () => {
    const { store, pool, log, metrics, logger } = parts;
    const startAt = async () => startPositions(await readPositions(pool, activeProjection));
    const consumer = log.consume({ group: 'other', topics: consumedTopics, onBatch: parts.project, startAt });
    const gate = createLaneGate(store, log);
    const seen: Positions = new Map();
    const partitionCounts = new Map(consumedTopics.map((topic) => [topic, partitionCount]));
    const look = () =>
      lookAtPositions({ pool, log, consumer, consumergroup: 'idle', partitionCounts, seen, gate, metrics, logger });
    const enforcement = startEnforcement({
      store,
      livekit: livekit.service,
      gate,
      unknownRooms: 'observe',
      closingNoticeMs: 0,
      clock: systemClock,
      metrics,
      logger,
    });
    stops.push(enforcement.stop, () => consumer.stop(5_000));
    await addAgainSinceBackup();
    await look();
    await restore();
    await askAboutAnn();
    await until('the question was answered, or put off', async () => {
      const { rows } = await pool.query('select due_at > clock_timestamp() as is_put_off from marks');
      return rows.length === 0 || rows[0].is_put_off;
    });
    expect(isLet()).toBe(true);
    await look();
    await answered();
    expect(isLet()).toBe(true);
  });
});

describeWith(['postgres'], 'the worker, with as few database connections as can be set', () => {
  test('relays by the embedded log, which needs some of them itself', async () => {
    const parts = await startProjection();
    const livekit = await startFakeLivekit(2_000);
    const settings = WorkerSettings.parse({
      DATABASE_URL: parts.url,
      DATABASE_MAX_CONNECTIONS: '2',
      LIVEKIT_URL: livekit.url,
      LIVEKIT_KEYS: `${livekitKey.apiKey}: ${livekitKey.secret}`,
      WORKER_PORT: '0',
      WORKER_OPS_PORT: '0',
    });
    const worker = await startWorker(settings, parts.logger, new AbortController().signal);
    try {
      await until('it reads the log', async () => (await fetch(`${worker.opsUrl}/readyz`)).ok);
      await parts.pool.query(
        `insert into outbox (room_id, event_id, type, occurred_at, data) values ('room', 'e', 'participant.joined', now(), '{}')`,
      );
      await until('it is published', async () => (await parts.pool.query('select from outbox')).rowCount === 0);
    } finally {
      await worker.stop();
      await livekit.stop();
      await parts.stop();
    }
  });
});
