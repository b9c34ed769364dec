import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createAppender, createAppenders, recordBytes, type Sender } from './appender.ts';
import { LogUnavailableError, maxRecordBytes, type NewRecord, RecordTooLargeError } from './event-log.ts';

const silent = (): void => undefined;
const record = (key: string, bytes = 1): NewRecord => ({ topic: 't', key, value: Buffer.alloc(bytes), headers: {} });
const keysOf = (records: readonly NewRecord[]): string[] => records.map(({ key }) => String(key));

/** A log in memory whose sends finish only when the test says so. */
function createFakeLog() {
  const written: string[] = [];
  const sends: { keys: string[]; finish: () => void; fail: (error: Error) => void }[] = [];
  let opened = 0;
  let closed = 0;
  const open = async (): Promise<Sender> => {
    opened += 1;
    return {
      send: async (records) => {
        const answer = Promise.withResolvers<void>();
        sends.push({ keys: keysOf(records), finish: answer.resolve, fail: answer.reject });
        await answer.promise;
        return records.map(({ topic, key }) => {
          written.push(String(key));
          return { topic, partition: 0, offset: BigInt(written.length - 1) };
        });
      },
      close: async () => {
        closed += 1;
      },
    };
  };
  const nthSend = (n: number) =>
    vi.waitFor(() => {
      const send = sends[n];
      if (send === undefined) throw new Error(`send ${n} has not begun`);
      return send;
    });
  return { open, written, sends, nthSend, counts: () => ({ opened, closed }) };
}

