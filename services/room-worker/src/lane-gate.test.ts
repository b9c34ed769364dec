import { topics } from '@realtime-service/contracts';
import { LogUnavailableError, partitionOf } from '@realtime-service/event-log';
import { describe, expect, it, vi } from 'vitest';
import { createLaneGate, type LaneGate, type LaneGateOfConsumer, noteSeen, type Positions } from './lane-gate.ts';

const count = 2;
const room = 'room-42';
const lane = partitionOf(room, count);
const otherLane = 1 - lane;

/**
 * A gate over a log and a projection whose positions the test moves, and whose answers it may hold back on their way.
 */
const given = (
  at: { high: [number, number]; next: readonly number[]; tables?: string },
  {
    delay = async () => {},
    elapsed = () => 0,
    now = () => 0,
    arrival = async () => {},
    ends = async () => {},
    seen = new Map(),
  }: {
    delay?: () => Promise<void>;
    elapsed?: () => number;
    now?: () => number;
    arrival?: () => Promise<void>;
    ends?: () => Promise<void>;
    seen?: Positions;
  } = {},
) => {
  const store = {
    readPositions: async () => {
      const positions = at.next.map((next, partition) => ({
        topic: topics.roomEvents,
        partition,
        nextOffset: BigInt(next),
        last: null,
        ...(at.tables === undefined ? {} : { tables: at.tables }),
      }));
      await arrival();
      // Of the other topic, whose lanes have the same numbers.
      const others = [0, 1].map((partition) => ({
        partition,
        nextOffset: 6n,
        topic: topics.livekitWebhooks,
        last: null,
      }));
      return [...positions, ...others];
    },
  };
  const bounds = vi.fn(async (topic: string) => {
    const highs = topic === topics.roomEvents ? at.high : [6, 6];
    const answer = highs.map((high, partition) => ({ partition, low: 0n, high: BigInt(high) }));
    await ends();
    return answer;
  });
  const gate = createLaneGate(store, { bounds }, { clock: { now, elapsed, delay }, seen });
  return { ...gate, asked: () => bounds.mock.calls.length };
};

/** A lane of 500 records a second that is applied `behindMs` later. */
const busy = (behindMs: number, lookMs = 2) => {
  let nowMs = 1_000;
  const offsetAt = (atMs: number): bigint => BigInt(Math.floor(atMs / 2));
  const pass = async (ms: number): Promise<void> => {
    nowMs += ms;
  };
  const store = {
    readPositions: async () => {
      await pass(lookMs);
      return [{ topic: topics.roomEvents, partition: 0, nextOffset: offsetAt(nowMs - behindMs), last: null }];
    },
  };
  const log = {
    bounds: async () => {
      await pass(lookMs);
      return [{ partition: 0, low: 0n, high: offsetAt(nowMs) }];
    },
  };
  const gate = createLaneGate(store, log, { clock: { now: () => nowMs, elapsed: () => nowMs, delay: pass } });
  return { gate, nowMs: () => nowMs };
};

const lanes = (ofRoom: number, other: number): [number, number] => (lane === 0 ? [ofRoom, other] : [other, ofRoom]);

