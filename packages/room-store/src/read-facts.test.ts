import { unknownRoom } from '@realtime-service/room-model';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createFactsReader, type FactsAnswer, type FactsQuery } from './read-facts.ts';

const deadlineMs = 1_000;

/** A query that was sent, to be answered by hand. */
interface Sent {
  readonly queries: readonly FactsQuery[];
  readonly resolve: (answers: readonly FactsAnswer[]) => void;
  readonly reject: (error: Error) => void;
}

let sent: Sent[];
let ask: (query: FactsQuery) => Promise<FactsAnswer>;

beforeEach(() => {
  vi.useFakeTimers();
  sent = [];
  const read = (queries: readonly FactsQuery[]) => {
    const { promise, resolve, reject } = Promise.withResolvers<readonly FactsAnswer[]>();
    sent.push({ queries: [...queries], resolve, reject });
    return promise;
  };
  ask = createFactsReader(read, { deadlineMs });
});
afterEach(() => {
  vi.useRealTimers();
});

const about = (userId: string): FactsQuery => ({ roomId: 'r', userId, loginId: null });

const answersTo = (queries: readonly FactsQuery[]): FactsAnswer[] =>
  queries.map(({ userId }) => ({
    facts: {
      room: { ...unknownRoom('r'), name: userId },
      member: null,
      bans: [],
      user: null,
      isLoginEnded: false,
      doubt: null,
      ownSessions: [],
      seats: null,
    },
    isRoomLive: false,
    nowMs: 0,
  }));

const nameOf = async (answer: Promise<FactsAnswer>) => (await answer).facts.room?.name;
const nextTurn = () => vi.advanceTimersByTimeAsync(0);
const answer = (at: number): void => sent[at]?.resolve(answersTo(sent[at].queries));
const usersOf = (at: number) => sent[at]?.queries.map(({ userId }) => userId);

test('questions of one turn share a query, and each gets its own answer', async () => {
  const names = ['ann', 'bob', 'cleo'].map((userId) => nameOf(ask(about(userId))));
  await nextTurn();
  answer(0);
  expect(await Promise.all(names)).toEqual(['ann', 'bob', 'cleo']);
  expect(sent).toHaveLength(1);
});

test('a question never joins a query that is under way', async () => {
  const first = nameOf(ask(about('ann')));
  await nextTurn();
  const second = nameOf(ask(about('bob')));
  await nextTurn();
  expect([usersOf(0), usersOf(1)]).toEqual([['ann'], undefined]);
  answer(0);
  await nextTurn();
  expect(usersOf(1)).toEqual(['bob']);
  answer(1);
  expect(await Promise.all([first, second])).toEqual(['ann', 'bob']);
});

test('who comes while a query is under way shares the next one', async () => {
  const names: Promise<unknown>[] = [];
  for (const userId of ['a', 'b', 'c']) {
    names.push(nameOf(ask(about(userId))));
    await nextTurn();
  }
  answer(0);
  await nextTurn();
  expect(usersOf(1)).toEqual(['b', 'c']);
  answer(1);
  expect(await Promise.all(names)).toEqual(['a', 'b', 'c']);
});

test('a query has at most 200 questions', async () => {
  const names = Array.from({ length: 201 }, (_, at) => nameOf(ask(about(`u-${at}`))));
  await nextTurn();
  answer(0);
  await nextTurn();
  answer(1);
  expect((await Promise.all(names)).at(-1)).toBe('u-200');
  expect(sent.map(({ queries }) => queries.length)).toEqual([200, 1]);
});

test('a query that fails, fails for those who share it, and for nobody else', async () => {
  const first = ask(about('ann'));
  await nextTurn();
  sent[0]?.reject(new Error('the database is away'));
  await expect(first).rejects.toThrow('the database is away');
  const second = nameOf(ask(about('bob')));
  await nextTurn();
  answer(1);
  expect(await second).toBe('bob');
});

test('queries that hang end at the deadline, and hold up nobody after it', async () => {
  const hanging = [];
  for (const userId of ['a', 'b', 'c']) {
    hanging.push(expect(ask(about(userId))).rejects.toThrow('did not answer within 1000 ms'));
    await nextTurn();
  }
  await vi.advanceTimersByTimeAsync(deadlineMs);
  await Promise.all(hanging);
  const later = nameOf(ask(about('cleo')));
  await nextTurn();
  answer(sent.length - 1);
  expect(await later).toBe('cleo');
});
