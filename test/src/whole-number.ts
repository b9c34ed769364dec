/** The value of an option. A proof over a number of runs that nobody could read would hold by running none. */
export const wholeNumber = (option: string, text: string, min: number): number => {
  const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (number >= min) return number;
  throw new Error(`--${option} takes a whole number from ${min} on, not '${text}'`);
};
