/** How long the identity of an applied fact counts, by record time: a producer that repeats later tells a new fact. */
export const factIdentityMs = 7 * 24 * 3_600_000;

/**
 * Tells the repeats among the facts of one partition. Its clock is the newest record time of an applied fact, never the
 * time of day: a fact is a repeat where its id was applied within the week before that clock, its own record time
 * included. The clock only rises, so what has once left the week can never count again, whether it was purged or not.
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

  /** Whether the fact is to be applied; it counts as applied from then on. */
  admit(factKey: string, recordedAtMs: number): boolean {
    const newestMs = Math.max(this.#newestMs, recordedAtMs);
    const appliedAtMs = this.#appliedAtMs.get(factKey);
    if (appliedAtMs !== undefined && appliedAtMs >= newestMs - factIdentityMs) return false;
    this.#newestMs = newestMs;
    this.#appliedAtMs.set(factKey, recordedAtMs);
    return true;
  }
}
