/** The same people ask for a token and are explained, on a real database with real facts. */
import {
  consumedTopics,
  Explanation,
  type LivekitFact,
  type RoomEvent,
  type RoomEventData,
  topics,
} from '@realtime-service/contracts';
import { createDatabase } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import {
  applyChunk,
  type ChunkRecord,
  createFactsReader,
  createPool,
  createPostgresStore,
  createSeatTaker,
  migrate,
  type Pool,
  preparePositions,
  readProvenance,
} from '@realtime-service/room-store';
import { createLogger } from '@realtime-service/telemetry';
import Fastify, { type FastifyInstance } from 'fastify';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  added,
  chunkOf,
  created,
  joined,
  livekitRecord,
  partitionCount,
  projection,
  removed,
  roomRecord,
} from '../../../../packages/room-store/test/records.ts';
import { startTestApi, type TestApi } from '../../test/test-api.ts';
import { registerExplain } from './explain-route.ts';

const hourMs = 3_600_000;
const [earlier, later] = [new Date(Date.now() - hourMs).toISOString(), new Date(Date.now() + hourMs).toISOString()];

type Entry = RoomEvent | LivekitFact | { readonly lost: RoomEvent };

interface Situation {
  readonly name: string;
  /** What is told, of room `r` and user `u` by these names. */
  readonly facts: (r: string, u: string) => readonly Entry[];
  readonly status: number;
  readonly reason?: string;
  /** Whether a session would be left inside; as with entering, where it is not said. */
  readonly stays?: boolean;
}

const header = (r: string, data: RoomEventData<'room.created'>): RoomEvent => ({
  type: 'room.created',
  subject: r,
  data,
});
const banned = (r: string, userId: string, more: Partial<RoomEventData<'member.banned'>> = {}): RoomEvent => ({
  type: 'member.banned',
  subject: r,
  data: { userId, privilege: 'join', until: undefined, by: undefined, reason: 'Shouting', ...more },
});
const locked = (r: string): RoomEvent => ({ type: 'room.locked', subject: r, data: undefined });
const inside = (r: string, u: string, device?: string): LivekitFact => {
  const { participant, ...fact } = joined(r, u, `PA_${u}_${device}`);
  const identity = device === undefined ? u : `${u}:${device}`;
  const attributes = { 'rt.user': u, ...(device !== undefined && { 'rt.device': device }) };
  return { ...fact, participant: { ...participant, identity, attributes } };
};
const lost = (r: string, userId: string): Entry => ({
  lost: { type: 'member.updated', subject: r, data: { userId, role: 'listener' } },
});