describe('what is known', () => {
  it('is not reached before the log has been read to where it ended at first', async () => {
    const at = { high: lanes(5, 0), next: lanes(4, 0) };
    const gate = given(at);
    expect(await gate.hasReachedKnown([room])).toBe(false);
    at.next = lanes(5, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
  });

  it('is not reached by an empty database, of which no position is known', async () => {
    const gate = given({ high: lanes(0, 0), next: [] });
    expect(await gate.hasReachedKnown([room])).toBe(false);
    expect(await gate.isCaughtUp([room])).toBe(false);
  });

  it('is the end of the log anew where a rebuild has put other tables in place', async () => {
    const at = { high: lanes(5, 0), next: lanes(5, 0), tables: 'first' };
    const gate = given(at);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.high = lanes(7, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.tables = 'rebuilt';
    expect(await gate.hasReachedKnown([room])).toBe(false);
    at.next = lanes(7, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
  });

  describe('by facts that were read after a look at the lanes', () => {
    const standing = (ofRoom: number, other = 0): bigint[] => lanes(ofRoom, other).map(BigInt);

    it('is reached where they stand no lower than was seen by then, whatever is seen meanwhile', async () => {
      const at = { high: lanes(5, 3), next: lanes(5, 3) };
      const gate = given(at);
      expect(await gate.hasReachedKnown([room])).toBe(true);
      const isReached = gate.compare();
      at.next = lanes(9, 3);
      await gate.hasReachedKnown([room]);
      expect(await isReached([room], standing(5, 3))).toBe(true);
      expect(await isReached([room], standing(4, 3))).toBe(false);
      // Another lane tells as well that it was an older state.
      expect(await isReached([room], standing(9, 2))).toBe(false);
    });

    it('is not reached by an older database, also where another look has led to that one', async () => {
      const at = { high: lanes(5, 0), next: lanes(5, 0) };
      const gate = given(at);
      await gate.hasReachedKnown([room]);
      at.high = lanes(7, 0);
      at.next = lanes(7, 0);
      expect(await gate.hasReachedKnown([room])).toBe(true);
      at.next = lanes(6, 0);
      expect(await gate.hasReachedKnown([room])).toBe(false);
      expect(await gate.compare()([room], standing(6))).toBe(false);
      expect(await gate.compare()([room], standing(7))).toBe(true);
    });

    it('is not reached where facts may have waited between the look and the reading', async () => {
      const at = { high: lanes(5, 0), next: lanes(5, 0) };
      let passedMs = 0;
      const gate = given(at, { elapsed: () => passedMs, now: () => passedMs });
      await gate.hasReachedKnown([room]);
      const isReached = gate.compare();
      at.high = lanes(7, 0);
      passedMs = 5_000;
      expect(await isReached([room], standing(5))).toBe(true);
      passedMs = 5_001;
      expect(await isReached([room], standing(5))).toBe(false);
      expect(await isReached([room], standing(7))).toBe(true);
    });

    it('is not reached by an empty one', async () => {
      expect(await given({ high: lanes(0, 0), next: [] }).compare()([room], [])).toBe(false);
    });
  });

  it('stays reached while the log grows, where it is looked at every few seconds', async () => {
    const at = { high: lanes(5, 0), next: lanes(5, 0) };
    let passedMs = 0;
    const gate = given(at, { elapsed: () => passedMs, now: () => passedMs });
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.high = lanes(9, 0);
    passedMs = 5_000;
    expect(await gate.hasReachedKnown([room])).toBe(true);
    expect(await gate.isCaughtUp([room])).toBe(false);
  });

  it.each([
    ['partitions were taken over', {}, (gate: LaneGateOfConsumer) => gate.beginAnew()],
    ['the database could not be looked at for some seconds', { elapsed: 6_000, now: 6_000 }, () => {}],
    ['the machine was suspended', { now: 6_000 }, () => {}],
    ['some seconds in which the clock was set back', { elapsed: 6_000, now: -60_000 }, () => {}],
  ])('is the end of the log anew after %s: facts may have waited meanwhile', async (_, passed, happens) => {
    const times = { elapsed: 0, now: 0 };
    const at = { high: lanes(5, 0), next: lanes(5, 0) };
    const gate = given(at, { elapsed: () => times.elapsed, now: () => times.now });
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.high = lanes(900, 0);
    happens(gate);
    Object.assign(times, passed);
    for (const next of [5, 899]) {
      at.next = lanes(next, 0);
      expect(await gate.hasReachedKnown([room])).toBe(false);
    }
    at.high = lanes(950, 0);
    at.next = lanes(900, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
  });

  it.each([
    ['it is about to act on absence', (gate: LaneGate) => gate.isCaughtUp([room])],
    ['it looks for the first time', (gate: LaneGate) => gate.hasReachedKnown([room])],
  ])('is no end of the log that was asked for before partitions were taken over, also where %s', async (_, ask) => {
    const at = { high: lanes(5, 0), next: lanes(5, 0) };
    const answer = Promise.withResolvers<void>();
    const gate = given(at, { ends: () => answer.promise });
    const before = ask(gate);
    await vi.waitFor(() => expect(gate.asked()).toBe(1));
    gate.beginAnew();
    at.high = lanes(900, 0);
    answer.resolve();
    await before;
    expect(await gate.hasReachedKnown([room])).toBe(false);
  });

  it('is not reached by a database that was restored, until it has caught up again', async () => {
    const at = { high: lanes(5, 0), next: lanes(5, 0) };
    const gate = given(at);
    await gate.hasReachedKnown([room]);
    at.high = lanes(8, 0);
    at.next = lanes(8, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.next = lanes(6, 0);
    expect(await gate.hasReachedKnown([room])).toBe(false);
    at.next = lanes(7, 0);
    at.high = lanes(20, 0);
    expect(await gate.hasReachedKnown([room])).toBe(false);
    at.next = lanes(8, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
  });

  it.each([
    ['was looked at', (gate: LaneGate) => gate.hasReachedKnown([])],
    [
      'was noted by whoever applied it',
      (_: LaneGate, seen: Positions) => noteSeen(seen, [{ topic: topics.roomEvents, partition: lane, nextOffset: 8n }]),
    ],
  ])('is not reached by a database that was restored to before what %s since the last question', async (_, learn) => {
    const at = { high: lanes(5, 0), next: lanes(5, 0) };
    const seen: Positions = new Map();
    const gate = given(at, { seen });
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.high = lanes(8, 0);
    at.next = lanes(8, 0);
    await learn(gate, seen);
    at.next = lanes(6, 0);
    expect(await gate.hasReachedKnown([room])).toBe(false);
    at.next = lanes(8, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
  });

  it('stays reached while answers overtake each other, and batches overtake answers', async () => {
    const at = { high: lanes(5, 0), next: lanes(5, 0) };
    const arrivals: (() => void)[] = [];
    let isSlow = false;
    const seen: Positions = new Map();
    const gate = given(at, {
      arrival: () => (isSlow ? new Promise((resolve) => arrivals.push(resolve)) : Promise.resolve()),
      seen,
    });
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.high = lanes(900, 0);
    isSlow = true;
    const first = gate.hasReachedKnown([room]);
    at.next = lanes(6, 0);
    const second = gate.hasReachedKnown([room]);
    noteSeen(seen, [{ topic: topics.roomEvents, partition: lane, nextOffset: 7n }]);
    for (const arrive of arrivals.toReversed()) {
      arrive();
      await Promise.race([first, second]);
    }
    expect(await Promise.all([first, second])).toEqual([true, true]);
    // What came late has made nobody forget the higher position.
    isSlow = false;
    expect(await gate.hasReachedKnown([room])).toBe(false);
    at.next = lanes(900, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
  });

  it.each([
    ['shorter', 4],
    ['longer', 900],
  ])('is the end of the log anew where that is another, %s one, of which nothing is applied yet', async (_, high) => {
    const at = { high: lanes(500, 0), next: lanes(500, 0) };
    const gate = given(at);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.high = lanes(high, 0);
    for (const next of [0, high - 1]) {
      at.next = lanes(next, 0);
      expect(await gate.hasReachedKnown([room])).toBe(false);
    }
    at.next = lanes(high, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
  });

  it('of other lanes does not matter', async () => {
    const gate = given({ high: lanes(5, 9), next: lanes(5, 0) });
    expect(await gate.hasReachedKnown([room])).toBe(true);
    expect(partitionOf('u-1', count)).toBe(otherLane);
    expect(await gate.hasReachedKnown([room, 'u-1'])).toBe(false);
  });
});

describe('the end of the log as it is when it is asked about', () => {
  it('is reached by a lane that is always a little behind', async () => {
    const { gate } = busy(20);
    expect(await gate.isCaughtUp([room])).toBe(true);
  });

  it('counts once every lane has come to what is known: facts may stand in another lane than their key gives', async () => {
    const at = { high: lanes(5, 9), next: lanes(5, 8) };
    const gate = given(at);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    expect(await gate.isCaughtUp([room])).toBe(false);
    at.next = lanes(5, 9);
    expect(await gate.isCaughtUp([room])).toBe(true);
    at.high = lanes(5, 20);
    expect(await gate.isCaughtUp([room])).toBe(true);
  });

  it('counts where another lane has come to the end of a log that ends earlier than it was known to', async () => {
    const at = { high: lanes(5, 9), next: lanes(5, 8) };
    const gate = given(at);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.high = lanes(5, 8);
    expect(await gate.isCaughtUp([room])).toBe(true);
  });

  it('counts once every lane has come as far where partitions are taken over while it is waited for', async () => {
    const at = { high: lanes(4, 9), next: lanes(4, 9) };
    const gate: LaneGateOfConsumer = given(at, {
      delay: async () => {
        gate.beginAnew();
        at.next = lanes(5, 9);
      },
    });
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.high = lanes(5, 20);
    expect(await gate.isCaughtUp([room])).toBe(false);
  });

  it('is asked for once for all who know nothing, and looked for at once for all who wait', async () => {
    const at = { high: lanes(4, 5), next: lanes(4, 5) };
    const delays: (() => void)[] = [];
    let looks = 0;
    const gate = given(at, {
      delay: () => new Promise((resolve) => delays.push(resolve)),
      arrival: async () => {
        looks += 1;
      },
    });
    expect(await Promise.all([gate.hasReachedKnown([room]), gate.hasReachedKnown([room])])).toEqual([true, true]);
    expect(gate.asked()).toBe(1);
    at.high = lanes(5, 5);
    const both = [gate.isCaughtUp([room]), gate.isCaughtUp([room])];
    await vi.waitFor(() => expect(delays).toHaveLength(2));
    at.next = lanes(5, 5);
    looks = 0;
    for (const end of delays) end();
    expect(await Promise.all(both)).toEqual([true, true]);
    expect(looks).toBe(1);
  });

  it('is waited for half a second, and no longer', async () => {
    const { gate, nowMs } = busy(2_000);
    const askedAtMs = nowMs();
    expect(await gate.isCaughtUp([room])).toBe(false);
    expect(nowMs() - askedAtMs).toBeGreaterThanOrEqual(500);
    expect(nowMs() - askedAtMs).toBeLessThan(600);
  });

  it('is waited for no longer where looks take long', async () => {
    const { gate, nowMs } = busy(20_000, 300);
    const askedAtMs = nowMs();
    expect(await gate.isCaughtUp([room])).toBe(false);
    expect(nowMs() - askedAtMs).toBeLessThan(1_500);
  });

  it('is waited for by one question at a time in a lane that stands still, and by all once it has moved', async () => {
    const at = { high: lanes(4, 5), next: lanes(4, 5) };
    const delays: (() => void)[] = [];
    let isPatient = false;
    const gate = given(at, {
      delay: () => (isPatient ? new Promise((resolve) => delays.push(resolve)) : Promise.resolve()),
    });
    expect(await gate.isCaughtUp([room])).toBe(true);
    at.high = lanes(5, 5);
    expect(await gate.isCaughtUp([room])).toBe(false);
    isPatient = true;
    const first = gate.isCaughtUp([room]);
    await vi.waitFor(() => expect(delays).toHaveLength(1));
    expect(await gate.isCaughtUp([room])).toBe(false);
    expect(await gate.isCaughtUp(['u-1'])).toBe(true);
    at.next = lanes(5, 5);
    delays.pop()?.();
    expect(await first).toBe(true);
    at.high = lanes(6, 5);
    const both = [gate.isCaughtUp([room]), gate.isCaughtUp([room])];
    await vi.waitFor(() => expect(delays).toHaveLength(2));
    at.next = lanes(6, 5);
    for (const end of delays) end();
    expect(await Promise.all(both)).toEqual([true, true]);
  });

  it('is waited for by all again in a lane that stood still and has moved while nobody waited', async () => {
    const at = { high: lanes(5, 5), next: lanes(4, 5) };
    const delays: (() => void)[] = [];
    let isPatient = false;
    const gate = given(at, {
      delay: () => (isPatient ? new Promise((resolve) => delays.push(resolve)) : Promise.resolve()),
    });
    expect(await gate.isCaughtUp([room])).toBe(false);
    at.next = lanes(5, 5);
    expect(await gate.isCaughtUp([room])).toBe(true);
    at.high = lanes(6, 5);
    isPatient = true;
    const both = [gate.isCaughtUp([room]), gate.isCaughtUp([room])];
    await vi.waitFor(() => expect(delays).toHaveLength(2));
    at.next = lanes(6, 5);
    for (const end of delays) end();
    expect(await Promise.all(both)).toEqual([true, true]);
  });
});

it('waits 2 s for a silent log, and asks it anew the next time', async () => {
  vi.useFakeTimers();
  try {
    let isSilent = true;
    const bounds = async () => {
      if (isSilent) await new Promise(() => {});
      return [{ partition: 0, low: 0n, high: 5n }];
    };
    const position = { topic: topics.roomEvents, partition: 0, nextOffset: 5n, last: null };
    const gate = createLaneGate({ readPositions: async () => [position] }, { bounds });
    for (const ask of [gate.hasReachedKnown, gate.isCaughtUp]) {
      const refused = expect(ask([room])).rejects.toThrow(LogUnavailableError);
      await vi.advanceTimersByTimeAsync(2_000);
      await refused;
    }
    isSilent = false;
    expect(await gate.isCaughtUp([room])).toBe(true);
  } finally {
    vi.useRealTimers();
  }
});
