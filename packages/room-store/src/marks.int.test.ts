import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { chunkOf, countingPages, fill, isLockAwaited, joined, livekitRecord, startDatabase } from '../test/given.ts';
import {
  type Announcement,
  applyChunk,
  claimMarks,
  createPostgresStore,
  type Mark,
  markIdentities,
  type Pool,
  postponeMark,
  readMarkBacklog,
  settleMark,
} from './index.ts';
import { type ClaimedEdge, claimEdges, postponeEdge, settleEdge } from './marks.ts';

describeWith(['postgres'], 'marks', () => {
  let pool: Pool;
  const soonMs = Date.now() + 60_000;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());
  beforeEach(() => pool.query('truncate marks'));

  const raise = (identity = 'ann', causedAtMs = 1_000) =>
    markIdentities(pool, 'r', [identity], { cause: 'test', causedAtMs });
  const claimOne = async (seconds = 60): Promise<Mark> => {
    const [mark] = await claimMarks(pool, 1, seconds, 'oldest');
    if (mark === undefined) throw new Error('there was none to claim');
    return mark;
  };
  test.each([
    ['answered', (mark: Mark) => settleMark(pool, mark, null)],
    ['answered until later', (mark: Mark) => settleMark(pool, mark, soonMs)],
    ['put back', (mark: Mark) => postponeMark(pool, mark, 60_000)],
  ])('one that is raised in the moment in which it is %s is due at once', async (_, settle) => {
    await raise();
    const mark = await claimOne();
    const raising = await pool.connect();
    await raising.query('begin');
    await raising.query('update marks set generation = generation + 1, due_at = clock_timestamp(), attempts = 0');
    const settling = settle(mark);
    await until('the answer waits for whoever raises it', () => isLockAwaited(pool));
    await raising.query('commit');
    raising.release();
    await settling;
    expect(await claimOne()).toMatchObject({ identity: 'ann', generation: mark.generation + 1n, causedAtMs: 1_000 });
  });

  test('one that is kept for later waits since it was raised again', async () => {
    await raise();
    await settleMark(pool, await claimOne(), soonMs);
    await raise('ann', 2_000);
    expect(await claimOne()).toMatchObject({ causedAtMs: 2_000 });
  });

  test('its own trace is not that of somebody who raised it meanwhile', async () => {
    await raise();
    await pool.query(`update marks set trace = 'its own'`);
    expect(await settleMark(pool, await claimOne(), soonMs)).toBeNull();
  });

  test('one that was claimed before the clock was set back by an hour is answered when it is raised again', async () => {
    await raise();
    await claimOne();
    await pool.query(`update marks set locked_until = locked_until + interval '1 hour'`);
    await raise();
    expect(await claimOne()).toMatchObject({ identity: 'ann', generation: 2n });
    expect(await claimMarks(pool, 1, 60, 'oldest')).toEqual([]);
  });

  test('rights are not announced while it is being told that the session has ended, nor after that', async () => {
    const store = createPostgresStore(pool);
    const entry = joined('r', 'ann');
    await applyChunk(store, chunkOf([livekitRecord(0, entry)]));
    await pool.query('truncate marks, outbox');
    await raise();
    const mark = await claimOne();
    const permissions = { publishSources: [], subscribe: true, publishData: false, hidden: false, moderate: false };
    const data: Announcement['data'] = { participantSid: 'PA_ann', identity: 'ann', permissions };
    const announce = () => settleMark(pool, mark, null, { eventId: 'rights-1', data });
    await store.transaction(async (transaction) => {
      const telling = {
        ...store,
        transaction: <T>(work: (given: typeof transaction) => Promise<T>) => work(transaction),
      };
      await applyChunk(telling, chunkOf([livekitRecord(1, { ...entry, type: 'participant_left' })]));
      const startedAtMs = performance.now();
      await expect(announce()).rejects.toThrow('lock timeout');
      // Sooner than any other statement: a rebuild's swap goes first.
      expect(performance.now() - startedAtMs).toBeLessThan(2_000);
    });
    await announce();
    expect((await pool.query('select type from outbox')).rows).toEqual([{ type: 'participant.left' }]);
  });

  test('rights are not announced by whoever comes while another claims the question', async () => {
    await applyChunk(
      createPostgresStore(pool),
      chunkOf([livekitRecord(0, joined('claimed', 'ann'), { partition: 1 })]),
    );
    await pool.query('truncate marks, outbox');
    await markIdentities(pool, 'claimed', ['ann'], { cause: 'test', causedAtMs: 1_000 });
    const mark = await claimOne();
    const permissions = { publishSources: [], subscribe: true, publishData: false, hidden: false, moderate: false };
    const data: Announcement['data'] = { participantSid: 'PA_ann', identity: 'ann', permissions };
    const claiming = await pool.connect();
    await claiming.query(`begin; update marks set locked_until = locked_until + interval '1 minute'`);
    let isOver = false;
    // On a busy machine its wait may be over before it is seen, which announces nothing either.
    const settling = settleMark(pool, mark, null, { eventId: 'rights-2', data })
      .catch((error: Error) => expect(error.message).toContain('lock timeout'))
      .finally(() => {
        isOver = true;
      });
    await until('the announcement waits for the claim', () => isOver || isLockAwaited(pool));
    await claiming.query('commit');
    claiming.release();
    await settling;
    expect((await pool.query('select from outbox')).rowCount).toBe(0);
    expect(await pool.query('select from marks where locked_until is not null')).toMatchObject({ rowCount: 1 });
  });

  test('they are claimed from either end of those that are due', async () => {
    for (const identity of ['ann', 'bob', 'cleo']) await raise(identity);
    expect(await claimMarks(pool, 1, 60, 'newest')).toMatchObject([{ identity: 'cleo' }]);
    expect(await claimMarks(pool, 1, 60, 'oldest')).toMatchObject([{ identity: 'ann' }]);
    expect(await claimMarks(pool, 1, 60, 'newest')).toMatchObject([{ identity: 'bob' }]);
  });

  test('one that is being raised keeps no other waiting', async () => {
    for (const identity of ['ann', 'bob']) await raise(identity);
    const raising = await pool.connect();
    try {
      await raising.query(`begin; select from marks where identity = 'ann' for update`);
      expect(await claimMarks(pool, 2, 60, 'oldest')).toMatchObject([{ identity: 'bob' }]);
    } finally {
      await raising.query('rollback');
      raising.release();
    }
  });

  test('how long one has waited, the database says, whatever the clock here shows', async () => {
    expect(await readMarkBacklog(pool)).toEqual({ count: 0, ageSeconds: 0 });
    await raise();
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 3_600_000 });
    const { count, ageSeconds } = await readMarkBacklog(pool).finally(() => vi.useRealTimers());
    expect(count).toBe(1);
    expect(ageSeconds).toBeLessThan(60);
  });

  test('those that are kept for a later time are not read by whoever looks for due ones', async () => {
    await fill(
      pool,
      `insert into marks (room_id, identity, cause, caused_at, due_at)
        select 'r', n, 'kept', now(), now() + interval '10 minutes' + random() * interval '30 minutes'
          from generate_series(1, 20000) as n`,
    );
    await pool.query('vacuum analyze marks');
    await raise();
    const backlog = await countingPages(pool, (client) => readMarkBacklog(client));
    expect(backlog.result).toMatchObject({ count: 1 });
    expect(backlog.pages).toBeLessThan(60);
    const claim = await countingPages(pool, (client) => claimMarks(client, 64, 60, 'oldest'));
    expect(claim.pages).toBeLessThan(60);
  });
});

describeWith(['postgres'], 'an order', () => {
  let pool: Pool;
  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());
  beforeEach(() => pool.query('truncate edges'));

  /** As its id is given where a standby takes over that never got the order before it. */
  const give = (sid: string) =>
    pool.query(
      `insert into edges (edge_id, kind, room_id, identity, participant_sid, requested_by, expires_at)
        overriding system value values (33, 'kick', 'r', 'ann', $1, 'host', now() + interval '1 minute')`,
      [sid],
    );
  const claimOne = async (): Promise<ClaimedEdge> => {
    const [edge] = await claimEdges(pool, 1, 60);
    if (edge === undefined) throw new Error('there was none to claim');
    return edge;
  };

  test.each([
    ['carried out', (edge: ClaimedEdge) => settleEdge(pool, edge)],
    ['put back', (edge: ClaimedEdge) => postponeEdge(pool, edge, 60_000)],
  ])('one that was lost and is %s leaves another one that has its id now as it is', async (_, settle) => {
    await give('PA_lost');
    const lost = await claimOne();
    await pool.query('delete from edges');
    await give('PA_other');
    await settle(lost);
    expect(await claimOne()).toMatchObject({ participantSid: 'PA_other' });
  });
});
