import { expect, test } from 'vitest';
import { reasonsOf } from './reasons.ts';

test('of a name with several addresses, what each of them said', () => {
  const refused = new AggregateError([
    new Error('connect ECONNREFUSED 127.0.0.1:1'),
    new Error('connect ENETUNREACH ::1:1'),
  ]);
  expect(reasonsOf(new Error('The log is away', { cause: refused }))).toBe(
    'The log is away: connect ECONNREFUSED 127.0.0.1:1; connect ENETUNREACH ::1:1',
  );
});