const situations: readonly Situation[] = [
  { name: 'a member', facts: (r, u) => [created(r), added(r, u)], status: 200 },
  { name: 'a host of a locked room', facts: (r, u) => [created(r), added(r, u, 'host'), locked(r)], status: 200 },
  { name: 'anybody, where all may enter', facts: (r) => [header(r, { access: 'authenticated' })], status: 200 },
  { name: 'a stranger', facts: (r) => [created(r)], status: 404, reason: 'not_a_member' },
  { name: 'nobody of nowhere', facts: () => [], status: 404, reason: 'unknown_room' },
  {
    name: 'somebody who was removed',
    facts: (r, u) => [created(r), added(r, u), removed(r, u)],
    status: 404,
    reason: 'member_removed',
  },
  {
    name: 'somebody who was removed and added again',
    facts: (r, u) => [created(r), added(r, u), removed(r, u), added(r, u)],
    status: 200,
  },
  {
    name: 'somebody who is banned for an hour',
    facts: (r, u) => [created(r), added(r, u), banned(r, u, { until: later })],
    status: 403,
    reason: 'banned',
  },
  {
    name: 'somebody who is banned for good',
    facts: (r, u) => [created(r), added(r, u), banned(r, u)],
    status: 403,
    reason: 'banned',
  },
  {
    name: 'somebody whose ban is over',
    facts: (r, u) => [created(r), added(r, u), banned(r, u, { until: earlier })],
    status: 200,
  },
  {
    name: 'somebody whose ban was lifted',
    facts: (r, u) => [
      created(r),
      added(r, u),
      banned(r, u),
      { type: 'member.unbanned', subject: r, data: { userId: u, privilege: 'join', by: undefined } },
    ],
    status: 200,
  },
  {
    name: 'somebody who is silenced',
    facts: (r, u) => [created(r), added(r, u), banned(r, u, { privilege: 'publish_audio', until: later })],
    status: 200,
  },
  {
    name: 'a member of a locked room',
    facts: (r, u) => [created(r), added(r, u), locked(r)],
    status: 423,
    reason: 'locked',
    stays: true,
  },
  {
    name: 'a member who is inside a locked room',
    facts: (r, u) => [created(r), added(r, u), locked(r), inside(r, u)],
    status: 200,
  },
  {
    name: 'a member of a room that opens later',
    facts: (r, u) => [header(r, { opensAt: later }), added(r, u)],
    status: 425,
    reason: 'not_open',
    stays: true,
  },
  {
    name: 'a member of a room whose time is over',
    facts: (r, u) => [header(r, { closesAt: earlier }), added(r, u)],
    status: 410,
    reason: 'schedule_over',
  },
  {
    name: 'a member of a closed room',
    facts: (r, u) => [created(r), added(r, u), { type: 'room.closed', subject: r, data: undefined }],
    status: 410,
    reason: 'room_closed',
  },
  {
    name: 'a member in doubt',
    facts: (r, u) => [created(r), added(r, u), lost(r, u)],
    status: 503,
    reason: 'suspect',
    stays: true,
  },
  {
    name: 'a member in doubt who is inside',
    facts: (r, u) => [created(r), added(r, u), lost(r, u), inside(r, u)],
    status: 200,
  },
  {
    name: 'a member whom another one’s doubt does not concern',
    facts: (r, u) => [created(r), added(r, u), lost(r, `not-${u}`)],
    status: 200,
  },
  {
    name: 'somebody who is disabled',
    facts: (r, u) => [created(r), added(r, u), { type: 'user.disabled', subject: u, data: { userId: u } }],
    status: 403,
    reason: 'user_disabled',
  },
  {
    name: 'somebody whose login is over',
    facts: (r, u) => [
      created(r),
      added(r, u),
      { type: 'login.ended', subject: u, data: { userId: u, sid: `login-of-${u}` } },
    ],
    status: 401,
    reason: 'login_ended',
  },
  {
    name: 'a member of a full room',
    facts: (r, u) => [header(r, { maxParticipants: 1 }), added(r, u), inside(r, `not-${u}`)],
    status: 409,
    reason: 'full',
    stays: true,
  },
  {
    name: 'a member of a full room with a seat',
    facts: (r, u) => [header(r, { maxParticipants: 1 }), added(r, u), inside(r, u)],
    status: 200,
  },
  {
    name: 'a member who is inside with the one device of this room',
    facts: (r, u) => [header(r, { devicePolicy: { mode: 'single_oldest' } }), added(r, u), inside(r, u, 'phone')],
    status: 409,
    reason: 'device_conflict',
    stays: true,
  },
];

