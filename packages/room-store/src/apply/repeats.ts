/** How long the identity of an applied fact counts, by record time: a producer that repeats later tells a new fact. */
export const factIdentityMs = 7 * 24 * 3_600_000;

/**
 * Tells the repeats among the facts of one partition. Its clock is the newest record time of an applied fact, never the
 * time of day: a fact is a repeat where its id was applied within the week before that clock, its own record time
 * included. The clock only rises, so what has once left the week can never count again, whether it was purged or not.
 * A record from before the week, as of a producer that dates records by its outbox rows, counts from the clock on: else
 * none of its repeats would be told.
 */
export class Repeats {
  readonly #appliedAtMs: Map<string, number>;
  #newestMs: number;

  /** @param appliedAtMs record times of applied facts by their keys: those that may repeat, more do no harm */
  constructor(newestMs: number, appliedAtMs: Iterable<readonly [factKey: string, recordedAtMs: number]>) {
    this.#newestMs = newestMs;
    this.#appliedAtMs = new Map(appliedAtMs);
  }

  get newestMs(): number {
    return this.#newestMs;
  }

  /** From when on the identity of a fact counts that is to be applied; null for a repeat. */
  admit(factKey: string, recordedAtMs: number): number | null {
    const newestMs = Math.max(this.#newestMs, recordedAtMs);
    const appliedAtMs = this.#appliedAtMs.get(factKey);
    if (appliedAtMs !== undefined && appliedAtMs >= newestMs - factIdentityMs) return null;
    const countsFromMs = recordedAtMs >= newestMs - factIdentityMs ? recordedAtMs : newestMs;
    this.#newestMs = newestMs;
    this.#appliedAtMs.set(factKey, countsFromMs);
    return countsFromMs;
  }
}
