import type { LogPosition, NewRecord } from './event-log.ts';
import { maxRecordBytes } from './event-log.ts';

const maxBatchRecords = 500;

/** One call of `append`; its letters may travel in several batches. */
export class Envelope {
  readonly #answer = Promise.withResolvers<LogPosition[]>();
  /** The positions of its letters, when all are delivered. */
  readonly answer: Promise<LogPosition[]> = this.#answer.promise;
  readonly #positions: LogPosition[] = [];
  #undelivered: number;
  #isSettled = false;

  constructor(letters: number) {
    this.#undelivered = letters;
  }

  get isSettled(): boolean {
    return this.#isSettled;
  }

  deliver(index: number, position: LogPosition): void {
    this.#positions[index] = position;
    this.#undelivered -= 1;
    if (this.#undelivered > 0) return;
    this.#isSettled = true;
    this.#answer.resolve(this.#positions);
  }

  refuse(error: Error): void {
    this.#isSettled = true;
    this.#answer.reject(error);
  }
}

export interface Letter {
  readonly record: NewRecord;
  readonly bytes: number;
  readonly envelope: Envelope;
  readonly index: number;
  /** At most so many travel in a batch that begins with it. */
  readonly batchRecords?: number;
}

/** What waits to be sent, in its order. */
export class LetterQueue {
  #letters: Letter[] = [];
  #bytes = 0;

  get letters(): readonly Letter[] {
    return this.#letters;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(letter: Letter): void {
    this.#letters.push(letter);
    this.#bytes += letter.bytes;
  }

  /** What was given up must not be written later: its caller sends all of it again, in order. */
  dropSettled(): void {
    this.#letters = this.#letters.filter(({ envelope }) => !envelope.isSettled);
    this.#bytes = bytesOf(this.#letters);
  }

  takeBatch(): Letter[] {
    const { batchRecords = maxBatchRecords } = this.#letters[0] ?? {};
    let bytes = 0;
    const end = this.#letters.findIndex((letter, at) => {
      bytes += letter.bytes;
      return at === batchRecords || (at > 0 && bytes > maxRecordBytes);
    });
    const batch = this.#letters.splice(0, end === -1 ? this.#letters.length : end);
    this.#bytes -= bytesOf(batch);
    return batch;
  }

  /** One of the batch, or all together, are too much for their topic. */
  putBackInHalves(batch: readonly Letter[]): void {
    const batchRecords = Math.ceil(batch.length / 2);
    this.#letters.unshift(...batch.map((letter) => ({ ...letter, batchRecords })));
    this.#bytes += bytesOf(batch);
  }
}

function bytesOf(letters: readonly Letter[]): number {
  return letters.reduce((sum, { bytes }) => sum + bytes, 0);
}
