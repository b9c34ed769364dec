import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createBatcher } from './batch.ts';

const deadlineMs = 1_000;

let sent: string[][];
/** Answers the batches in turn; those beyond hang. */
let answers: ((questions: readonly string[]) => Promise<(string | undefined)[]>)[];
let ask: (question: string) => Promise<string>;

beforeEach(() => {
  vi.useFakeTimers();
  sent = [];
  answers = [];
  ask = createBatcher<string, string>(
    (questions) => {
      sent.push([...questions]);
      return answers[sent.length - 1]?.(questions) ?? new Promise(() => {});
    },
    { deadlineMs },
  );
});
afterEach(() => {
  vi.useRealTimers();
});

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);
const hang = () => new Promise<string[]>(() => {});
const answerAfter = (ms: number) => async (questions: readonly string[]) => {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return questions.map((question) => question.toUpperCase());
};
const giveUp = (question: string) => expect(ask(question)).rejects.toThrow('did not answer within 1000 ms');

test('a batch waits for the one before it, and no longer than 200 ms', async () => {
  const hanging = giveUp('a');
  await pass(0);
  const others = [giveUp('b'), giveUp('c')];
  await pass(199);
  expect(sent).toEqual([['a']]);
  await pass(1);
  expect(sent).toEqual([['a'], ['b', 'c']]);
  await pass(deadlineMs);
  await Promise.all([hanging, ...others]);
});

test('one that hangs takes nothing from those behind it, who go one batch after the other', async () => {
  answers = [hang, ...Array.from({ length: 40 }, () => answerAfter(20))];
  const hanging = giveUp('first');
  const later: Promise<string>[] = [];
  for (let at = 0; at < 90; at += 1) {
    await pass(10);
    later.push(ask(`q${at}`));
  }
  await pass(deadlineMs);
  expect(await Promise.all(later)).toEqual(later.map((_, at) => `Q${at}`));
  await hanging;
  // Whoever came before 200 ms were over, then two at a time.
  expect(sent[1]).toHaveLength(19);
  expect(new Set(sent.slice(2, -1).map(({ length }) => length))).toEqual(new Set([2]));
});

test('at most three are under way, and where one ends the next goes', async () => {
  answers = [hang, answerAfter(500)];
  const first = giveUp('a');
  await pass(200);
  const second = ask('b');
  await pass(200);
  const others = [giveUp('c'), giveUp('d')];
  await pass(299);
  others.push(giveUp('e'));
  expect(sent).toEqual([['a'], ['b'], ['c', 'd']]);
  await pass(1);
  expect(await second).toBe('B');
  expect(sent.at(-1)).toEqual(['e']);
  await pass(deadlineMs);
  await Promise.all([first, ...others]);
});

test('each has the whole time, whatever the age of the batch', async () => {
  answers = [hang, hang, hang, answerAfter(700)];
  const hanging: Promise<void>[] = [];
  // Sent after 0, 200, 400 and, when the first has given up, 1000 ms.
  for (const question of ['a', 'b', 'c', 'd']) {
    hanging.push(giveUp(question));
    await pass(200);
  }
  const late = ask('late');
  await pass(200);
  expect(sent.at(-1)).toEqual(['d', 'late']);
  await pass(700);
  expect(await late).toBe('LATE');
  await Promise.all(hanging);
});

test('who has given up is not asked about', async () => {
  const hanging = Array.from({ length: 601 }, (_, at) => giveUp(`q${at}`));
  await pass(2 * deadlineMs);
  await Promise.all(hanging);
  expect(sent.map(({ length }) => length)).toEqual([200, 200, 200]);
});

test('who is left without an answer is asked again behind those who wait, until giving up', async () => {
  const answerFirst = async (questions: readonly string[]) =>
    (await answerAfter(100)(questions)).map((answer, at) => (at === 0 ? answer : undefined));
  const answerNobody = async (questions: readonly string[]) => (await answerAfter(100)(questions)).map(() => undefined);
  answers = [answerFirst, answerFirst, answerFirst, ...Array.from({ length: 40 }, () => answerNobody)];
  const given = [ask('a'), ask('b')];
  const unanswered = giveUp('c');
  await pass(50);
  given.push(ask('d'));
  await pass(2 * deadlineMs);
  expect(await Promise.all(given)).toEqual(['A', 'B', 'D']);
  await unanswered;
  expect(sent.slice(0, 4)).toEqual([['a', 'b', 'c'], ['d', 'b', 'c'], ['b', 'c'], ['c']]);
  expect(sent).toHaveLength(deadlineMs / 100);
});
