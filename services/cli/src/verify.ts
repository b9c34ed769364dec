import { randomUUID } from 'node:crypto';
import { topics } from '@realtime-service/contracts';
import { type EventLog, type LogBatch, partitionOf } from '@realtime-service/event-log';
import {
  activeProjection,
  beginSnapshot,
  type Client,
  Comparison,
  createModel,
  type Difference,
  type Model,
  readNextOffsets,
} from '@realtime-service/room-store';
import { applyDecoded, decodeRecord } from '@realtime-service/room-worker';
import { asCounted } from './as-counted.ts';
import { leftAlone, stopWithinMs } from './batch-outcomes.ts';
import { CommandError, defineCommand, type Terminal, type Workplace } from './command.ts';
import { plural } from './figures.ts';

const topic = topics.roomEvents;
const maxTold = 100;

interface Lane {
  readonly partition: number;
  readonly partitionCount: number;
  /** Where the tables stand. */
  readonly end: bigint;
}

/** Folds one partition from its beginning to where the tables stand. */
const foldPartition = async (
  log: EventLog,
  client: Client,
  lane: Lane,
  ending: AbortSignal,
): Promise<{ readonly model: Model; readonly misplaced: number }> => {
  const { partition, partitionCount, end } = lane;
  const model = createModel(client);
  let misplaced = 0;
  if (end === 0n) return { model, misplaced };
  const folded = Promise.withResolvers<void>();
  const fold = async ({ records, fetchedOffset, nextOffset, heartbeat }: LogBatch): Promise<void> => {
    const decoded = records.filter(({ offset }) => offset < end).map((stored) => decodeRecord(stored, partitionCount));
    misplaced += decoded.filter(({ isMisplaced }) => isMisplaced).length;
    const at = { projection: activeProjection, topic, partition };
    const stretch = { ...at, fetchedOffset, nextOffset: nextOffset < end ? nextOffset : end };
    await applyDecoded(model.store, { ...stretch, decoded: await asCounted(client, decoded) }, heartbeat);
    if (model.nextOffset() >= end) folded.resolve();
  };
  const consumer = log.consume({
    // Of its own: two that shared one would be given half of the partitions each.
    group: `realtime-verify-${randomUUID()}`,
    topics: [topic],
    onBatch: async (batch) => {
      const isOver = batch.partition !== partition || model.nextOffset() >= end;
      if (isOver) return leftAlone(batch.fetchedOffset);
      await fold(batch);
      return { kind: 'advance', nextOffset: batch.nextOffset };
    },
    startAt: async (assigned) => assigned.map((each) => ({ ...each, offset: 0n })),
  });
  const interrupted = (): void => folded.reject(new CommandError('Interrupted.'));
  ending.addEventListener('abort', interrupted, { once: true });
  // Before there was somebody to hear it.
  if (ending.aborted) interrupted();
  try {
    await Promise.race([folded.promise, consumer.done]);
  } finally {
    ending.removeEventListener('abort', interrupted);
    await consumer.stop(stopWithinMs);
  }
  return { model, misplaced };
};

const lineOf = ({ kind, table, key, field, stored, folded, storedBy, foldedBy }: Difference): string => {
  const row = `${table} ${key.map((part) => JSON.stringify(part)).join(' ')}`;
  switch (kind) {
    case 'missing':
      return `${row}: is missing; by the log it was last changed by ${foldedBy ?? 'nothing'}\n`;
    case 'extra':
      return `${row}: should not be there; it was last changed by ${storedBy ?? 'nothing'}\n`;
    case 'differs':
      return `${row}: ${field} is ${JSON.stringify(stored)}, by the log ${JSON.stringify(folded)} (changed by ${storedBy ?? 'nothing'}, by the log ${foldedBy ?? 'nothing'})\n`;
  }
};

const createReport = (terminal: Terminal, isJson: boolean) => {
  let count = 0;
  return {
    count: () => count,
    add: (difference: Difference): void => {
      count += 1;
      if (isJson) terminal.write(`${JSON.stringify(difference)}\n`);
      else if (count <= maxTold) terminal.write(lineOf(difference));
    },
  };
};

/** Where a partition has no position, or one beyond the log's end, there is nothing to fold. */
const positionDifference = (partition: number, stored: bigint | undefined, high: bigint): Difference => {
  const about = { table: 'log_positions', key: [topic, `${partition}`], storedBy: null, foldedBy: null };
  if (stored === undefined) return { ...about, kind: 'missing', field: null, stored: null, folded: null };
  return { ...about, kind: 'differs', field: 'next_offset', stored: `${stored}`, folded: `at most ${high}` };
};

interface Verified {
  readonly events: number;
  /** Records in another partition than their keys give. */
  readonly misplaced: number;
  readonly differences: number;
}

const verifyAt = async (client: Client, { log, terminal, ending }: Workplace, isJson: boolean): Promise<Verified> => {
  await beginSnapshot(client);
  const positions = await readNextOffsets(client, activeProjection, topic);
  const eventLog = await log(terminal.tell);
  const bounds = await eventLog.bounds(topic);
  const report = createReport(terminal, isJson);
  const comparison = new Comparison(client, {
    partitionOf: (key) => partitionOf(key, bounds.length),
    report: report.add,
  });
  let events = 0n;
  let misplaced = 0;
  for (const { partition, low, high } of bounds) {
    if (low > 0n)
      throw new CommandError(`Partition ${partition} of ${topic} begins at offset ${low}: nothing to compare with`);
    const end = positions.get(partition);
    if (end === undefined || end > high) {
      report.add(positionDifference(partition, end, high));
      continue;
    }
    terminal.tell(`Partition ${partition}: ${plural(end, 'event')}\n`);
    const lane = { partition, partitionCount: bounds.length, end };
    const folded = await foldPartition(eventLog, client, lane, ending);
    await comparison.compare(folded.model, { topic, partition });
    misplaced += folded.misplaced;
    events += end;
  }
  await comparison.finish(topic, bounds.length);
  return { events: Number(events), misplaced, differences: report.count() };
};

export const verifyCommand = defineCommand({
  name: 'verify',
  summary: 'Compare the tables with what the log says, row by row',
  positionals: '',
  options: { json: { type: 'boolean', description: 'One JSON object a line: each difference, then the result' } },
  details: [
    'Folds the topic of room events in memory, one partition after the other, to where the tables stand, and compares',
    'rooms, members, bans, users, ended logins, doubts, and identities of facts with the tables as they were when it began.',
    'Nothing is changed. Exit code 1 says that there are differences, or that it could not be done, or told, to the end.',
  ].join('\n'),
  examples: ['verify', 'verify --json'],
  run: async ({ values }, open) => {
    const workplace = open();
    const { pool, terminal } = workplace;
    const isJson = values.json ?? false;
    const client = await pool.connect();
    try {
      const result = await verifyAt(client, workplace, isJson);
      const { events, misplaced, differences } = result;
      if (differences > 0 && misplaced > 0)
        terminal.tell(
          `${plural(misplaced, 'record stands', 'records stand')} in other partitions than their keys give. In which order they were applied cannot be told: differences of their rooms and users may be none.\n`,
        );
      if (isJson) terminal.write(`${JSON.stringify(result)}\n`);
      else if (differences === 0) terminal.write(`The tables agree with the log: ${plural(events, 'event')}.\n`);
      else
        terminal.write(
          `${plural(differences, 'difference')} after ${plural(events, 'event')}${differences > maxTold ? `, ${maxTold} of them told` : ''}.\n`,
        );
      return differences === 0 ? 'done' : 'failed';
    } finally {
      client.release(true);
    }
  },
});
