/** For people: `1,234`. */
export const figure = (value: number | bigint): string => value.toLocaleString('en', { maximumFractionDigits: 0 });

/** So many of something: `1 event`, `1,234 events`. */
export const plural = (count: number | bigint, one: string, several = `${one}s`): string =>
  `${figure(count)} ${Number(count) === 1 ? one : several}`;
