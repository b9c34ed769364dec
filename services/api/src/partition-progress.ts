import type { LogPartition } from '@realtime-service/contracts';

/** Observations kept per partition, one a second at most. */
const maxUnreached = 600;

/** A high position that was seen and has not been applied yet. */
interface Observation {
  high: bigint;
  readonly seenAtMs: number;
  /** Found at a first look, so that nobody knows since when it waits; or applied once, and gone by a restore. */
  readonly isFromBefore: boolean;
}

export interface PartitionFreshness extends LogPartition {
  /** Records that are not applied. */
  readonly lag: bigint;
  /**
   * Time since the oldest high position that is not reached was first seen, or since the log was found to end before
   * what had been applied; 0 where neither is.
   */
  readonly ageMs: number;
}

/** How far one partition is applied, against where its log ends. It reads no clock: each look brings its time. */
export class PartitionProgress {
  readonly #at: LogPartition;
  readonly #maxAgeMs: number;
  readonly #unreached: Observation[] = [];
  #high = 0n;
  #applied = 0n;
  #isProjected = false;
  /** Since when the log ends before what had been applied: it is another one, of which nothing is applied. */
  #shortSinceMs: number | null = null;

  constructor(at: LogPartition, maxAgeMs: number) {
    this.#at = at;
    this.#maxAgeMs = maxAgeMs;
  }

  get topic(): string {
    return this.#at.topic;
  }

  /** Whether the projection has a place for it: not while its topic was grown, and that is not confirmed. */
  get isProjected(): boolean {
    return this.#isProjected;
  }

  get applied(): bigint {
    return this.#applied;
  }

  noteApplied(nextOffset: bigint, nowMs: number): void {
    this.#isProjected = true;
    if (nextOffset < this.#applied)
      this.#unreached.unshift({ high: this.#applied, seenAtMs: nowMs, isFromBefore: true });
    // Somebody applies it, from the beginning or by an operator's word.
    if (nextOffset !== this.#applied) this.#shortSinceMs = null;
    this.#applied = nextOffset;
    this.#dropReached();
  }

  /** `appliedBefore`: what was known to be applied when the log was asked. What is applied later may lie beyond. */
  noteHigh(high: bigint, appliedBefore: bigint, { nowMs, isFirst }: { nowMs: number; isFirst: boolean }): void {
    this.#high = high;
    for (const seen of this.#unreached) if (seen.high > high) seen.high = high;
    this.#dropReached();
    if (high < appliedBefore) this.#shortSinceMs ??= nowMs;
    // A broker that has failed over may tell of less for a moment. Later it is another log, however long it grows.
    else if (this.#ageMs(nowMs) <= this.#maxAgeMs) this.#shortSinceMs = null;
    const last = this.#unreached.at(-1);
    if (high <= (last?.high ?? this.#applied)) return;
    if (last !== undefined && this.#unreached.length >= maxUnreached) last.high = high;
    else this.#unreached.push({ high, seenAtMs: nowMs, isFromBefore: isFirst });
  }

  /** Whether a record is applied for certain. */
  hasApplied(offset: bigint): boolean {
    return this.#shortSinceMs === null && this.#applied > offset;
  }

  isTooOld(nowMs: number): boolean {
    return this.#unreached[0]?.isFromBefore === true || this.#ageMs(nowMs) > this.#maxAgeMs;
  }

  freshness(nowMs: number): PartitionFreshness {
    const lag = this.#high > this.#applied ? this.#high - this.#applied : 0n;
    return { ...this.#at, lag, ageMs: this.#ageMs(nowMs) };
  }

  #ageMs(nowMs: number): number {
    return nowMs - Math.min(this.#unreached[0]?.seenAtMs ?? nowMs, this.#shortSinceMs ?? nowMs);
  }

  #dropReached(): void {
    while (this.#unreached[0] !== undefined && this.#unreached[0].high <= this.#applied) this.#unreached.shift();
  }
}
