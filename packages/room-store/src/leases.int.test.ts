import { describeWith } from '@realtime-service/dev-stack/vitest';
import { authorise, identityOf } from '@realtime-service/room-model';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { countingPages, fill, startDatabase } from '../test/given.ts';
import type { FactsAnswer, Pool } from './index.ts';
import { createSeatTaker, readSeats } from './leases.ts';

describeWith(['postgres'], 'seats in a room with a long history', () => {
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
    // Many came and went, one of them without end, who has a token again; and two left a minute ago, one by own will.
    await fill(
      pool,
      `
      insert into sessions (room_id, room_sid, participant_sid, identity, user_id, kind, is_hidden, is_live, joined_at,
          version, end_reason, ended_at, last_fact_at)
        select 'r', 'RM_' || at % 3, 'PA_' || at, who, who, 'STANDARD', false, false, ended_at - interval '1 second',
            1, 'CONNECTION_ABORTED', ended_at, ended_at
          from generate_series(1, 50000) as at, lateral (
            select 'u-' || greatest(at - 25000, 0) as who, now() - interval '1 hour' - at * interval '1 second' as ended_at) as stay;
      insert into sessions (room_id, room_sid, participant_sid, identity, user_id, kind, is_hidden, is_live, joined_at,
          version, end_reason, ended_at, last_fact_at)
        select 'r', 'RM_0', 'PA_' || name, name, name, 'STANDARD', false, false, now() - interval '1 hour', 1, reason,
            now() - interval '1 minute', now()
          from (values ('ann', 'CONNECTION_ABORTED'), ('bob', 'CLIENT_INITIATED')) as who (name, reason);
      insert into seat_leases (room_id, identity, user_id, expires_at) values ('r', 'u-0', 'u-0', now() + interval '1 minute')`,
    );
  });
  afterAll(() => pool.end());

  test.each(['before', 'after'])('are counted without reading it, %s the table was analysed', async (when) => {
    if (when === 'after') await pool.query('vacuum analyze');
    const seeker = { roomId: 'r', userId: 'cleo', loginId: null, identity: 'cleo', deviceId: null };
    const { result, pages } = await countingPages(pool, (client) => readSeats(client, seeker));
    expect(result.takenByOthers).toBe(2);
    expect(pages).toBeLessThan(60);
  });
});

