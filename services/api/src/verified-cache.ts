const cacheForMs = 60_000;
const maxTokens = 10_000;
const maxCharacters = 32 * 1024 * 1024;

/** Remembers what verified tokens said. */
export interface VerifiedCache<T> {
  readonly get: (token: string, nowMs: number) => T | undefined;
  /** @param expiresAtMs the token's own end */
  readonly set: (token: string, value: T, expiresAtMs: number, nowMs: number) => void;
}

/**
 * Keeps an entry for a minute and never past its token's end, so that a withdrawn key stops counting soon. Bounded in
 * number and in characters; the oldest go first.
 */
export const createVerifiedCache = <T>(): VerifiedCache<T> => {
  const entries = new Map<string, { readonly value: T; readonly untilMs: number }>();
  let characters = 0;

  const remove = (token: string): void => {
    if (entries.delete(token)) characters -= token.length;
  };

  return {
    get: (token, nowMs) => {
      const entry = entries.get(token);
      if (entry === undefined) return undefined;
      if (entry.untilMs > nowMs) return entry.value;
      remove(token);
      return undefined;
    },
    set: (token, value, expiresAtMs, nowMs) => {
      remove(token);
      entries.set(token, { value, untilMs: Math.min(expiresAtMs, nowMs + cacheForMs) });
      characters += token.length;
      for (const oldest of entries.keys()) {
        if (entries.size <= maxTokens && characters <= maxCharacters) return;
        remove(oldest);
      }
    },
  };
};
