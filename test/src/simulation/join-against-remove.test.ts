import { expect, test } from 'vitest';
import { raceJoinAgainstRemove } from './join-against-remove.ts';

const schedules = 10_000;

test('no token is given to a question that was asked after the end of the right', { timeout: 120_000 }, async () => {
  const sum = { wrong: 0, tokens: 0, askedAfter: 0 };
  for (let seed = 1; seed <= schedules; seed += 1) {
    const { wrong, tokens, askedAfter } = await raceJoinAgainstRemove(seed);
    expect(wrong, `schedule ${seed}`).toBe(0);
    sum.tokens += tokens;
    sum.askedAfter += askedAfter;
  }
  // Else nothing was tried.
  expect(sum.tokens).toBeGreaterThan(schedules);
  expect(sum.askedAfter).toBeGreaterThan(schedules);
});