describeWith(['postgres'], 'many questions at once', () => {
  type Policy = Parameters<typeof identityOf>[0]['devicePolicy'];
  interface Wish {
    readonly userId: string;
    readonly deviceId: string | null;
    readonly takeOver: boolean;
  }
  let pool: Pool;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());

  const provenance = `'e', 'realtime.room-events.v1', 0, 0, now()`;
  const provenanceColumns = `event_id, topic, "partition", "offset", fact_at`;
  const decideEntry =
    (takeOver: boolean) =>
    ({ facts, nowMs }: FactsAnswer) =>
      authorise(facts, { purpose: 'enter', takeOver, loginEndsAtMs: null }, nowMs);
  let rooms = 0;
  /** A room for everybody, with a device of ann's inside; asked by one process. */
  const openRoom = async (maxParticipants: number | null, devicePolicy: Policy) => {
    rooms += 1;
    const roomId = `room-${rooms}`;
    await pool.query(
      `insert into rooms (room_id, state, access, default_role, max_participants, device_policy, ${provenanceColumns})
        values ($1, 'open', 'authenticated', 'speaker', $2, $3, ${provenance})`,
      [roomId, maxParticipants, devicePolicy],
    );
    await pool.query(
      `insert into sessions (room_id, room_sid, participant_sid, identity, user_id, device_id, kind, is_hidden, is_live,
          joined_at, version, last_fact_at)
        values ($1, 'RM', $2, $3, 'ann', 'tab', 'STANDARD', false, true, now() - interval '1 minute', 0, now())`,
      [roomId, `PA_${rooms}`, identityOf({ devicePolicy }, 'ann', 'tab')],
    );
    const take = createSeatTaker(pool, { deadlineMs: 10_000, leaseSeconds: 140 });
    const ask = ({ userId, deviceId, takeOver }: Wish) => {
      const identity = identityOf({ devicePolicy }, userId, deviceId);
      return take({ roomId, userId, loginId: null, identity, deviceId }, decideEntry(takeOver));
    };
    const readLeases = async () =>
      (
        await pool.query(`select identity, user_id, device_id from seat_leases where room_id = $1 order by identity`, [
          roomId,
        ])
      ).rows;
    return { roomId, ask, readLeases };
  };
  const single: Policy = { mode: 'single_oldest' };
  const bob: Wish = { userId: 'bob', deviceId: null, takeOver: false };

  test("a person's own identity is told neither twice nor as another's, inside and with a token", async () => {
    const { roomId } = await openRoom(2, single);
    await pool.query(
      `insert into seat_leases (room_id, identity, user_id, device_id, expires_at)
        values ($1, 'ann', 'ann', 'tab', now() + interval '1 minute')`,
      [roomId],
    );
    const asking = { roomId, userId: 'ann', loginId: null, identity: 'ann', deviceId: 'tab' };
    const client = await pool.connect();
    const told = await readSeats(client, asking).finally(() => client.release());
    expect(told).toEqual({
      takenByOthers: 0,
      ownOtherDevices: 0,
      ownUnusedTokens: 0,
      isHeld: true,
      isReserved: true,
    });
  });

  test('whose seat cannot be written is let in by none', async () => {
    const { roomId } = await openRoom(2, single);
    const take = createSeatTaker(pool, { deadlineMs: 10_000, leaseSeconds: Number.NaN });
    const asking = { roomId, userId: 'bob', loginId: null, identity: 'bob', deviceId: null };
    await expect(take(asking, decideEntry(false))).rejects.toThrow('interval');
  });

  test('the same one is read twice at most, however often it was asked', async () => {
    const { ask, readLeases } = await openRoom(2, { mode: 'multi' });
    const answers = await Promise.all(Array.from({ length: 119 }, () => ask(bob)));
    expect(new Set(answers.map(({ verdict }) => verdict.kind))).toEqual(new Set(['allow']));
    expect(new Set(answers.map(({ answer }) => answer.nowMs)).size).toBe(2);
    expect(answers.map(({ answer }) => answer.facts.seats?.isHeld).indexOf(true)).toBe(1);
    expect(await readLeases()).toEqual([{ identity: 'bob', user_id: 'bob', device_id: null }]);
  });

  test('who invents devices that take over from each other holds up nobody else', async () => {
    const { ask, readLeases } = await openRoom(2, single);
    const answered: string[] = [];
    const note = async (wish: Wish) => {
      const { verdict } = await ask(wish);
      answered.push(`${wish.deviceId} ${verdict.kind}`);
    };
    const devices = Array.from({ length: 119 }, (_, at) => `device-${at}`);
    const anns = devices.map((deviceId) => note({ userId: 'ann', deviceId, takeOver: true }));
    await note(bob);
    expect(answered).toEqual([...devices.slice(0, 3).map((device) => `${device} allow`), 'null allow']);
    await Promise.all(anns);
    expect(answered).toHaveLength(120);
    expect(new Set(answered)).toEqual(new Set([...devices, null].map((device) => `${device} allow`)));
    expect(await readLeases()).toMatchObject([{ device_id: 'device-118' }, { user_id: 'bob' }]);
  });

  test('100 people who ask twice each get 10 seats, and the same answer twice', async () => {
    const { ask } = await openRoom(11, { mode: 'multi' });
    const people = Array.from({ length: 100 }, (_, at) => `p-${at}`);
    const askAll = () => Promise.all(people.map((userId) => ask({ ...bob, userId })));
    const [first, second] = await Promise.all([askAll(), askAll()]);
    const kinds = first.map(({ verdict }) => verdict.kind);
    expect(kinds.filter((kind) => kind === 'allow')).toHaveLength(10);
    expect(second.map(({ verdict }) => verdict.kind)).toEqual(kinds);
  });

  test('two hundred ask about a room of thousands in little more time than one', async () => {
    const { roomId, ask } = await openRoom(1, { mode: 'multi' });
    await fill(
      pool,
      `insert into sessions (room_id, room_sid, participant_sid, identity, user_id, kind, is_hidden, is_live, joined_at, version, last_fact_at)
        select $1, 'RM', 'PA_u-' || at, 'u-' || at, 'u-' || at, 'STANDARD', false, true, now(), 0, now() from generate_series(1, 20000) as at`,
      [roomId],
    );
    await pool.query('vacuum analyze sessions');
    const leastMs = async (count: number): Promise<number> => {
      const people = Array.from({ length: count }, (_, at) => ({ ...bob, userId: `p-${at}` }));
      const tookMs: number[] = [];
      for (let round = 0; round < 5; round += 1) {
        const askedAtMs = performance.now();
        const answers = await Promise.all(people.map(ask));
        tookMs.push(performance.now() - askedAtMs);
        expect(answers[0]?.answer.facts.seats?.takenByOthers).toBe(20_001);
      }
      return Math.min(...tookMs);
    };
    expect(await leastMs(200)).toBeLessThan(3 * (await leastMs(1)));
  });

  test('of one person about two rooms they are answered by who is in each', async () => {
    const [{ roomId: here }, { roomId: there }] = [await openRoom(null, single), await openRoom(null, single)];
    await pool.query('delete from sessions where room_id = $1', [there]);
    const take = createSeatTaker(pool, { deadlineMs: 10_000, leaseSeconds: 140 });
    const ask = (roomId: string) =>
      take({ roomId, userId: 'ann', loginId: null, identity: 'ann', deviceId: 'phone' }, decideEntry(false));
    // The first is asked alone, and those that come meanwhile together.
    const answers = await Promise.all([here, here, there].map(ask));
    expect(answers.map(({ verdict }) => verdict.kind)).toEqual(['deny', 'deny', 'allow']);
  });

  test('of one person they are answered as if each had come after the other', async () => {
    const policies: Policy[] = [single, { mode: 'multi' }, { mode: 'multi', max: 2 }];
    const wish = fc.record({
      userId: fc.constant('ann'),
      deviceId: fc.constantFrom(null, 'tab', 'phone', 'desk'),
      takeOver: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...policies),
        fc.constantFrom(null, 1, 2),
        fc.array(wish, { minLength: 2, maxLength: 12 }),
        async (policy, limit, wishes) => {
          const [atOnce, apart] = [await openRoom(limit, policy), await openRoom(limit, policy)];
          const answers = await Promise.all(wishes.map(atOnce.ask));
          for (const [at, each] of wishes.entries()) {
            const { verdict, answer } = await apart.ask(each);
            expect(answers[at]).toMatchObject({ verdict, answer: { facts: { seats: answer.facts.seats } } });
          }
          expect(await atOnce.readLeases()).toEqual(await apart.readLeases());
        },
      ),
      { numRuns: 40 },
    );
  });
});
