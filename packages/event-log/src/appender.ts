import { setTimeout as sleep } from 'node:timers/promises';
import type { LogPosition } from '@realtime-service/contracts';
import type { NewRecord, WriteLog } from './event-log.ts';
import { LogUnavailableError, maxRecordBytes, RecordTooLargeError } from './event-log.ts';
import { AppendCall, type PendingRecord, PendingRecords } from './pending-records.ts';

/** One connection to the log. It is thrown away after a failed `send`. */
export interface Sender {
  /** Resolves with one position per record, in the order given, when all are durable. */
  readonly send: (records: readonly NewRecord[]) => Promise<LogPosition[]>;
  readonly close: () => Promise<void>;
}

export interface Appender {
  /** As `EventLog.append`. */
  readonly append: (records: readonly NewRecord[], timeoutMs: number) => Promise<LogPosition[]>;
  /** Refuses what still waits, lets the outstanding `send` finish, and closes the connection. */
  readonly close: () => Promise<void>;
}

const maxWaitingBytes = 64 * 1024 * 1024;
const reopenAfterMs = 100;
/** Per record: lengths, timestamps and what headers cost beyond their bytes. */
const recordOverheadBytes = 64;

/** An appender for each topic: what one topic refuses, and tries again meanwhile, keeps no other waiting. */
export function createAppenders(open: () => Promise<Sender>, writeLog: WriteLog): Appender {
  const appenders = new Map<string, Appender>();
  let isClosed = false;

  function appenderOf(topic: string): Appender {
    const appender = appenders.get(topic) ?? createAppender(open, writeLog);
    appenders.set(topic, appender);
    return appender;
  }

  async function append(records: readonly NewRecord[], timeoutMs: number): Promise<LogPosition[]> {
    if (isClosed) throw new LogUnavailableError('The log is closed');
    const positions: LogPosition[] = [];
    const ofTopics = Map.groupBy(records.entries(), ([, { topic }]) => topic);
    await Promise.all(
      [...ofTopics].map(async ([topic, ofTopic]) => {
        const written = await appenderOf(topic).append(
          ofTopic.map(([, record]) => record),
          timeoutMs,
        );
        for (const [at, [index]] of ofTopic.entries()) positions[index] = written[at] as LogPosition;
      }),
    );
    return positions;
  }

  async function close(): Promise<void> {
    isClosed = true;
    await Promise.all([...appenders.values()].map((appender) => appender.close()));
  }

  return { append, close };
}

/**
 * The one way to append to a topic: at most one `send` is outstanding, its retries included, and what waits meanwhile
 * forms the next batch. With two sends outstanding an idempotent kafkajs producer gives a record the sequence number of
 * one whose acknowledgement was lost; the broker takes it for a repeat and acknowledges what it never wrote.
 */
export function createAppender(open: () => Promise<Sender>, writeLog: WriteLog): Appender {
  const pending = new PendingRecords();
  let sender: Sender | undefined;
  let draining: Promise<void> | undefined;
  let lastError: unknown;

  async function append(records: readonly NewRecord[], timeoutMs: number): Promise<LogPosition[]> {
    const sizes = records.map(recordBytes);
    const totalBytes = sizes.reduce((sum, bytes) => sum + bytes, 0);
    if (sizes.some((bytes) => bytes > maxRecordBytes)) {
      throw new RecordTooLargeError(`A record is larger than ${maxRecordBytes} bytes`);
    }
    if (pending.bytes + totalBytes > maxWaitingBytes) {
      throw new LogUnavailableError('Too many records wait for the log', { cause: lastError });
    }

    const call = new AppendCall(records.length);
    const deadline = setTimeout(() => {
      call.refuse(new LogUnavailableError(`No acknowledgement within ${timeoutMs} ms`, { cause: lastError }));
    }, timeoutMs);
    for (const [index, record] of records.entries()) pending.add({ record, bytes: sizes[index] ?? 0, call, index });
    draining ??= drain();
    return call.answer.finally(() => clearTimeout(deadline));
  }

  async function drain(): Promise<void> {
    while (pending.records.length > 0) {
      sender ??= await tryOpen();
      if (sender === undefined) await sleep(reopenAfterMs);
      pending.dropSettled();
      if (sender !== undefined && pending.records.length > 0) await sendBatch(sender, pending.takeBatch());
    }
    draining = undefined;
  }

  async function tryOpen(): Promise<Sender | undefined> {
    try {
      return await open();
    } catch (error) {
      lastError = error;
      writeLog('warn', 'the log cannot be reached for appending', { error });
      return undefined;
    }
  }

  async function sendBatch(current: Sender, batch: readonly PendingRecord[]): Promise<void> {
    try {
      const positions = await current.send(batch.map(({ record }) => record));
      if (positions.length < batch.length) throw new Error('The log acknowledged fewer records than were sent');
      lastError = undefined;
      for (const [at, { call, index }] of batch.entries()) call.acknowledge(index, positions[at] as LogPosition);
    } catch (error) {
      lastError = error;
      sender = undefined;
      writeLog('warn', 'appending failed, a new connection will be made', { error, records: batch.length });
      closeBroken(current);
      const isTooLarge = error instanceof RecordTooLargeError;
      if (isTooLarge && batch.length > 1) return pending.putBackInHalves(batch);
      const reason = isTooLarge ? error : new LogUnavailableError('The log did not take the records', { cause: error });
      for (const { call } of batch) call.refuse(reason);
    }
  }

  function closeBroken(broken: Sender): void {
    broken.close().catch((error: unknown) => {
      writeLog('debug', 'a broken connection did not close cleanly', { error });
    });
  }

  async function close(): Promise<void> {
    for (const { call } of pending.records) call.refuse(new LogUnavailableError('The log is being closed'));
    await draining;
    await sender?.close();
  }

  return { append, close };
}

/** What counts against {@link maxRecordBytes}. */
export function recordBytes(record: NewRecord): number {
  let bytes = recordOverheadBytes + Buffer.byteLength(record.key ?? '') + (record.value?.length ?? 0);
  for (const [name, value] of Object.entries(record.headers)) {
    bytes += Buffer.byteLength(name) + Buffer.byteLength(value);
  }
  return bytes;
}
