import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { hideAborted } from './hide-aborted.ts';

const Batch = createRequire(import.meta.url)('kafkajs/src/consumer/batch.js');

const abortKey = Buffer.from([0, 0, 0, 0]);
const commitKey = Buffer.from([0, 0, 0, 1]);
type Written = readonly [producerId: string, what: 'record' | 'plain' | 'abort' | 'commit', key?: Buffer];

/** The offsets of what is seen from this one on. */
function seen(written: readonly Written[], aborted: readonly (readonly [string, number])[], from = 0): number[] {
  const partition = {
    partition: 0,
    highWatermark: String(written.length),
    lastStableOffset: String(written.length),
    abortedTransactions: aborted.map(([producerId, first]) => ({ producerId, firstOffset: String(first) })),
    messages: written.map(([producerId, what, key = Buffer.from('key')], offset) => ({
      offset: String(offset),
      key: what === 'abort' ? abortKey : what === 'commit' ? commitKey : key,
      isControlRecord: what === 'abort' || what === 'commit',
      batchContext: { producerId, inTransaction: what !== 'plain' },
    })),
  };
  hideAborted(partition);
  const batch = new Batch('t', String(from), partition);
  expect(batch.lastOffset()).toBe(String(written.length - 1));
  return batch.messages.map(({ offset }: { offset: string }) => Number(offset));
}

describe('records of aborted transactions', () => {
  const overlapping: readonly Written[] = [
    ['1', 'record'],
    ['2', 'record'],
    ['1', 'record'],
    ['2', 'record'],
    ['2', 'abort'],
    ['1', 'record'],
    ['1', 'abort'],
    ['1', 'record'],
    ['1', 'commit'],
  ];
  // In the order of their ends, as brokers have it.
  const ended = [
    ['2', 1],
    ['1', 0],
  ] as const;

  it.each([0, 1, 2, 3, 5])('are not seen of those that were open at once, from offset %i', (from) => {
    expect(seen(overlapping, ended, from)).toEqual([7]);
  });

  it('are those of the producer that has aborted, and no others that stand among them', () => {
    const written: readonly Written[] = [
      ['1', 'record'],
      ['2', 'record'],
      ['-1', 'plain'],
      ['1', 'record'],
      ['2', 'commit'],
      ['1', 'abort'],
    ];
    expect(seen(written, [['1', 0]])).toEqual([1, 2]);
  });

  it('are not seen behind one whose key looks like a marker', () => {
    const written: readonly Written[] = [
      ['1', 'record', abortKey],
      ['1', 'record'],
      ['1', 'abort'],
    ];
    expect(seen(written, [['1', 0]])).toEqual([]);
  });

  it('are not seen where their transaction has not ended in what was fetched', () => {
    expect(
      seen(
        [
          ['1', 'record'],
          ['1', 'record'],
        ],
        [['1', 0]],
      ),
    ).toEqual([]);
  });
});
