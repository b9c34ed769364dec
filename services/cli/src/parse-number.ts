import { UsageError } from './command.ts';

/** The value of an option that takes a number. @throws {UsageError} */
export const parseNumber = (
  name: string,
  text: string | undefined,
  { min, max, fallback }: { readonly min: number; readonly max: number; readonly fallback: number },
): number => {
  if (text === undefined) return fallback;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max)) throw new UsageError(`--${name} is a number from ${min} to ${max}`);
  return value;
};
