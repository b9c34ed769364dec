import type { Spread } from './statistics.ts';

/** Three significant digits; thousands are separated. */
export const figure = (value: number): string => value.toLocaleString('en', { maximumSignificantDigits: 3 });

export const ratioLine = (what: string, { min, median, max }: Spread): string =>
  `${what}: ${figure(median)} (${figure(min)} to ${figure(max)})`;
