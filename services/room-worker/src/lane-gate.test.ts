import { topics } from '@realtime-service/contracts';
import { partitionOf } from '@realtime-service/event-log';
import { describe, expect, it } from 'vitest';
import { createLaneGate } from './lane-gate.ts';

const count = 2;
const room = 'room-42';
const lane = partitionOf(room, count);
const otherLane = 1 - lane;

/** A gate over a log and a projection whose positions the test moves. */
const given = (at: { high: [number, number]; next: [number, number]; tables?: string }) => {
  const store = {
    readPositions: async () =>
      at.next.map((next, partition) => ({
        topic: topics.roomEvents,
        partition,
        nextOffset: BigInt(next),
        last: null,
        ...(at.tables === undefined ? {} : { tables: at.tables }),
      })),
  };
  const log = { bounds: async () => at.high.map((high, partition) => ({ partition, low: 0n, high: BigInt(high) })) };
  return createLaneGate(store, log, 'active');
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

  it('stays reached while the log grows', async () => {
    const at = { high: lanes(5, 0), next: lanes(5, 0) };
    const gate = given(at);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    at.high = lanes(9, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
    expect(await gate.isCaughtUp([room])).toBe(false);
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
    at.next = lanes(8, 0);
    expect(await gate.hasReachedKnown([room])).toBe(true);
  });

  it('of other lanes does not matter', async () => {
    const gate = given({ high: lanes(5, 9), next: lanes(5, 0) });
    expect(await gate.hasReachedKnown([room])).toBe(true);
    expect(partitionOf('u-1', count)).toBe(otherLane);
    expect(await gate.hasReachedKnown([room, 'u-1'])).toBe(false);
  });
});
