import { allTopics, type LogPosition } from '@realtime-service/contracts';
import {
  type EventLog,
  LogUnavailableError,
  type NewRecord,
  partitionOf,
  type StoredRecord,
} from '@realtime-service/event-log';
import type { Scheduler, SimulatedProcess } from './scheduler.ts';

export const partitionCount = 3;

/** A log that never loses what it has acknowledged. Partitions are read as whole lists. */
export class SimulatedLog {
  readonly #scheduler: Scheduler;
  readonly #partitions = new Map<string, StoredRecord[][]>();
  /** Told of each record. */
  onAppend: (record: StoredRecord) => void = () => {};

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
    for (const topic of allTopics)
      this.#partitions.set(
        topic,
        Array.from({ length: partitionCount }, () => []),
      );
  }

  records(topic: string, partition: number): readonly StoredRecord[] {
    return this.#partitions.get(topic)?.[partition] ?? [];
  }

  append({ topic, key, value, headers }: NewRecord): LogPosition {
    const partition = partitionOf(key === null ? null : Buffer.from(key), partitionCount);
    const records = this.#partitions.get(topic)?.[partition];
    if (records === undefined) throw new Error(`the topic ${topic} does not exist`);
    const record: StoredRecord = {
      topic,
      partition,
      offset: BigInt(records.length),
      timestampMs: this.#scheduler.nowMs,
      key: key === null ? null : Buffer.from(key),
      value,
      headers: Object.fromEntries(Object.entries(headers).map(([name, bytes]) => [name, Buffer.from(bytes)])),
    };
    records.push(record);
    this.onAppend(record);
    return { topic, partition, offset: record.offset };
  }

  /** As one process reaches it: an append that fails may have been written. */
  connect(process: SimulatedProcess): EventLog {
    const wait = (point: string): Promise<void> =>
      this.#scheduler.wait(process, point, () => new LogUnavailableError('the log does not answer'));
    return {
      append: async (records) => {
        await wait('before append');
        const positions = records.map((record) => this.append(record));
        await wait('after append');
        return positions;
      },
      bounds: async (topic) => {
        await wait('before bounds');
        const bounds = (this.#partitions.get(topic) ?? []).map(({ length }, partition) => ({
          partition,
          low: 0n,
          high: BigInt(length),
        }));
        await wait('after bounds');
        return bounds;
      },
      consume: () => {
        throw new Error('the simulation fetches itself');
      },
      close: async () => {},
    };
  }
}
