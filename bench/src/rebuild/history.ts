import { createHash } from 'node:crypto';
import { type RoomEvent, type RoomEventType, toBinaryHeaders, topics } from '@realtime-service/contracts';
import { partitionOf } from '@realtime-service/event-log';
import type { Pool } from '@realtime-service/room-store';
import { createChance } from '../worker/records.ts';

const topic = topics.roomEvents;
const eventsPerRoom = 50;
const repeatedShare = 0.01;
const deadShare = 0.001;
const recordsPerInsert = 5_000;
/** An arbitrary moment; the whole history lies within a week, so that every id must be remembered. */
const epochMs = Date.UTC(2026, 0, 1);

interface Written {
  readonly key: string;
  readonly value: string;
  readonly headers: string;
}

const uuidOf = (name: string): string =>
  createHash('sha256')
    .update(name)
    .digest('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*/, '$1-$2-$3-$4-$5');

const writtenOf = (at: number, type: string, key: string, data: object): Written => {
  const id = uuidOf(`event ${at}`);
  const time = new Date(epochMs + at * 100).toISOString();
  const headers = {
    ...toBinaryHeaders({ specversion: '1.0', id, source: '/services/rooms', type, subject: key, time }),
    traceparent: `00-${id.replaceAll('-', '')}-${id.slice(0, 8)}${id.slice(24, 32)}-01`,
  };
  const encoded = Object.entries(headers).map(([name, text]) => [name, Buffer.from(text).toString('base64')]);
  return { key, value: JSON.stringify(data), headers: JSON.stringify(Object.fromEntries(encoded)) };
};

const roles = ['host', 'moderator', 'speaker', 'listener'] as const;

/** What happens to rooms, members and users, the same for the same count: no chance but a seeded one. */
function* createHistory(count: number): Iterable<Written> {
  const chance = createChance(20_260_301);
  const below = (limit: number): number => Math.floor(chance() * limit);
  const roomCount = Math.max(1, Math.floor(count / eventsPerRoom));
  const added = new Uint32Array(roomCount);
  const roleOf = () => roles[below(roles.length)] ?? 'speaker';
  let last: Written | undefined;
  for (let at = 0; at < count; at += 1) {
    if (last !== undefined && chance() < repeatedShare) {
      yield last;
      continue;
    }
    const room = below(roomCount);
    const roomId = `room-${uuidOf(`room ${room}`)}`;
    const people = added[room] ?? 0;
    const userId = uuidOf(`user ${room} ${below(people)}`);
    const write = <T extends RoomEventType>(
      type: T,
      key: string,
      data: Extract<RoomEvent, { type: T }>['data'],
    ): Written => writtenOf(at, type, key, data ?? {});
    const which = chance();
    if (people === 0 || which < 0.3) {
      last =
        people === 0 && which < 0.5
          ? write('room.created', roomId, { name: `Room ${room}` })
          : write('member.added', roomId, {
              userId: uuidOf(`user ${room} ${people}`),
              role: roleOf(),
              displayName: `Person ${people}`,
            });
      added[room] = people + 1;
    } else if (which < 0.6) last = write('member.updated', roomId, { userId, role: roleOf() });
    else if (which < 0.75) last = write('member.removed', roomId, { userId, reason: 'left the course' });
    else if (which < 0.85)
      last = write('member.banned', roomId, { userId, privilege: 'publish_audio', reason: 'noise' });
    else if (which < 0.9) last = write('member.unbanned', roomId, { userId, privilege: 'publish_audio' });
    else if (which < 0.95) last = write('room.updated', roomId, { name: `Room ${room} at ${at}` });
    else if (which < 0.97) last = write('room.locked', roomId, {});
    else if (which < 1 - deadShare) last = write(chance() < 0.5 ? 'user.disabled' : 'user.enabled', userId, { userId });
    else last = writtenOf(at, 'member.banned', roomId, { userId, privilege: 'fly' });
    yield last;
  }
}

/** Writes a history into the tables of the embedded log, as its producers would have over months. */
export const writeHistory = async (pool: Pool, count: number, partitionCount: number): Promise<void> => {
  const next = new Array<number>(partitionCount).fill(0);
  let columns: unknown[][] = [[], [], [], [], [], []];
  const flush = async (): Promise<void> => {
    await pool.query(
      `insert into log_records (topic, partition, "offset", appended_at, key, value, headers)
        select '${topic}', * from unnest($1::int[], $2::bigint[], $3::timestamptz[], $4::bytea[], $5::bytea[], $6::json[])`,
      columns,
    );
    columns = [[], [], [], [], [], []];
  };
  let at = 0;
  for (const { key, value, headers } of createHistory(count)) {
    const partition = partitionOf(key, partitionCount);
    const offset = next[partition] ?? 0;
    next[partition] = offset + 1;
    const row = [partition, offset, new Date(epochMs + at * 100), Buffer.from(key), Buffer.from(value), headers];
    for (const [column, field] of row.entries()) columns[column]?.push(field);
    at += 1;
    if (columns[0]?.length === recordsPerInsert) await flush();
  }
  await flush();
  await pool.query(
    `update log_heads set next_offset = head.next_offset
      from unnest($1::int[], $2::bigint[]) as head (partition, next_offset)
      where topic = '${topic}' and log_heads.partition = head.partition`,
    [next.map((_, partition) => partition), next],
  );
};
