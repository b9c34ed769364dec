interface FetchedMessage {
  readonly offset: string;
  isControlRecord: boolean;
  readonly batchContext: { readonly producerId: string; readonly inTransaction: boolean };
}

/** What a broker answers of a partition, as kafkajs has decoded it. */
export interface FetchedPartition {
  readonly partition: number;
  /** Where what can be read ends: at the first open transaction, else where the log does. */
  readonly lastStableOffset: string;
  abortedTransactions: readonly { readonly producerId: string; readonly firstOffset: string }[];
  readonly messages: readonly FetchedMessage[];
}

const isUpTo = (offset: string, limit: string): boolean => BigInt(offset) <= BigInt(limit);

/**
 * Hides the records of aborted transactions as markers are hidden, which keeps their offsets. kafkajs' own filter reads
 * the list of them in the order in which they ended, and no more than one at each record, so that it shows records of
 * those that were open at once; and it takes any record with a key of four zeros for a marker.
 */
export function hideAborted(partition: FetchedPartition): void {
  const toBegin = [...partition.abortedTransactions].sort((a, b) => (isUpTo(a.firstOffset, b.firstOffset) ? -1 : 1));
  if (toBegin.length === 0) return;
  const aborted = new Set<string>();
  for (const message of partition.messages) {
    for (let [next] = toBegin; next !== undefined && isUpTo(next.firstOffset, message.offset); [next] = toBegin) {
      aborted.add(next.producerId);
      toBegin.shift();
    }
    const { producerId, inTransaction } = message.batchContext;
    if (!message.isControlRecord) message.isControlRecord = inTransaction && aborted.has(producerId);
    // A marker: one of a commit ends none that was aborted, for a producer has one at a time.
    else aborted.delete(producerId);
  }
  partition.abortedTransactions = [];
}
