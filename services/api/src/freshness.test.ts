import { topics } from '@realtime-service/contracts';
import { LogUnavailableError, partitionOf } from '@realtime-service/event-log';
import { createLogger } from '@realtime-service/telemetry';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createFreshness, type Freshness } from './freshness.ts';

const partitionCount = 12;
const maxAgeMs = 10_000;
const keyOf = (kind: 'room' | 'user', wanted: (partition: number, grown: number) => boolean): string => {
  for (let n = 0; ; n += 1)
    if (wanted(partitionOf(`${kind}-${n}`, partitionCount), partitionOf(`${kind}-${n}`, 2 * partitionCount)))
      return `${kind}-${n}`;
};
/** A room of partition 3, and one of another. */
const ours = keyOf('room', (partition) => partition === 3);
const theirs = keyOf('room', (partition) => partition !== 3);
/** People of the same two. */
const ourUser = keyOf('user', (partition) => partition === 3);
const theirUser = keyOf('user', (partition) => partition !== 3);

let nowMs: number;
let high: bigint;
let webhooksHigh: bigint;
let logCount: number;
let projectedCount: number;
let applied: bigint;
let isLogAway: boolean;
let logAnswers: Promise<void>;
let databaseAnswers: Promise<void>;
let reads: number;
let logged: string[];
let freshness: Freshness;

beforeEach(() => {
  nowMs = 1_000_000;
  high = 0n;
  webhooksHigh = 0n;
  logCount = partitionCount;
  projectedCount = partitionCount;
  applied = 0n;
  isLogAway = false;
  logAnswers = Promise.resolve();
  databaseAnswers = Promise.resolve();
  reads = 0;
  logged = [];
  freshness = createFreshness({
    bounds: async (topic) => {
      await logAnswers;
      if (isLogAway) throw new LogUnavailableError('Kafka is away');
      return Array.from({ length: logCount }, (_, partition) => ({
        partition,
        low: 0n,
        high: partition !== 3 ? 0n : topic === topics.roomEvents ? high : webhooksHigh,
      }));
    },
    readPositions: async () => {
      reads += 1;
      await databaseAnswers;
      return Array.from({ length: projectedCount }, (_, partition) => ({
        topic: topics.roomEvents,
        partition,
        nextOffset: partition === 3 ? applied : 0n,
      }));
    },
    maxAgeMs,
    logger: createLogger({ service: 'api', destination: { write: (line) => void logged.push(JSON.parse(line).msg) } }),
    now: () => nowMs,
  });
});

afterEach(() => void vi.useRealTimers());

/** What happens in one second, and the look at its end. */
const second = async (change: { high?: bigint; applied?: bigint } = {}): Promise<void> => {
  high = change.high ?? high;
  applied = change.applied ?? applied;
  nowMs += 1_000;
  await freshness.look();
};
const secondsPass = async (count: number): Promise<void> => {
  for (let n = 0; n < count; n += 1) await second();
};
const position = (offset: bigint) => ({ topic: topics.roomEvents, partition: 3, offset });
/** Whether it is reached, to somebody whose second of waiting is over. */
const hasReached = async (offset: bigint): Promise<boolean> => {
  const waiting = freshness.reaches([position(offset)]);
  nowMs += 1_000;
  return waiting;
};
const ofOurs = () =>
  freshness.partitions().find(({ topic, partition }) => topic === topics.roomEvents && partition === 3);

