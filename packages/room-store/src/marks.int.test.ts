import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { startDatabase } from '../test/given.ts';
import {
  claimEdges,
  claimMarks,
  type Mark,
  markIdentities,
  type Pool,
  postponeEdge,
  postponeMark,
  settleEdge,
  settleMark,
} from './index.ts';

describeWith(['postgres'], 'marks', () => {
  let pool: Pool;
  const soonMs = Date.now() + 60_000;

  beforeAll(async () => {
    ({ pool } = await startDatabase());
  });
  afterAll(() => pool.end());
  beforeEach(() => pool.query('truncate marks, edges'));

  const raise = (identity = 'ann', causedAtMs = 1_000) =>
    markIdentities(pool, 'r', [identity], { cause: 'test', causedAtMs });
  const claimOne = async (seconds = 60): Promise<Mark> => {
    const [mark] = await claimMarks(pool, 1, seconds);
    if (mark === undefined) throw new Error('there was none to claim');
    return mark;
  };
  const left = async (): Promise<number> => (await pool.query('select from marks')).rowCount ?? 0;

  test('one is claimed once, until its claim expires', async () => {
    await raise();
    await claimOne(0);
    const again = await claimOne();
    expect(again.attempts).toBe(2);
    expect(await claimMarks(pool, 1, 60)).toEqual([]);
  });

  test('many who claim at once share them', async () => {
    const identities = Array.from({ length: 40 }, (_, at) => `u-${at}`);
    await markIdentities(pool, 'r', identities, { cause: 'test', causedAtMs: 1_000 });
    const claims = await Promise.all(Array.from({ length: 8 }, () => claimMarks(pool, 10, 60)));
    expect(
      claims
        .flat()
        .map(({ identity }) => identity)
        .sort(),
    ).toEqual(identities.sort());
  });

  test('an answered one is gone', async () => {
    await raise();
    await settleMark(pool, await claimOne(), null);
    expect(await left()).toBe(0);
  });

  test('one that was raised while being answered is due at once, with its oldest cause', async () => {
    await raise('ann', 1_000);
    const first = await claimOne();
    await raise('ann', 2_000);
    await settleMark(pool, first, null);
    expect(await claimOne()).toMatchObject({ identity: 'ann', causedAtMs: 1_000, attempts: 1 });
  });

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
    const isWaiting = async () =>
      (await pool.query(`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`))
        .rowCount === 1;
    while (!(await isWaiting()));
    await raising.query('commit');
    raising.release();
    await settling;
    expect(await claimOne()).toMatchObject({ identity: 'ann', generation: mark.generation + 1n });
  });

  test('one whose answer changes by itself is due then', async () => {
    await raise();
    await settleMark(pool, await claimOne(), Date.now() + 60_000);
    expect(await claimMarks(pool, 1, 60)).toEqual([]);
    await raise('bob');
    await settleMark(pool, await claimOne(), Date.now() - 1);
    expect(await claimOne()).toMatchObject({ identity: 'bob', attempts: 1 });
  });

  test('one that is put back is due after the delay, and counts its tries', async () => {
    await raise();
    await postponeMark(pool, await claimOne(), 60_000);
    expect(await claimMarks(pool, 1, 60)).toEqual([]);
    await raise('bob');
    await postponeMark(pool, await claimOne(), 0);
    expect(await claimOne()).toMatchObject({ identity: 'bob', attempts: 2 });
  });

  const order = async (expiresIn: string): Promise<void> => {
    await pool.query(
      `insert into edges (kind, room_id, identity, participant_sid, requested_by, expires_at) values ('kick', 'r', 'ann', 'PA_1', 'bob', now() + $1::interval)`,
      [expiresIn],
    );
  };

  test('an order is claimed once, put back, and gone when carried out', async () => {
    await order('60 s');
    const [edge] = await claimEdges(pool, 1, 60);
    if (edge === undefined) throw new Error('there was none to claim');
    expect(edge).toMatchObject({ kind: 'kick', participantSid: 'PA_1' });
    expect(await claimEdges(pool, 1, 60)).toEqual([]);
    await postponeEdge(pool, edge, 0);
    expect(await claimEdges(pool, 1, 60)).toHaveLength(1);
    await settleEdge(pool, edge);
    expect((await pool.query('select from edges')).rowCount).toBe(0);
  });

  test('an order that has expired is dropped', async () => {
    await order('-1 s');
    expect(await claimEdges(pool, 1, 60)).toEqual([]);
    expect((await pool.query('select from edges')).rowCount).toBe(0);
  });
});
