import { CloudEventContext, type LogPartition, RoomId } from '@realtime-service/contracts';
import { allInOrder, type Client } from '../database/database.ts';
import {
  banTable,
  endedLoginTable,
  lifeTable,
  memberTable,
  roomTable,
  sessionTable,
  suspectTable,
  upsert,
  userTable,
} from '../database/rows.ts';
import { send } from '../database/statement.ts';
import { settleDeadLetters } from '../dead-letters/dead-letters.ts';
import { raisedAgainSql } from '../marks.ts';
import type { ChunkRecord } from './chunk.ts';
import { type ChunkWrites, edgeLifeSeconds, isByFact } from './chunk-writes.ts';

/** `unknown` says that none of them has been written before: PostgreSQL then need not look for each of them first. */
const writeFacts = async (
  client: Client,
  { topic, partition }: LogPartition,
  facts: ReadonlyMap<string, ChunkRecord>,
  unknown: boolean,
): Promise<void> => {
  if (facts.size === 0) return;
  const rows = [...facts.values()];
  await send(
    client,
    `insert into applied_facts (topic, "partition", fact_key, recorded_at)
      select $1, $2, fact_key, recorded_at from unnest($3::bytea[], $4::timestamptz[]) as fact (fact_key, recorded_at)
        ${unknown ? '' : 'on conflict (topic, "partition", fact_key) do update set recorded_at = excluded.recorded_at'}`,
    [topic, partition, [...facts.keys()], rows.map(({ recordedAtMs }) => new Date(recordedAtMs))],
  );
};

/** `known`: those of these facts that may have been written before; all, where it is not given. */
const writeAppliedFacts = async (
  client: Client,
  at: LogPartition,
  { records }: ChunkWrites,
  known: ReadonlySet<string> | undefined,
): Promise<void> => {
  // An id that came again after its week is in there twice: the later one counts.
  const old = new Map<string, ChunkRecord>();
  const fresh = new Map<string, ChunkRecord>();
  for (const record of records)
    if (record.factKey !== null)
      (known === undefined || known.has(record.factKey) ? old : fresh).set(record.factKey, record);
  await Promise.all([writeFacts(client, at, old, false), writeFacts(client, at, fresh, true)]);
};

const writeDeadLetters = async (client: Client, writes: ChunkWrites): Promise<void> => {
  const inserts = writes.records.flatMap(({ content, origin, recordedAtMs }) => {
    if (content.kind !== 'dead') return [];
    const { key, value, headers, reason, message } = content.dead;
    const { type, key: about } = content.unreadable;
    // A name with NUL cannot be stored as JSON, and must not keep its record from becoming a dead letter.
    const encoded = Object.fromEntries(
      Object.entries(headers).map(([name, bytes]) => [name.replaceAll('\0', '\uFFFD'), bytes.toString('base64')]),
    );
    return send(
      client,
      `insert into dead_letters (topic, "partition", "offset", recorded_at, key, value, headers, reason, message, type, subject)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict do nothing`,
      [
        origin.topic,
        origin.partition,
        origin.offset.toString(),
        new Date(recordedAtMs),
        key,
        value,
        JSON.stringify(encoded),
        reason,
        message,
        CloudEventContext.shape.type.safeParse(type).data ?? null,
        RoomId.safeParse(about).data ?? null,
      ],
    );
  });
  await allInOrder(inserts);
};

const writeEdges = async (client: Client, writes: ChunkWrites): Promise<void> => {
  const inserts = writes.edges.map(({ row, trace }) =>
    send(
      client,
      `insert into edges (kind, room_id, identity, participant_sid, track_sid, requested_by, reason, trace, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8,
          least($9::timestamptz, clock_timestamp()) + make_interval(secs => ${edgeLifeSeconds}))`,
      [
        row.kind,
        row.roomId,
        row.identity,
        row.participantSid,
        row.trackSid,
        row.by,
        row.reason,
        trace,
        new Date(row.origin.timeMs),
      ],
    ),
  );
  await allInOrder(inserts);
};

