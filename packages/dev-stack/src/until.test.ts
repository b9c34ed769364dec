import { expect, test } from 'vitest';
import { until } from './until.ts';

test('what holds in the end is answered', async () => {
  let asked = 0;
  const condition = (): number | undefined => {
    asked += 1;
    if (asked === 1) throw new Error('too early');
    return asked > 2 ? asked : undefined;
  };
  expect(await until('the third', condition)).toBe(3);
});

test('what never holds says what it was, and why', async () => {
  const cause = new Error('nobody is there');
  const never = until('a visit', () => Promise.reject(cause), 1);
  await expect(never).rejects.toMatchObject({ message: 'a visit did not come true within 1 ms', cause });
});