describe('a process that has just started', () => {
  test('knows of no partition before it has looked', () => {
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    expect(freshness.ofKey(ours)).toBeUndefined();
    expect(freshness.isLogKnown()).toBe(false);
  });

  test('says once that the log is away, as whenever it goes', async () => {
    isLogAway = true;
    await secondsPass(3);
    isLogAway = false;
    await secondsPass(2);
    isLogAway = true;
    await secondsPass(3);
    expect(logged).toEqual(Array(2).fill('high positions of the log are unknown'));
  });

  test('goes by an idle log at once', async () => {
    await second({ high: 5n, applied: 5n });
    expect(freshness.isCurrent(ours, ourUser)).toBe(true);
  });

  test('also where the log answers after the database', async () => {
    logAnswers = new Promise((resolve) => setImmediate(resolve));
    await second({ high: 5n, applied: 5n });
    expect(freshness.isCurrent(ours, ourUser)).toBe(true);
  });

  test('takes what waits at its first look for too old, whatever its age, until that is applied', async () => {
    await second({ high: 5n, applied: 3n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    expect(freshness.isCurrent(theirs, ourUser)).toBe(false);
    expect(freshness.isCurrent(theirs, theirUser)).toBe(true);
    expect(ofOurs()).toMatchObject({ lag: 2n, ageMs: 0 });
    await second({ high: 7n, applied: 4n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    await second({ applied: 5n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    expect(ofOurs()).toMatchObject({ lag: 2n, ageMs: 1_000 });
  });

  test('does so as well where the log comes later', async () => {
    isLogAway = true;
    await second({ high: 5n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    isLogAway = false;
    await second();
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
  });

  test('has looked once it is started', async () => {
    high = 1n;
    await freshness.start();
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    await freshness.stop();
  });

  test('is not held up by a log that does not answer', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const answer = Promise.withResolvers<void>();
    logAnswers = answer.promise;
    const started = freshness.start();
    await vi.advanceTimersByTimeAsync(2_000);
    await started;
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    answer.resolve();
    await freshness.stop();
  });
});

describe('a database that has gone back', () => {
  test('knows too little of everybody while the log has not told yet which partition anybody is in', async () => {
    isLogAway = true;
    await second({ applied: 500n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    await second({ applied: 490n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    await second({ applied: 500n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
  });

  test('knows too little at once, until what had been applied is applied again', async () => {
    await second({ high: 500n, applied: 500n });
    await second({ applied: 490n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    expect(freshness.isCurrent(theirs, theirUser)).toBe(true);
    await second({ high: 501n, applied: 499n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    await second({ applied: 500n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    expect(ofOurs()).toMatchObject({ lag: 1n, ageMs: 1_000 });
  });

  describe('since the last look, as a reading of facts tells', () => {
    const standingAt = (nextOffset: bigint): bigint[] =>
      Array.from({ length: partitionCount }, (_, partition) => (partition === 3 ? nextOffset : 0n));
    beforeEach(() => second({ high: 500n, applied: 500n }));

    test('knows too little from then on, until what had been applied is applied again', async () => {
      freshness.compare()(standingAt(490n));
      expect(freshness.isCurrent(ours, theirUser)).toBe(false);
      expect(freshness.isCurrent(theirs, ourUser)).toBe(false);
      expect(freshness.isCurrent(theirs, theirUser)).toBe(true);
      await second({ applied: 499n });
      expect(freshness.isCurrent(ours, theirUser)).toBe(false);
      await second({ applied: 500n });
      expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    });

    test('is none where facts were asked for before a look that overtook their answer', async () => {
      const note = freshness.compare();
      await second({ high: 510n, applied: 510n });
      note(standingAt(505n));
      expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    });
  });

  test('is none where positions are asked for while an answer is on its way: they are asked for once', async () => {
    const answer = Promise.withResolvers<void>();
    databaseAnswers = answer.promise;
    const looked = [freshness.look(), freshness.look()];
    expect(reads).toBe(1);
    answer.resolve();
    await Promise.all(looked);
  });

  test('twice knows too little for as long', async () => {
    await second({ high: 500n, applied: 500n });
    await second({ applied: 490n });
    await second({ applied: 495n });
    await second({ applied: 400n });
    await second({ applied: 498n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    await second({ applied: 500n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
  });
});

describe('a log that ends before what was applied', () => {
  beforeEach(() => second({ high: 500n, applied: 500n }));

  test('is another one: its partition grows old, however few records there are, and no position in it is reached', async () => {
    await second({ high: 0n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    expect(await hasReached(3n)).toBe(false);
    await second({ high: 4n });
    await secondsPass(8);
    expect(ofOurs()).toMatchObject({ lag: 0n, ageMs: 10_000 });
    await second();
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    expect(freshness.isCurrent(theirs, theirUser)).toBe(true);
    await second({ applied: 4n });
    await second();
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    expect(await hasReached(3n)).toBe(true);
  });

  test('stays another one when it has grown beyond, until a worker applies it', async () => {
    await second({ high: 0n });
    await secondsPass(11);
    await second({ high: 501n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    expect(await hasReached(3n)).toBe(false);
    await second({ applied: 0n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    await second({ applied: 501n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    expect(await hasReached(3n)).toBe(true);
  });

  test('is none where it ends there for a moment', async () => {
    await second({ high: 490n });
    await secondsPass(5);
    await second({ high: 500n });
    expect(ofOurs()).toMatchObject({ ageMs: 0 });
    await secondsPass(20);
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    expect(await hasReached(499n)).toBe(true);
  });

  test('is none where its end was read before what was applied meanwhile', async () => {
    const answer = Promise.withResolvers<void>();
    logAnswers = answer.promise;
    const looked = second({ high: 500n, applied: 501n });
    await vi.waitFor(() => expect(ofOurs()).toMatchObject({ lag: 0n }));
    answer.resolve();
    await looked;
    expect(ofOurs()).toMatchObject({ ageMs: 0 });
    expect(await hasReached(500n)).toBe(true);
  });
});

describe('the age of a partition', () => {
  beforeEach(() => second());

  test('is none on an idle topic, however long', async () => {
    await second({ high: 5n, applied: 5n });
    await secondsPass(100);
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    expect(ofOurs()).toMatchObject({ lag: 0n, ageMs: 0 });
  });

  test('grows while one record waits, and refuses rooms of that partition alone', async () => {
    await second({ high: 1n });
    await secondsPass(10);
    expect(ofOurs()).toMatchObject({ lag: 1n, ageMs: 10_000 });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
    await second();
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    expect(freshness.isCurrent(theirs, theirUser)).toBe(true);
    expect(freshness.ofKey(ours)).toEqual(ofOurs());
    expect(freshness.ofKey(theirs)).toMatchObject({ topic: topics.roomEvents, lag: 0n, ageMs: 0 });
    await second({ applied: 1n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
  });

  test('is that of the room and that of the person: what says that somebody is disabled stands in the latter', async () => {
    await second({ high: 1n });
    await secondsPass(11);
    expect(freshness.isCurrent(theirs, ourUser)).toBe(false);
    expect(freshness.isCurrent(theirs, theirUser)).toBe(true);
    expect(freshness.ofKey(ourUser)).toEqual(ofOurs());
  });

  test('counts from the oldest that waits: a busy partition that keeps up is young', async () => {
    for (let n = 1n; n <= 60n; n += 1n) await second({ high: n * 100n, applied: (n - 1n) * 100n });
    expect(ofOurs()).toMatchObject({ lag: 100n, ageMs: 0 });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
  });

  test('is that of the delay where the projection follows slowly', async () => {
    for (let n = 1n; n <= 60n; n += 1n) await second({ high: n * 100n, applied: n > 20n ? (n - 20n) * 100n : 0n });
    expect(ofOurs()).toMatchObject({ lag: 2_000n, ageMs: 19_000 });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
  });

  test('never looks younger for having waited long', async () => {
    for (let n = 1n; n <= 700n; n += 1n) await second({ high: n });
    await second({ applied: 650n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
  });
});

describe('a log that is away', () => {
  beforeEach(() => second());

  test('is no reason to refuse', async () => {
    isLogAway = true;
    await secondsPass(60);
    expect(freshness.isLogKnown()).toBe(false);
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
  });

  test('does not hide what is known to wait', async () => {
    await second({ high: 1n });
    isLogAway = true;
    await secondsPass(11);
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
  });

  test('leaves unknown since when that waits which is found once it is back', async () => {
    await second({ high: 5n, applied: 5n });
    isLogAway = true;
    await secondsPass(12);
    isLogAway = false;
    await second({ high: 6n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    await second({ high: 7n, applied: 6n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
  });

  test('for no longer than the limit leaves nothing unknown', async () => {
    await second({ high: 5n, applied: 5n });
    isLogAway = true;
    await secondsPass(10);
    isLogAway = false;
    await second({ high: 6n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
  });

  test('is known again when it is back', async () => {
    isLogAway = true;
    await second();
    isLogAway = false;
    await second();
    expect(freshness.isLogKnown()).toBe(true);
  });
});

describe('a database that is away', () => {
  test('is asked again, and does not hide what is found to wait meanwhile', async () => {
    await second();
    databaseAnswers = Promise.reject(new Error('the database is away'));
    await second({ high: 1n });
    await secondsPass(11);
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    databaseAnswers = Promise.resolve();
    await second({ applied: 1n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(true);
  });
});

describe('waiting for a position', () => {
  test('ends at once where it is reached', async () => {
    await second({ high: 6n, applied: 6n });
    reads = 0;
    expect(await freshness.reaches([position(5n)])).toBe(true);
    expect(reads).toBe(0);
  });

  test('ends when the projection gets there', async () => {
    const waiting = freshness.reaches([position(5n)]);
    applied = 6n;
    expect(await waiting).toBe(true);
  });

  test('ends after a second where it does not', async () => {
    applied = 5n;
    expect(await hasReached(5n)).toBe(false);
  });

  test('ends after a second where the database does not answer', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const answer = Promise.withResolvers<void>();
    databaseAnswers = answer.promise;
    const waiting = freshness.reaches([position(5n)]);
    nowMs += 1_000;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(await waiting).toBe(false);
    answer.resolve();
  });

  test('is for all positions', async () => {
    await second({ high: 6n, applied: 6n });
    const waiting = freshness.reaches([position(5n), { topic: topics.roomEvents, partition: 4, offset: 0n }]);
    nowMs += 1_000;
    expect(await waiting).toBe(false);
  });

  test('costs one query at a time, by however many, whenever they come', async () => {
    const first = freshness.reaches([position(5n)]);
    // The query has been answered, and the next one is not due yet.
    await new Promise((resolve) => setImmediate(resolve));
    const others = Array.from({ length: 50 }, () => freshness.reaches([position(5n)]));
    expect(reads).toBe(1);
    applied = 6n;
    expect(await Promise.all([first, ...others])).toEqual(Array(51).fill(true));
    expect(reads).toBe(2);
  });
});

describe('a topic that was grown', () => {
  /** Its facts go to a new partition now; those from before may stand in partition 3. */
  const moved = keyOf('room', (before, now) => before === 3 && now !== 3);

  test('is none where nothing of it was ever applied', async () => {
    projectedCount = 0;
    await second({ high: 5n });
    expect(freshness.isCurrent(ours, theirUser)).toBe(false);
    expect(freshness.isCurrent(theirs, theirUser)).toBe(true);
  });

  test('has nobody decided on where any partition is too old, until the new count is confirmed and that is applied', async () => {
    await second({ high: 5n, applied: 5n });
    logCount = 2 * partitionCount;
    await second({ high: 6n });
    expect(freshness.isCurrent(moved, theirUser)).toBe(true);
    await secondsPass(maxAgeMs / 1_000 + 1);
    expect(freshness.isCurrent(moved, theirUser)).toBe(false);
    expect(freshness.isCurrent(theirs, theirUser)).toBe(false);
    projectedCount = logCount;
    await second({ applied: 6n });
    expect(freshness.isCurrent(moved, theirUser)).toBe(true);
  });

  test('has nobody refused for what LiveKit told that waits', async () => {
    logCount = 2 * partitionCount;
    webhooksHigh = 5n;
    await second({ high: 5n, applied: 5n });
    expect(freshness.isCurrent(moved, theirUser)).toBe(true);
  });
});
