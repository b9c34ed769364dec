import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { factIdentityMs, Repeats } from './repeats.ts';

const day = 24 * 3_600_000;
const tell = (repeats: Repeats, facts: readonly (readonly [string, number])[]): boolean[] =>
  facts.map(([factKey, recordedAtMs]) => repeats.admit(factKey, recordedAtMs) !== null);

describe('a fact that comes again', () => {
  it.each([
    ['at once', 0, false],
    ['at the end of its week', 7 * day, false],
    ['after its week', 7 * day + 1, true],
  ])('%s', (_, later, counts) => {
    expect(
      tell(new Repeats(0, []), [
        ['a', 5 * day],
        ['a', 5 * day + later],
      ]),
    ).toEqual([true, counts]);
  });

  it('with an old record time counts where its week was over by the newest record', () => {
    expect(
      tell(new Repeats(0, []), [
        ['a', 0],
        ['b', 8 * day],
        ['a', day],
      ]),
    ).toEqual([true, true, true]);
  });

  it('is told for a week by the newest record where its own time was over from the beginning', () => {
    expect(
      tell(new Repeats(30 * day, []), [
        ['a', 0],
        ['a', 0],
        ['b', 37 * day],
        ['a', 0],
        ['b', 37 * day + 1],
        ['c', 37 * day + 1],
        ['a', 0],
      ]),
    ).toEqual([true, false, true, false, false, true, true]);
  });

  it('does not keep its week going', () => {
    expect(
      tell(new Repeats(0, []), [
        ['a', 0],
        ['a', 6 * day],
        ['a', 8 * day],
      ]),
    ).toEqual([true, false, true]);
  });
});

it('is told the same wherever chunks end, and whatever has been purged between them', () => {
  const facts = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c', 'd'), fc.integer({ min: 0, max: 30 * day })), {
    maxLength: 40,
  });
  fc.assert(
    fc.property(facts, fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }), (told, isPurgedAfter) => {
      const inOne = tell(new Repeats(0, []), told);
      let newestMs = 0;
      let stored = new Map<string, number>();
      const oneByOne = told.map(([factKey, recordedAtMs], at) => {
        const repeats = new Repeats(newestMs, stored);
        const countsFromMs = repeats.admit(factKey, recordedAtMs);
        newestMs = repeats.newestMs;
        if (countsFromMs !== null) stored.set(factKey, countsFromMs);
        if (isPurgedAfter[at]) stored = new Map([...stored].filter(([, at]) => at >= newestMs - factIdentityMs));
        return countsFromMs !== null;
      });
      expect(oneByOne).toEqual(inOne);
    }),
  );
});
