import { consumedTopics, Timestamp } from '@realtime-service/contracts';
import {
  type DeadLetterFilter,
  type DeadLetterStatus,
  deadLetterReasons,
  deadLetterStatuses,
} from '@realtime-service/room-store';
import { UsageError } from './command.ts';

/** What each field takes; undefined: any text. */
const fields: Readonly<Record<'status' | 'reason' | 'topic' | 'type' | 'key' | 'room', readonly string[] | undefined>> =
  {
    reason: deadLetterReasons,
    topic: consumedTopics,
    type: undefined,
    room: undefined,
    key: undefined,
    status: deadLetterStatuses,
  };
const fieldNames = Object.keys(fields) as (keyof typeof fields)[];
const bounds = { since: 'sinceMs', until: 'untilMs' } as const;

export const whereHelp = `Conditions are <field>=<value>, one for each --where. Letters must meet all of them; of several values of one
field any will do.

  reason   ${deadLetterReasons.join(', ')}
  topic    ${fields.topic?.join(', ')}
  type     the event's type, as in type=member.removed
  room     the room that it is about, the user for user.* and login.*
  key      the record's key, as text
  status   ${deadLetterStatuses.join(', ')}; open unless said
  since    recorded at this time or later: 2026-03-01T10:00:00Z, or so long ago: 90m, 2h, 7d
  until    recorded before this time`;

const unitMs = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

const parseTime = (field: string, text: string, nowMs: number): number => {
  const [, amount, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  if (amount !== undefined) return nowMs - Number(amount) * unitMs[unit as keyof typeof unitMs];
  if (Timestamp.safeParse(text).success) return Date.parse(text);
  throw new UsageError(`${field} takes a time such as 2026-03-01T10:00:00Z, or so long ago, such as 2h`);
};

const split = (condition: string): { readonly field: string; readonly value: string } => {
  const at = condition.indexOf('=');
  const field = condition.slice(0, Math.max(at, 0));
  const value = condition.slice(at + 1);
  if (field === '' || value === '') throw new UsageError(`A condition is <field>=<value>, not '${condition}'`);
  return { field, value };
};

/**
 * Reads the conditions of `--where`.
 * @throws {UsageError} naming what is wrong
 */
export const parseWhere = (
  conditions: readonly string[],
  nowMs: number,
): DeadLetterFilter & { readonly status: readonly DeadLetterStatus[] } => {
  const lists = new Map<string, string[]>();
  const times = new Map<string, number>();
  for (const { field, value } of conditions.map(split)) {
    if (Object.hasOwn(bounds, field)) {
      if (times.has(field)) throw new UsageError(`${field} is given twice`);
      times.set(field, parseTime(field, value, nowMs));
      continue;
    }
    const name = fieldNames.find((each) => each === field);
    if (name === undefined)
      throw new UsageError(
        `There is no field '${field}': it is one of ${[...fieldNames, ...Object.keys(bounds)].join(', ')}`,
      );
    const allowed = fields[name];
    if (allowed?.includes(value) === false)
      throw new UsageError(`${field} is one of ${allowed.join(', ')}, not '${value}'`);
    lists.set(name, [...(lists.get(name) ?? []), value]);
  }
  const since = times.get('since');
  const until = times.get('until');
  if (since !== undefined && until !== undefined && since >= until) throw new UsageError('since must be before until');
  return {
    status: ['open'],
    ...Object.fromEntries(lists),
    ...(since !== undefined && { [bounds.since]: since }),
    ...(until !== undefined && { [bounds.until]: until }),
  };
};