describe('createAppender', () => {
  it('has one send outstanding, and what waits meanwhile travels together and in order', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const first = appender.append([record('a')], 5_000);
    await log.nthSend(0);
    const second = appender.append([record('b'), record('c')], 5_000);
    const third = appender.append([record('d')], 5_000);
    expect(log.sends).toHaveLength(1);

    (await log.nthSend(0)).finish();
    (await log.nthSend(1)).finish();

    expect(await first).toMatchObject([{ offset: 0n }]);
    expect(await second).toMatchObject([{ offset: 1n }, { offset: 2n }]);
    expect(await third).toMatchObject([{ offset: 3n }]);
    expect(log.sends.map(({ keys }) => keys)).toEqual([['a'], ['b', 'c', 'd']]);
  });

  it('rejects those in a failed send, throws the connection away, and serves the next over a new one', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const cause = new Error('connection cut');
    const lost = ['lost', 'lost as well'].map((key) => appender.append([record(key)], 5_000));
    const refusal = expect.objectContaining({ name: 'LogUnavailableError', cause });
    const failed = Promise.all(lost.map((append) => expect(append).rejects.toThrow(refusal)));
    const waiting = log.nthSend(0).then(() => appender.append([record('next')], 5_000));
    (await log.nthSend(0)).fail(cause);
    await failed;
    (await log.nthSend(1)).finish();
    await waiting;
    expect(log.written).toEqual(['next']);
    expect(log.counts()).toEqual({ opened: 2, closed: 1 });
  });

  it('never writes the rest of an append whose first batch failed', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const large = Array.from({ length: 600 }, (_, i) => record(`k${i}`));
    const append = expect(appender.append(large, 5_000)).rejects.toThrow(LogUnavailableError);
    const other = appender.append([record('other')], 5_000);
    const { keys, fail } = await log.nthSend(0);
    expect(keys).toHaveLength(500);
    fail(new Error('cut'));
    await append;
    (await log.nthSend(1)).finish();
    await other;
    expect(log.written).toEqual(['other']);
  });

  it('splits by count and by bytes, and resolves with the positions in the order given', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const half = maxRecordBytes / 2;
    const append = appender.append([record('a', half), record('b', half), record('c', 10)], 5_000);
    (await log.nthSend(0)).finish();
    (await log.nthSend(1)).finish();
    expect(await append).toMatchObject([{ offset: 0n }, { offset: 1n }, { offset: 2n }]);
    expect(log.sends.map(({ keys }) => keys)).toEqual([['a'], ['b', 'c']]);
  });

  it('rejects at its own deadline although the send goes on, and does not send what was given up', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const stuck = expect(appender.append([record('stuck')], 20)).rejects.toThrow(LogUnavailableError);
    await log.nthSend(0);
    const givenUp = expect(appender.append([record('given up')], 20)).rejects.toThrow('within 20 ms');
    await Promise.all([stuck, givenUp]);
    const patient = appender.append([record('patient')], 5_000);
    (await log.nthSend(0)).finish();
    (await log.nthSend(1)).finish();
    await patient;
    expect(log.written).toEqual(['stuck', 'patient']);
  });

  it('keeps trying to connect until the deadline, whose error names the cause', async () => {
    const log = createFakeLog();
    const refusal = new Error('connection refused');
    let attempts = 0;
    const appender = createAppender(async () => {
      attempts += 1;
      if (attempts < 3) throw refusal;
      return log.open();
    }, silent);
    const hasty = expect(appender.append([record('hasty')], 20)).rejects.toMatchObject({ cause: refusal });
    const patient = appender.append([record('patient')], 5_000);
    await hasty;
    (await log.nthSend(0)).finish();
    await patient;
    expect(log.written).toEqual(['patient']);
  });

  it('treats a missing acknowledgement as a failure', async () => {
    const sender: Sender = {
      send: async () => [{ topic: 't', partition: 0, offset: 0n }],
      close: async () => Promise.reject(new Error('broken as well')),
    };
    const appender = createAppender(async () => sender, silent);
    await expect(appender.append([record('a'), record('b')], 5_000)).rejects.toThrow(LogUnavailableError);
  });

  it('names what failed last to those who wait in vain, unless it has gone well since', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const cause = new Error('connection cut');
    const failed = expect(appender.append([record('failed')], 5_000)).rejects.toMatchObject({ cause });
    (await log.nthSend(0)).fail(cause);
    await failed;
    await expect(appender.append([record('late')], 20)).rejects.toMatchObject({ cause });
    (await log.nthSend(1)).finish();
    await expect(appender.append([record('late again')], 20)).rejects.toMatchObject({ cause: undefined });
  });

  it('starts again for an append made the moment after the last one ended', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    for (const depth of [0, 1, 2, 3, 4, 5]) {
      const append = appender.append([record(`r${depth}`)], 5_000);
      (await log.nthSend(depth)).finish();
      await append;
      for (let i = 0; i < depth; i += 1) await Promise.resolve();
    }
    expect(log.written).toHaveLength(6);
  });

  it('refuses a record that is too large before anything is written, and too much that waits', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const tooLarge = appender.append([record('small'), record('large', maxRecordBytes)], 5_000);
    await expect(tooLarge).rejects.toThrow(RecordTooLargeError);
    expect(log.sends).toHaveLength(0);

    const filling = Array.from({ length: 67 }, (_, i) => appender.append([record(`f${i}`, 999_000)], 100));
    await expect(appender.append([record('above', 999_000)], 100)).rejects.toThrow('Too many records');
    await Promise.allSettled(filling);

    // What was given up waits no more.
    (await log.nthSend(0)).finish();
    const next = vi.waitFor(() => appender.append([record('n0', 999_000), record('n1', 999_000)], 5_000));
    (await log.nthSend(1)).finish();
    (await log.nthSend(2)).finish();
    await next;
  });

  it('rejects an append whose last batch failed', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const half = maxRecordBytes / 2;
    const append = appender.append([record('a', half), record('b', half)], 5_000);
    const failed = expect(append).rejects.toThrow(LogUnavailableError);
    (await log.nthSend(0)).finish();
    (await log.nthSend(1)).fail(new Error('cut'));
    await failed;
  });

  it('sends a batch that is refused by its size in halves, down to the record that is too large', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const refusal = new RecordTooLargeError('the topic takes less');
    const appends = ['a', 'b', 'large', 'c'].map((key) => appender.append([record(key)], 5_000));
    const settled = Promise.allSettled(appends);
    (await log.nthSend(0)).fail(refusal);
    (await log.nthSend(1)).finish();
    (await log.nthSend(2)).fail(refusal);
    (await log.nthSend(3)).fail(refusal);
    (await log.nthSend(4)).finish();
    expect(log.sends.map(({ keys }) => keys.join(' '))).toEqual(['a b large c', 'a b', 'large c', 'large', 'c']);
    expect(await settled).toMatchObject([
      { value: [{ offset: 0n }] },
      { value: [{ offset: 1n }] },
      { reason: refusal },
      { value: [{ offset: 2n }] },
    ]);
  });

  it('sends them before what waited behind them, so that an append keeps its order', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const append = appender.append([record('a'), record('b'), record('c', maxRecordBytes - 100)], 5_000);
    (await log.nthSend(0)).fail(new RecordTooLargeError('the topic takes less'));
    for (const n of [1, 2, 3]) (await log.nthSend(n)).finish();
    await append;
    expect(log.sends.map(({ keys }) => keys.join(' '))).toEqual(['a b', 'a', 'b', 'c']);
  });

  it('never writes what follows a record that is too large in one append', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const refusal = new RecordTooLargeError('the topic takes less');
    const refused = expect(appender.append([record('large'), record('rest')], 5_000)).rejects.toThrow(refusal);
    (await log.nthSend(0)).fail(refusal);
    (await log.nthSend(1)).fail(refusal);
    await refused;
    const next = appender.append([record('next')], 5_000);
    (await log.nthSend(2)).finish();
    await next;
    expect(log.written).toEqual(['next']);
  });

  it('keeps no deadline of what was acknowledged', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    const log = createFakeLog();
    const sent = createAppender(log.open, silent).append([record('a')], 5_000);
    (await log.nthSend(0)).finish();
    await sent;
    expect(vi.getTimerCount()).toBe(0);
  });

  it('lets the outstanding send finish when it closes, and refuses the rest', async () => {
    const log = createFakeLog();
    const appender = createAppender(log.open, silent);
    const sent = appender.append([record('sent')], 5_000);
    const send = await log.nthSend(0);
    const waiting = expect(appender.append([record('waiting')], 5_000)).rejects.toThrow(LogUnavailableError);
    const closed = appender.close();
    await waiting;
    send.finish();
    await Promise.all([sent, closed]);
    expect(log.written).toEqual(['sent']);
    expect(log.counts()).toEqual({ opened: 1, closed: 1 });
  });
});

