/** What several rounds say together. */
export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** @throws {RangeError} without values: there is nothing to say */
export const spreadOf = (values: readonly number[]): Spread => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [min, max, upper] = [sorted[0], sorted.at(-1), sorted[middle]];
  if (min === undefined || max === undefined || upper === undefined) throw new RangeError('no values');
  const lower = sorted.length % 2 === 0 ? (sorted[middle - 1] ?? upper) : upper;
  return { min, median: (lower + upper) / 2, max };
};

/**
 * How one side compares with the other, round by round: what disturbs the machine for a while disturbs both halves of
 * a round, and a ratio of two medians from different moments would not show it.
 * @throws {RangeError} when the sides have not run equally often
 */
export const ratioSpread = (numerators: readonly number[], denominators: readonly number[]): Spread => {
  if (numerators.length !== denominators.length) throw new RangeError('the sides have not run equally often');
  return spreadOf(numerators.map((numerator, round) => numerator / (denominators[round] ?? Number.NaN)));
};

/** Every round begins with another side, so that none always runs on what the one before it left behind. */
export const rotated = <T>(sides: readonly T[], round: number): T[] => {
  const first = round % sides.length;
  return [...sides.slice(first), ...sides.slice(0, first)];
};
