import type { LogPosition } from '@realtime-service/contracts';
import {
  type EventLog,
  LogUnavailableError,
  maxRecordBytes,
  type NewRecord,
  RecordTooLargeError,
  recordBytes,
} from '@realtime-service/event-log';

/** The log's appending side, in memory, as the port promises it. */
export interface FakeLog extends EventLog {
  readonly appended: readonly NewRecord[];
  /** From now on: nothing acknowledges. */
  readonly goAway: () => void;
}

export const createFakeLog = (): FakeLog => {
  const appended: NewRecord[] = [];
  let isAway = false;
  return {
    appended,
    goAway: () => {
      isAway = true;
    },
    append: async (records, timeoutMs): Promise<LogPosition[]> => {
      if (records.some((record) => recordBytes(record) > maxRecordBytes)) throw new RecordTooLargeError('too large');
      if (isAway)
        return new Promise((_, reject) => {
          setTimeout(() => reject(new LogUnavailableError(`No acknowledgement within ${timeoutMs} ms`)), timeoutMs);
        });
      return records.map((record) => {
        appended.push(record);
        return { topic: record.topic, partition: 0, offset: BigInt(appended.length - 1) };
      });
    },
    bounds: async () => [],
    consume: () => {
      throw new Error('nothing is consumed here');
    },
    close: async () => undefined,
  };
};