it('of a record, key, value and headers count by their bytes', () => {
  const empty: NewRecord = { topic: 't', key: null, value: null, headers: {} };
  const full: NewRecord = { topic: 't', key: 'é', value: Buffer.alloc(30), headers: { name: 'é€' } };
  expect(recordBytes(empty)).toBe(64);
  expect(recordBytes(full)).toBe(64 + 2 + 30 + 4 + 5);
});

describe('createAppenders', () => {
  const recordOf = (topic: string, key: string): NewRecord => ({ ...record(key), topic });

  it('keeps no topic waiting for another', async () => {
    const log = createFakeLog();
    const appenders = createAppenders(log.open, silent);
    const stuck = expect(appenders.append([recordOf('missing', 'stuck')], 5_000)).rejects.toThrow(LogUnavailableError);
    await log.nthSend(0);
    const other = appenders.append([recordOf('other', 'other')], 5_000);
    (await log.nthSend(1)).finish();
    expect(await other).toMatchObject([{ topic: 'other' }]);
    (await log.nthSend(0)).fail(new Error('no such topic'));
    await stuck;
  });

  it('answers for several topics in the order given', async () => {
    const log = createFakeLog();
    const appenders = createAppenders(log.open, silent);
    const append = appenders.append([recordOf('t', 'a'), recordOf('u', 'b'), recordOf('t', 'c')], 5_000);
    (await log.nthSend(0)).finish();
    (await log.nthSend(1)).finish();
    expect((await append).map(({ topic }) => topic)).toEqual(['t', 'u', 't']);
    expect(log.sends.map(({ keys }) => keys)).toEqual([['a', 'c'], ['b']]);
  });

  it('has one send of a topic outstanding, over one connection, and closes it', async () => {
    const log = createFakeLog();
    const appenders = createAppenders(log.open, silent);
    const first = appenders.append([recordOf('t', 'a')], 5_000);
    const second = log.nthSend(0).then(() => appenders.append([recordOf('t', 'b')], 5_000));
    (await log.nthSend(0)).finish();
    (await log.nthSend(1)).finish();
    await Promise.all([first, second]);
    await appenders.close();
    expect(log.counts()).toEqual({ opened: 1, closed: 1 });
  });

  it('takes nothing more after it was closed', async () => {
    const log = createFakeLog();
    const appenders = createAppenders(log.open, silent);
    await appenders.close();
    await expect(appenders.append([recordOf('t', 'late')], 5_000)).rejects.toThrow('closed');
    expect(log.counts()).toEqual({ opened: 0, closed: 0 });
  });
});
