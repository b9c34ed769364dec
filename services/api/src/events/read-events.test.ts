import { expect, test } from 'vitest';
import { ProblemError } from '../problem.ts';
import { publisherScope, readEvents } from './read-events.ts';

const faultsOf = (body: readonly unknown[]) => {
  const headers = { 'content-type': 'application/cloudevents-batch+json' };
  try {
    readEvents({ body, headers, raw: { rawHeaders: [] } }, new Set([publisherScope]));
  } catch (error) {
    if (error instanceof ProblemError) return error.details.faults;
    throw error;
  }
  return undefined;
};

const cut = { path: '', message: 'has more faults than the 100 that are named' };
const unknownType = { specversion: '1.0', id: 'e-1', source: '/s', type: 'room.painted', subject: 'room-42' };

test('a hundred faults of a batch are named', () => {
  expect(faultsOf(Array(100).fill(unknownType))?.map(({ path }) => path)).toEqual(
    Array.from({ length: 100 }, (_, n) => `/${n}/type`),
  );
});

test('a batch is read no further than its hundredth fault', () => {
  const unread = {
    get type() {
      throw new Error('was read');
    },
  };
  const faults = faultsOf([...Array(101).fill(unknownType), unread]);
  expect(faults).toHaveLength(101);
  expect(faults?.at(-1)).toEqual(cut);
});

test('a thousand faults of one event of a batch do not hide behind each other', () => {
  const created = { ...unknownType, type: 'room.created', data: { members: Array(9_999).fill({}) } };
  const faults = faultsOf([unknownType, created, created]);
  expect(faults?.slice(0, 2)).toMatchObject([{ path: '/0/type' }, { path: '/1/data/members/0/userId' }]);
  expect(faults?.slice(100)).toEqual([cut]);
});

test('an id that another event of the batch has is a fault, unless it is the same fact again', () => {
  const event = (changes: object) => ({ ...unknownType, type: 'room.locked', ...changes });
  const [first, later] = [event({ time: '2026-03-01T12:00:00Z' }), event({ time: '2026-03-01T12:00:01Z' })];
  expect(faultsOf([first, later, event({ source: '/other', subject: 'room-7' })])).toBeUndefined();
  expect(faultsOf([first, event({ type: 'room.unlocked' }), event({ subject: 'room-7' })])).toEqual([
    { path: '/1/id', message: 'is that of another event before it' },
    { path: '/2/id', message: 'is that of another event before it' },
  ]);
  const added = (data: object) => event({ type: 'member.added', data });
  expect(faultsOf([added({ userId: 'u-7', role: 'host' }), added({ role: 'host', userId: 'u-7' })])).toBeUndefined();
  const closed = event({ type: 'room.closed', data: {} });
  expect(faultsOf([closed, { ...closed, data: { reason: 'done' } }])).toMatchObject([{ path: '/1/id' }]);
});
