/** The log in tables of PostgreSQL, for a machine without Kafka. */

import type { LogPosition } from '@realtime-service/contracts';
import type { Pool, PoolClient } from 'pg';
import { createAppenders, type Sender } from '../appender.ts';
import type { EventLog, NewRecord, PartitionBounds, WriteLog } from '../event-log.ts';
import { LogUnavailableError } from '../event-log.ts';
import { partitionOf } from '../partitioner.ts';
import { consumeEmbedded } from './embedded-consumer.ts';
import { appendedChannel } from './listener.ts';

export interface EmbeddedLogOptions {
  /** Owned by the caller. It should have a `connectionTimeoutMillis`; consuming holds one of its connections. */
  readonly pool: Pool;
  readonly writeLog: WriteLog;
}

const answerWithinMs = 5_000;

/** Tables and topics must exist: `prepareEmbeddedLog`. */
export function createEmbeddedLog({ pool, writeLog }: EmbeddedLogOptions): EventLog {
  // Without a listener an idle connection that dies would end the process, also after `close`.
  pool.on('error', (error) => writeLog('warn', 'an idle database connection failed', { error }));
  const appenders = createAppenders(async () => createSender(pool), writeLog);

  async function bounds(topic: string): Promise<PartitionBounds[]> {
    try {
      const { rows } = await withClient(pool, (client) =>
        client.query<{ partition: number; next_offset: string }>(
          'select partition, next_offset from log_heads where topic = $1 order by partition',
          [topic],
        ),
      );
      if (rows.length === 0) throw new Error('The topic does not exist');
      return rows.map(({ partition, next_offset }) => ({ partition, low: 0n, high: BigInt(next_offset) }));
    } catch (cause) {
      throw new LogUnavailableError(`The bounds of ${topic} cannot be read`, { cause });
    }
  }

  return {
    append: appenders.append,
    bounds,
    consume: (options) => consumeEmbedded({ pool, bounds, writeLog }, options),
    close: appenders.close,
  };
}

function createSender(pool: Pool): Sender {
  const partitionCounts = new Map<string, number>();

  async function append(client: PoolClient, records: readonly NewRecord[]): Promise<LogPosition[]> {
    const placed: PlacedRecord[] = [];
    for (const [index, record] of records.entries()) {
      const count = partitionCounts.get(record.topic) ?? (await countPartitions(client, record.topic));
      partitionCounts.set(record.topic, count);
      placed.push({ record, index, partition: partitionOf(record.key, count) });
    }
    const positions: LogPosition[] = [];
    await client.query('begin');
    for (const group of inLockOrder(placed)) {
      for (const [index, position] of await appendToPartition(client, group)) positions[index] = position;
    }
    await client.query('commit');
    // Inside the transaction all notifying ones would queue for one lock.
    await client.query(`notify ${appendedChannel}`);
    return positions;
  }

  return {
    send: (records) => withClient(pool, (client) => append(client, records)),
    close: async () => {},
  };
}

interface PlacedRecord {
  readonly record: NewRecord;
  readonly index: number;
  readonly partition: number;
}

/** Every writer takes the partitions' locks in this one order, of any release: two could wait for each other else. */
function inLockOrder(placed: readonly PlacedRecord[]): PlacedRecord[][] {
  const groups = Map.groupBy(placed, ({ record, partition }) => JSON.stringify([record.topic, partition]));
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
}

async function countPartitions(client: PoolClient, topic: string): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    'select count(*)::int as count from log_heads where topic = $1',
    [topic],
  );
  const count = rows[0]?.count ?? 0;
  if (count === 0) throw new Error(`The topic ${topic} does not exist`);
  return count;
}

/**
 * The head's row lock is held until the commit, so offsets become visible in their order and without gaps. A sequence
 * would not do: commit order differs from id order, and a reader by id loses records.
 */
async function appendToPartition(
  client: PoolClient,
  group: readonly PlacedRecord[],
): Promise<[index: number, position: LogPosition][]> {
  const [first] = group;
  if (first === undefined) return [];
  const {
    record: { topic },
    partition,
  } = first;
  const { rows } = await client.query<{ first_offset: string }>(
    `with head as (
       update log_heads set next_offset = next_offset + $3
        where topic = $1 and partition = $2
       returning next_offset - $3 as first_offset, clock_timestamp() as now
     ), written as (
       insert into log_records (topic, partition, "offset", appended_at, key, value, headers)
       select $1, $2, first_offset + place - 1, now, key, value, headers
         from head, unnest($4::bytea[], $5::bytea[], $6::json[]) with ordinality as given (key, value, headers, place)
     )
     select first_offset from head`,
    [
      topic,
      partition,
      group.length,
      group.map(({ record }) => (record.key === null ? null : Buffer.from(record.key))),
      group.map(({ record }) => record.value),
      group.map(({ record }) => encodeHeaders(record.headers)),
    ],
  );
  const firstOffset = rows[0]?.first_offset;
  if (firstOffset === undefined) throw new Error(`Partition ${partition} of ${topic} does not exist`);
  return group.map(({ index }, i) => [index, { topic, partition, offset: BigInt(firstOffset) + BigInt(i) }]);
}

function encodeHeaders(headers: NewRecord['headers']): string {
  const encoded = Object.entries(headers).map(([name, value]) => [name, Buffer.from(value).toString('base64')]);
  return JSON.stringify(Object.fromEntries(encoded));
}

/** Runs `work` on a connection that is destroyed when it fails or takes too long, which also rolls back. */
async function withClient<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let isReleased = false;
  const release = (error?: Error): void => {
    if (isReleased) return;
    isReleased = true;
    clearTimeout(deadline);
    client.off('error', release);
    client.release(error);
  };
  const deadline = setTimeout(() => release(new Error(`No answer within ${answerWithinMs} ms`)), answerWithinMs);
  // Without a listener a connection that dies between two queries would end the process.
  client.on('error', release);
  try {
    const result = await work(client);
    release();
    return result;
  } catch (error) {
    release(new Error('The transaction failed', { cause: error }));
    throw error;
  }
}
