import type { LogPosition } from '@realtime-service/contracts';
import type { Pool } from 'pg';
import type { RecordHeaders, StoredRecord } from '../event-log.ts';

const maxBatchBytes = 1024 * 1024;
/** In base64; what is unique to a record (its id, its time, its trace) is longer. */
const maxSharedLength = 24;

interface RecordRow {
  readonly offset: string;
  readonly timestamp_ms: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  /** In base64, until they are decoded. */
  readonly headers: Record<string, string | Buffer>;
}

/** Those from the position on, as many as may come at once. A record above the limit of bytes comes alone. */
export async function readRecords(
  pool: Pool,
  { topic, partition, offset: from }: LogPosition,
  maxRecords: number,
): Promise<StoredRecord[]> {
  const { rows } = await pool.query<RecordRow>(
    `select "offset", floor(round(date_part('epoch', appended_at) * 1e6) / 1e3) as timestamp_ms, key, value, headers
       from (select *, sum(coalesce(octet_length(value), 0)) over (order by "offset" rows unbounded preceding) as bytes
               from (select * from log_records
                      where topic = $1 and partition = $2 and "offset" >= $3
                      order by "offset" limit $4) next) sized
      where bytes <= $5 or "offset" = $3
      order by "offset"`,
    [topic, partition, String(from), maxRecords, maxBatchBytes],
  );
  const decodeHeaders = createHeaderDecoder();
  return rows.map(({ offset, timestamp_ms, key, value, headers }) => ({
    topic,
    partition,
    offset: BigInt(offset),
    timestampMs: timestamp_ms,
    key,
    value,
    headers: decodeHeaders(headers),
  }));
}

/** Most headers say the same in every record of a batch: those that do share their bytes. */
function createHeaderDecoder(): (headers: RecordRow['headers']) => RecordHeaders {
  const known = new Map<string, Buffer>();
  const decode = (base64: string): Buffer => {
    if (base64.length > maxSharedLength) return Buffer.from(base64, 'base64');
    let bytes = known.get(base64);
    if (bytes === undefined) {
      bytes = Buffer.from(base64, 'base64');
      known.set(base64, bytes);
    }
    return bytes;
  };
  return (headers) => {
    // In place: it is nobody else's, and a log that is read from its beginning has millions of them.
    for (const [name, base64] of Object.entries(headers)) headers[name] = decode(base64 as string);
    return headers as RecordHeaders;
  };
}