describeWith(['postgres'], 'explanations', ({ postgres }) => {
  let pool: Pool;
  let api: TestApi;
  let ops: FastifyInstance;

  beforeAll(async () => {
    const url = await createDatabase(postgres.url);
    await migrate(url);
    pool = createPool({ url, maxConnections: 4, applicationName: 'test', onError: () => undefined });
    for (const topic of consumedTopics) await preparePositions(pool, projection, topic, partitionCount);
    const entries = situations.flatMap(({ facts }, at) => facts(`room-${at}`, `u-${at}`));
    await applyChunk(createPostgresStore(pool), chunkOf(roomRecordsOf(entries)));
    await applyChunk(createPostgresStore(pool), chunkOf(livekitRecordsOf(entries)));
    api = await startTestApi(
      { RATE_LIMIT_USER_PER_MINUTE: '100000' },
      {
        readFacts: createFactsReader(createPostgresStore(pool).readFacts, { deadlineMs: 2_500 }),
        takeSeat: createSeatTaker(pool, { deadlineMs: 2_500, leaseSeconds: 140 }),
      },
    );
    ops = Fastify();
    registerExplain(ops, {
      readProvenance: (query) => readProvenance(pool, query),
      freshness: {
        isCurrent: (_roomId, userId) => api.freshness.isCurrent && !api.freshness.outdatedPeople.includes(userId),
        isLogKnown: () => true,
        ofKey: () => ({ topic: topics.roomEvents, partition: 0, lag: 0n, ageMs: 0 }),
      },
      logger: createLogger({ service: 'api', destination: { write: () => undefined } }),
    });
  });
  afterAll(async () => {
    await ops.close();
    await api.close();
    await pool.end();
  });

  const explain = async (at: number): Promise<Explanation> => {
    const { json } = await ops.inject(`/explain?room=room-${at}&user=u-${at}&login=login-of-u-${at}`);
    return Explanation.parse(json());
  };

  const join = async (at: number) => {
    api.lines.length = 0;
    const token = await api.token({ sub: `u-${at}`, sid: `login-of-u-${at}` });
    const { statusCode, json } = await api.app.inject({
      method: 'POST',
      url: `/api/realtime/rooms/room-${at}/join`,
      headers: { authorization: `Bearer ${token}` },
    });
    const logged = api.lines.map((line) => JSON.parse(line)).find(({ operation }) => operation === 'join');
    const { code = null, role, permissions } = json();
    return { answer: { status: statusCode, code, reason: logged?.reason ?? null }, role, permissions };
  };

  test.each(situations.map((situation, at) => ({ ...situation, at })))(
    '$name: $status, as at the desk',
    async ({ at, status, reason = null, stays = status === 200 }) => {
      // The second time, too: asking takes no seat.
      await explain(at);
      const explanation = await explain(at);
      const desk = await join(at);
      expect(explanation.join).toEqual(desk.answer);
      expect(explanation.join).toMatchObject({ status, reason });
      expect(explanation.enter).toMatchObject(
        status === 200
          ? { isAllowed: true, role: desk.role, permissions: desk.permissions }
          : { isAllowed: false, reason, code: desk.answer.code },
      );
      expect(explanation.stay.isAllowed).toBe(stays);
    },
  );

  test('on old facts: 503, as at the desk, whatever they say', async () => {
    api.freshness.isCurrent = false;
    const [explanation, desk] = [await explain(0), await join(0)];
    api.freshness.isCurrent = true;
    expect(explanation.join).toEqual(desk.answer);
    expect(explanation).toMatchObject({ join: { status: 503 }, enter: { isAllowed: true } });
  });
});

/** Each where it would stand in a log of one partition. */
const roomRecordsOf = (entries: readonly Entry[]): ChunkRecord[] =>
  entries
    .filter((entry): entry is Exclude<Entry, LivekitFact> => 'lost' in entry || 'subject' in entry)
    .map((entry, offset) => {
      if (!('lost' in entry)) return roomRecord(offset, entry);
      const { subject, type, data } = entry.lost;
      const dead = { reason: 'invalid_data' as const, message: 'broken', key: null, value: null, headers: {} };
      return {
        ...roomRecord(offset, entry.lost),
        factKey: null,
        content: { kind: 'dead', dead, unreadable: { key: subject, type, data } },
      };
    });

const livekitRecordsOf = (entries: readonly Entry[]): ChunkRecord[] =>
  entries
    .filter((entry): entry is LivekitFact => !('lost' in entry) && !('subject' in entry))
    .map((fact, offset) => livekitRecord(offset, fact));
