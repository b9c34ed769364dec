import { type LogPosition, toLogPosition } from '@realtime-service/contracts';
import { isLaterInLog, isSamePlace, type Origin } from '@realtime-service/room-model';
import type { ChunkRecord, DeadLetter, RetryOutcome } from '../apply/chunk.ts';
import { allInOrder, type Client } from '../database/database.ts';
import { send } from '../database/statement.ts';

type Row = Record<string, unknown>;

/** Places as columns, to be unnested. */
export const placeColumns = (places: readonly LogPosition[]): [string[], number[], string[]] => [
  places.map(({ topic }) => topic),
  places.map(({ partition }) => partition),
  places.map(({ offset }) => offset.toString()),
];

export const toDeadLetter = (row: Row): DeadLetter => ({
  topic: row.topic as string,
  partition: row.partition as number,
  offset: BigInt(row.offset as string),
  recordedAtMs: (row.recorded_at as Date).getTime(),
  key: row.key as Buffer | null,
  value: row.value as Buffer | null,
  headers: Object.fromEntries(
    Object.entries(row.headers as Record<string, string>).map(([name, text]) => [name, Buffer.from(text, 'base64')]),
  ),
  reason: row.reason as DeadLetter['reason'],
  message: row.message as string,
});

/** Where a row of `dead_letters` stands at one of the places of {@link placeColumns}, which come first. */
export const isAtPlacesSql =
  '(topic, "partition", "offset") in (select * from unnest($1::text[], $2::int[], $3::bigint[]))';

export const readDeadLetters = async (client: Client, places: readonly LogPosition[]): Promise<DeadLetter[]> => {
  const { rows } = await client.query(`select * from dead_letters where ${isAtPlacesSql}`, placeColumns(places));
  return rows.map(toDeadLetter);
};

const letterIn = (records: readonly ChunkRecord[], place: LogPosition): DeadLetter | undefined => {
  for (const { content, origin, recordedAtMs } of records)
    if (content.kind === 'dead' && isSamePlace(origin, place)) return { ...place, recordedAtMs, ...content.dead };
  return undefined;
};

/** An operator's action is not done a second time by way of a dead letter of its own. */
const isAction = ({ content }: ChunkRecord): boolean =>
  content.kind === 'retry' || (content.kind === 'room_event' && content.event.type === 'dead_letter.discarded');

/**
 * Reads the dead letters that a chunk's records have retried, which may stand in the chunk itself; never one that
 * stands after its retry, which a log that is read anew would find all the same. One that today's decoder can read
 * follows its retry as a record of its own, with the place where it stood: the identity of its fact counts like any
 * other's, so that its producer cannot tell it again.
 */
export const withRetried = async (
  records: readonly ChunkRecord[],
  read: (places: readonly LogPosition[]) => Promise<readonly DeadLetter[]>,
): Promise<readonly ChunkRecord[]> => {
  const places = records.flatMap(({ content, origin }) =>
    content.kind === 'retry' && content.outcome === null && isLaterInLog(origin, content.letter)
      ? [content.letter]
      : [],
  );
  if (places.length === 0) return records;
  const stored = await read(places);
  return records.flatMap((record): ChunkRecord[] => {
    const { content } = record;
    if (content.kind !== 'retry' || content.outcome !== null) return [record];
    const letter = isLaterInLog(record.origin, content.letter)
      ? (stored.find((each) => isSamePlace(each, content.letter)) ?? letterIn(records, content.letter))
      : undefined;
    const became = (outcome: RetryOutcome): ChunkRecord => ({ ...record, content: { ...content, outcome } });
    if (letter === undefined) return [became({ kind: 'absent' })];
    const original = content.decode(letter);
    if (original.content.kind === 'dead') {
      const { reason, message } = original.content.dead;
      return [became({ kind: 'dead', reason, message })];
    }
    if (isAction(original))
      return [became({ kind: 'dead', reason: letter.reason, message: 'an action is taken anew' })];
    const trace = record.trace ?? original.trace;
    return [became({ kind: 'readable' }), { ...original, trace, retriedBy: record }];
  });
};

/** What a letter can become, and from which states: one that was given up may still be retried, never the other way. */
export const settledFrom = { retried: ['open', 'discarded'], discarded: ['open'] } as const;

interface Settlement {
  readonly letter: LogPosition;
  readonly outcome: RetryOutcome | { readonly kind: 'discarded' };
  readonly origin: Origin;
}

const settle = async (client: Client, { letter, outcome, origin }: Settlement): Promise<void> => {
  if (outcome.kind === 'absent') return;
  const at = [letter.topic, letter.partition, letter.offset.toString()];
  const isIt = 'topic = $1 and "partition" = $2 and "offset" = $3';
  if (outcome.kind === 'dead') {
    // Published again where that says something new.
    await send(
      client,
      `update dead_letters set reason = $4, message = $5, is_relayed = is_relayed and reason = $4 and message = $5
        where ${isIt} and status = 'open'`,
      [...at, outcome.reason, outcome.message],
    );
    return;
  }
  const by = [origin.topic, origin.partition, origin.offset.toString(), new Date(origin.timeMs)];
  const status = outcome.kind === 'discarded' ? 'discarded' : 'retried';
  await send(
    client,
    `update dead_letters set settled_topic = $4, settled_partition = $5, settled_offset = $6, settled_at = $7,
      status = $8 where ${isIt} and status = any ($9)`,
    [...at, ...by, status, settledFrom[status]],
  );
};

/** Stores what became of letters; by place, so that two lanes cannot wait for each other. */
export const settleDeadLetters = async (client: Client, records: readonly ChunkRecord[]): Promise<void> => {
  const settlements = records
    .flatMap(({ content, origin }): Settlement[] => {
      if (content.kind === 'retry' && content.outcome !== null)
        return [{ letter: content.letter, outcome: content.outcome, origin }];
      if (content.kind !== 'room_event' || content.event.type !== 'dead_letter.discarded') return [];
      return [{ letter: toLogPosition(content.event.data), outcome: { kind: 'discarded' }, origin }];
    })
    .filter(({ letter, origin }) => isLaterInLog(origin, letter))
    .sort(
      ({ letter: a }, { letter: b }) =>
        (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : 0) ||
        a.partition - b.partition ||
        Number(a.offset - b.offset),
    );
  await allInOrder(settlements.map((each) => settle(client, each)));
};
