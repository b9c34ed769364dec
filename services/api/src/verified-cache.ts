const cacheForMs = 60_000;
const maxTokens = 10_000;
const maxCharacters = 32 * 1024 * 1024;
const keyLength = 64;

/** Remembers what verified tokens said. A token may be given as its whole header, as long as it is always that. */
export interface VerifiedCache<T> {
  readonly get: (token: string, nowMs: number) => T | undefined;
  /** @param expiresAtMs the end of the token, or of the login that it comes from */
  readonly set: (token: string, value: T, expiresAtMs: number, nowMs: number) => void;
}

/**
 * Keeps an entry for a minute and never past its token's end, so that a withdrawn key stops counting soon. Bounded in
 * number and in characters; the oldest go first. Found by the end of the token, a part of its signature: to hash
 * more than a thousand characters for each request would be a fortieth of a join.
 */
export const createVerifiedCache = <T>(): VerifiedCache<T> => {
  const entries = new Map<
    string,
    { readonly token: string; readonly value: T; readonly sinceMs: number; readonly untilMs: number }
  >();
  let characters = 0;

  const remove = (key: string): void => {
    characters -= entries.get(key)?.token.length ?? 0;
    entries.delete(key);
  };

  return {
    get: (token, nowMs) => {
      const key = token.slice(-keyLength);
      const entry = entries.get(key);
      if (entry === undefined || entry.token !== token) return undefined;
      // Set back, the clock says nothing of how long it has been kept.
      if (entry.sinceMs <= nowMs && nowMs < entry.untilMs) return entry.value;
      remove(key);
      return undefined;
    },
    set: (token, value, expiresAtMs, nowMs) => {
      const key = token.slice(-keyLength);
      remove(key);
      entries.set(key, { token, value, sinceMs: nowMs, untilMs: Math.min(expiresAtMs, nowMs + cacheForMs) });
      characters += token.length;
      for (const oldest of entries.keys()) {
        if (entries.size <= maxTokens && characters <= maxCharacters) return;
        remove(oldest);
      }
    },
  };
};
