const minuteMs = 60_000;
/** Beyond it the count that began first is dropped: strangers must not fill the memory. */
const maxKeys = 10_000;

/** Counts a request of `key`, or none (0). Seconds to wait where there are too many, else undefined. */
export type RateLimit = (key: string, requests?: 0 | 1) => number | undefined;

/**
 * At most `max` requests of a key in each minute. It is asked for every request, so it answers at once.
 * @param now milliseconds by a clock that nobody sets
 */
export const createRateLimit = (max: number, now: () => number = () => performance.now()): RateLimit => {
  const counts = new Map<string, number>();
  let endsAtMs = 0;

  return (key, requests = 1) => {
    const nowMs = now();
    if (nowMs >= endsAtMs) {
      counts.clear();
      endsAtMs = nowMs + minuteMs;
    }
    const count = (counts.get(key) ?? 0) + requests;
    counts.set(key, count);
    if (counts.size > maxKeys) counts.delete(counts.keys().next().value as string);
    return count > max ? (endsAtMs - nowMs) / 1000 : undefined;
  };
};