/** One statement, sorted, so that lanes which meet in a room's marks wait for each other in one order. */
const writeMarks = async (client: Client, writes: ChunkWrites): Promise<number> => {
  const rows = [...writes.marks.values()];
  if (rows.length === 0) return 0;
  const { rowCount } = await send(
    client,
    `with concern as (
        select * from unnest($1::text[], $2::opaque_id[], $3::opaque_id[], $4::text[], $5::timestamptz[], $6::text[])
          as c (concern, outer_id, inner_id, cause, caused_at, trace)),
      affected as (
        select outer_id as room_id, inner_id as identity, cause, caused_at, trace from concern where concern in ('room', 'identity')
        union all
        select s.room_id, s.identity, cause, caused_at, c.trace from concern c
          join sessions s on s.room_id = c.outer_id and s.user_id = c.inner_id and s.is_live where concern = 'member'
        union all
        select s.room_id, s.identity, cause, caused_at, c.trace from concern c
          join sessions s on s.user_id = c.outer_id and s.is_live where concern = 'user'
        union all
        select s.room_id, s.identity, cause, caused_at, c.trace from concern c
          join sessions s on s.user_id = c.outer_id and s.login_id = c.inner_id and s.is_live where concern = 'login')
      insert into marks (room_id, identity, cause, caused_at, trace, due_at)
        select distinct on (room_id, identity) room_id, identity, cause, caused_at, trace, clock_timestamp()
          from affected order by room_id, identity, caused_at
        on conflict (room_id, identity) do update set
          ${raisedAgainSql('excluded.cause = any($7::text[]) and excluded.cause <> marks.cause')},
          cause = excluded.cause, trace = excluded.trace, caused_at = least(marks.caused_at, excluded.caused_at)`,
    [
      rows.map(({ concern }) => concern),
      rows.map(({ outerId }) => outerId),
      rows.map(({ innerId }) => innerId),
      rows.map(({ cause }) => cause),
      rows.map(({ causedAtMs }) => new Date(causedAtMs)),
      rows.map(({ trace }) => trace),
      rows.filter(isByFact).map(({ cause }) => cause),
    ],
  );
  return rowCount ?? 0;
};

const writeOutbox = async (client: Client, writes: ChunkWrites): Promise<void> => {
  if (writes.outbox.length === 0) return;
  await send(
    client,
    `insert into outbox (room_id, event_id, type, occurred_at, data, trace)
      select * from unnest($1::opaque_id[], $2::text[], $3::text[], $4::timestamptz[], $5::jsonb[], $6::text[])`,
    [
      writes.outbox.map(({ roomId }) => roomId),
      writes.outbox.map(({ eventId }) => eventId),
      writes.outbox.map(({ type }) => type),
      writes.outbox.map(({ occurredAtMs }) => new Date(occurredAtMs)),
      writes.outbox.map(({ data }) => JSON.stringify(data)),
      writes.outbox.map(({ trace }) => trace),
    ],
  );
};

/**
 * Writes what can be folded again from room events, and which facts were applied. Sent without waiting for answers,
 * since nothing here rests on one, and carried out in this order.
 */
export const writeState = async (
  client: Client,
  at: LogPartition,
  writes: ChunkWrites,
  known?: ReadonlySet<string>,
): Promise<void> => {
  await allInOrder([
    upsert(client, roomTable, [...writes.rooms.values()]),
    upsert(client, memberTable, [...writes.members.values()]),
    upsert(client, banTable, [...writes.bans.values()]),
    upsert(client, userTable, [...writes.users.values()]),
    upsert(client, endedLoginTable, [...writes.logins.values()]),
    writeAppliedFacts(client, at, writes, known),
  ]);
};

/**
 * Writes everything that a chunk changed, in a fixed order of tables and without waiting for answers; to be called
 * under the locks that the rows were read under. Answers how many marks and orders it raised.
 */
export const writeChunk = async (client: Client, at: LogPartition, writes: ChunkWrites): Promise<number> => {
  const before = [
    writeState(client, at, writes),
    upsert(client, suspectTable, [...writes.suspects.values()]),
    upsert(client, lifeTable, [...writes.lives.values()]),
    upsert(client, sessionTable, [...writes.sessions.values()]),
    writeDeadLetters(client, writes),
    settleDeadLetters(client, writes.records),
    writeEdges(client, writes),
  ];
  const marks = writeMarks(client, writes);
  await allInOrder([...before, marks, writeOutbox(client, writes)]);
  return (await marks) + writes.edges.length;
};
