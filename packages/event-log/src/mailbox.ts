import { setTimeout as sleep } from 'node:timers/promises';
import type { LogPosition, NewRecord, WriteLog } from './event-log.ts';
import { LogUnavailableError, maxRecordBytes, RecordTooLargeError } from './event-log.ts';
import { Envelope, type Letter, LetterQueue } from './letter-queue.ts';

/** One connection to the log. It is thrown away after a failed `send`. */
export interface Sender {
  /** Resolves with one position per record, in the order given, when all are durable. */
  readonly send: (records: readonly NewRecord[]) => Promise<LogPosition[]>;
  readonly close: () => Promise<void>;
}

export interface Mailbox {
  /** As `EventLog.append`. */
  readonly append: (records: readonly NewRecord[], timeoutMs: number) => Promise<LogPosition[]>;
  /** Refuses what still waits, lets the outstanding `send` finish, and closes the connection. */
  readonly close: () => Promise<void>;
}

const maxWaitingBytes = 64 * 1024 * 1024;
const reopenAfterMs = 100;
/** Per record: lengths, timestamps and what headers cost beyond their bytes. */
const recordOverheadBytes = 64;

/** A mailbox for each topic: what one topic refuses, and tries again meanwhile, keeps no other waiting. */
export function createMailboxes(open: () => Promise<Sender>, writeLog: WriteLog): Mailbox {
  const mailboxes = new Map<string, Mailbox>();
  let isClosed = false;

  function mailboxOf(topic: string): Mailbox {
    const mailbox = mailboxes.get(topic) ?? createMailbox(open, writeLog);
    mailboxes.set(topic, mailbox);
    return mailbox;
  }

  async function append(records: readonly NewRecord[], timeoutMs: number): Promise<LogPosition[]> {
    if (isClosed) throw new LogUnavailableError('The log is closed');
    const positions: LogPosition[] = [];
    const ofTopics = Map.groupBy(records.entries(), ([, { topic }]) => topic);
    await Promise.all(
      [...ofTopics].map(async ([topic, ofTopic]) => {
        const written = await mailboxOf(topic).append(
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
    await Promise.all([...mailboxes.values()].map((mailbox) => mailbox.close()));
  }

  return { append, close };
}

/**
 * The one way to append to a topic: at most one `send` is outstanding, its retries included, and what waits meanwhile
 * forms the next batch. With two sends outstanding an idempotent kafkajs producer gives a record the sequence number of
 * one whose acknowledgement was lost; the broker takes it for a repeat and acknowledges what it never wrote.
 */
export function createMailbox(open: () => Promise<Sender>, writeLog: WriteLog): Mailbox {
  const queue = new LetterQueue();
  let sender: Sender | undefined;
  let delivery: Promise<void> | undefined;
  let lastError: unknown;
  let isClosed = false;

  async function append(records: readonly NewRecord[], timeoutMs: number): Promise<LogPosition[]> {
    const sizes = records.map(recordBytes);
    const totalBytes = sizes.reduce((sum, bytes) => sum + bytes, 0);
    if (sizes.some((bytes) => bytes > maxRecordBytes)) {
      throw new RecordTooLargeError(`A record is larger than ${maxRecordBytes} bytes`);
    }
    if (isClosed) throw new LogUnavailableError('The log is closed');
    if (queue.bytes + totalBytes > maxWaitingBytes) {
      throw new LogUnavailableError('Too many records wait for the log', { cause: lastError });
    }
    if (records.length === 0) return [];

    const envelope = new Envelope(records.length);
    const deadline = setTimeout(() => {
      envelope.refuse(new LogUnavailableError(`No acknowledgement within ${timeoutMs} ms`, { cause: lastError }));
    }, timeoutMs);
    for (const [index, record] of records.entries()) queue.add({ record, bytes: sizes[index] ?? 0, envelope, index });
    delivery ??= deliver();
    return envelope.answer.finally(() => clearTimeout(deadline));
  }

  async function deliver(): Promise<void> {
    while (queue.letters.length > 0) {
      sender ??= await tryOpen();
      if (sender === undefined) await sleep(reopenAfterMs);
      queue.dropSettled();
      if (sender !== undefined && queue.letters.length > 0) await sendBatch(sender, queue.takeBatch());
    }
    delivery = undefined;
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

  async function sendBatch(current: Sender, letters: readonly Letter[]): Promise<void> {
    try {
      const positions = await current.send(letters.map(({ record }) => record));
      if (positions.length < letters.length) throw new Error('The log acknowledged fewer records than were sent');
      lastError = undefined;
      for (const [at, { envelope, index }] of letters.entries()) envelope.deliver(index, positions[at] as LogPosition);
    } catch (error) {
      lastError = error;
      sender = undefined;
      writeLog('warn', 'appending failed, a new connection will be made', { error, records: letters.length });
      closeBroken(current);
      const isTooLarge = error instanceof RecordTooLargeError;
      if (isTooLarge && letters.length > 1) return queue.putBackInHalves(letters);
      const reason = isTooLarge ? error : new LogUnavailableError('The log did not take the records', { cause: error });
      for (const { envelope } of letters) envelope.refuse(reason);
    }
  }

  function closeBroken(broken: Sender): void {
    broken.close().catch((error: unknown) => {
      writeLog('debug', 'a broken connection did not close cleanly', { error });
    });
  }

  async function close(): Promise<void> {
    isClosed = true;
    for (const { envelope } of queue.letters) envelope.refuse(new LogUnavailableError('The log is being closed'));
    await delivery;
    await sender?.close();
    sender = undefined;
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
