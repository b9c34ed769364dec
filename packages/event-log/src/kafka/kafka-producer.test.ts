import { expect, it } from 'vitest';
import { keysPerPartition, recordOf } from '../../test/log-contract.ts';
import { positionsOf } from './kafka-producer.ts';

const [zero = '', one = ''] = keysPerPartition(2);
const records = [recordOf('t', one), recordOf('t', zero), recordOf('u', zero), recordOf('t', one)];
const counts = new Map([
  ['t', 2],
  ['u', 2],
]);
const acknowledged = [
  { topicName: 't', partition: 0, errorCode: 0, baseOffset: '5' },
  { topicName: 't', partition: 1, errorCode: 0, baseOffset: '9007199254740993' },
  { topicName: 'u', partition: 0, errorCode: 0, baseOffset: '0' },
];

it('gives each record its position, beyond the integers of a double too', () => {
  expect(positionsOf(records, acknowledged, counts)).toEqual([
    { topic: 't', partition: 1, offset: 9007199254740993n },
    { topic: 't', partition: 0, offset: 5n },
    { topic: 'u', partition: 0, offset: 0n },
    { topic: 't', partition: 1, offset: 9007199254740994n },
  ]);
});

it('fails when a partition was not acknowledged, or without an offset', () => {
  expect(() => positionsOf(records, acknowledged.slice(1), counts)).toThrow('No acknowledgement for partition 0 of t');
  const unknown = acknowledged.map((entry) => ({ ...entry, baseOffset: '-1' }));
  expect(() => positionsOf(records, unknown, counts)).toThrow('No acknowledgement');
});
