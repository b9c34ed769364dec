import { expect, test, vi } from 'vitest';
import { createMirror } from './kafka-mirror.ts';

const at = (partition: number, offset: bigint) => ({ topic: 't', partition, offset });
const sent = (partition: number, offset: string) => ({ topic: 't', partition, offset });

/** A group that answers when it is told to. */
const given = () => {
  const answers: PromiseWithResolvers<void>[] = [];
  const commitOffsets = vi.fn(() => {
    const answer = Promise.withResolvers<void>();
    answers.push(answer);
    return answer.promise;
  });
  const writeLog = vi.fn();
  const mirror = createMirror({ commitOffsets }, writeLog);
  const nextTurn = () => new Promise((resolve) => setImmediate(resolve));
  return { answers, commitOffsets, writeLog, mirror, nextTurn };
};

test('while a commit is under way the newest offset of each partition waits, for one more', async () => {
  const { answers, commitOffsets, mirror, nextTurn } = given();
  mirror.show(at(0, 1n));
  mirror.show(at(0, 2n));
  mirror.show(at(1, 7n));
  mirror.show(at(0, 3n));
  answers[0]?.resolve();
  await nextTurn();
  expect(commitOffsets.mock.calls).toEqual([[[sent(0, '1')]], [[sent(0, '3'), sent(1, '7')]]]);
});

test('is settled when the last one was answered, and at once where there is none', async () => {
  const { answers, mirror, nextTurn } = given();
  await mirror.settled();
  mirror.show(at(0, 1n));
  mirror.show(at(0, 2n));
  let isSettled = false;
  const settled = mirror.settled().then(() => {
    isSettled = true;
  });
  answers[0]?.resolve();
  await nextTurn();
  expect(isSettled).toBe(false);
  answers[1]?.resolve();
  await settled;
});

test('a commit that fails is logged, and the next one goes on', async () => {
  const { answers, commitOffsets, writeLog, mirror, nextTurn } = given();
  mirror.show(at(0, 1n));
  answers[0]?.reject(new Error('no coordinator'));
  await mirror.settled();
  expect(writeLog).toHaveBeenCalledExactlyOnceWith('warn', expect.any(String), expect.anything());
  mirror.show(at(0, 2n));
  await nextTurn();
  expect(commitOffsets).toHaveBeenLastCalledWith([sent(0, '2')]);
});
