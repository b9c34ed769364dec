import type { Spread } from './statistics.ts';

/** Three significant digits; thousands are separated. */
export const figure = (value: number): string => value.toLocaleString('en', { maximumSignificantDigits: 3 });

export const range = ({ min, median, max }: Spread): string => `${figure(median)} (${figure(min)} to ${figure(max)})`;

export const ratioLine = (what: string, spread: Spread): string => `${what}: ${range(spread)}`;
