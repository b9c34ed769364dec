import type { LogPosition } from '@realtime-service/contracts';
import type { NewRecord } from './event-log.ts';
import { maxRecordBytes } from './event-log.ts';

const maxBatchRecords = 500;

/** One call of `append`; its records may travel in several batches. */
export class AppendCall {
  readonly #answer = Promise.withResolvers<LogPosition[]>();
  /** The positions of its records, when all are durable. */
  readonly answer: Promise<LogPosition[]> = this.#answer.promise;
  readonly #positions: LogPosition[] = [];
  #unacknowledged: number;
  #isSettled = false;

  constructor(records: number) {
    this.#unacknowledged = records;
  }

  get isSettled(): boolean {
    return this.#isSettled;
  }

  acknowledge(index: number, position: LogPosition): void {
    this.#positions[index] = position;
    this.#unacknowledged -= 1;
    if (this.#unacknowledged > 0) return;
    this.#isSettled = true;
    this.#answer.resolve(this.#positions);
  }

  refuse(error: Error): void {
    this.#isSettled = true;
    this.#answer.reject(error);
  }
}

export interface PendingRecord {
  readonly record: NewRecord;
  readonly bytes: number;
  readonly call: AppendCall;
  /** Of its record in that call. */
  readonly index: number;
  /** At most so many travel in a batch that begins with it. */
  readonly batchRecords?: number;
}

/** What waits to be sent, in its order. */
export class PendingRecords {
  #records: PendingRecord[] = [];
  #bytes = 0;

  get records(): readonly PendingRecord[] {
    return this.#records;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(record: PendingRecord): void {
    this.#records.push(record);
    this.#bytes += record.bytes;
  }

  /** What was given up must not be written later: its caller sends all of it again, in order. */
  dropSettled(): void {
    this.#records = this.#records.filter(({ call }) => !call.isSettled);
    this.#bytes = bytesOf(this.#records);
  }

  takeBatch(): PendingRecord[] {
    const { batchRecords = maxBatchRecords } = this.#records[0] ?? {};
    let bytes = 0;
    const end = this.#records.findIndex((record, at) => {
      bytes += record.bytes;
      return at === batchRecords || (at > 0 && bytes > maxRecordBytes);
    });
    const batch = this.#records.splice(0, end === -1 ? this.#records.length : end);
    this.#bytes -= bytesOf(batch);
    return batch;
  }

  /** One of the batch, or all together, are too much for their topic. */
  putBackInHalves(batch: readonly PendingRecord[]): void {
    const batchRecords = Math.ceil(batch.length / 2);
    this.#records.unshift(...batch.map((record) => ({ ...record, batchRecords })));
    this.#bytes += bytesOf(batch);
  }
}

function bytesOf(records: readonly PendingRecord[]): number {
  return records.reduce((sum, { bytes }) => sum + bytes, 0);
}
