import { deadLetterTopic, positionName } from '@realtime-service/contracts';
import {
  type DeadLetterSummary,
  findDeadLetters,
  type KeptDeadLetter,
  readDeadLetter,
} from '@realtime-service/room-store';
import { parseNumber, parsePosition } from './arguments.ts';
import { defineCommand, type Terminal, UsageError } from './command.ts';
import { printable, printShown, showBytes } from './show-bytes.ts';
import { parseWhere, whereHelp } from './where.ts';

const iso = (ms: number): string => new Date(ms).toISOString();
const textOf = (bytes: Buffer | null): string | null => bytes?.toString('utf8') ?? null;

/** What `--json` tells of a letter. */
export const toJson = (letter: DeadLetterSummary): object => ({
  position: positionName(letter),
  recordedAt: iso(letter.recordedAtMs),
  status: letter.status,
  reason: letter.reason,
  message: letter.message,
  type: letter.type,
  room: letter.subject,
  key: textOf(letter.key),
  isPublished: letter.isRelayed,
  settledBy: letter.settledBy && { position: positionName(letter.settledBy), at: iso(letter.settledBy.atMs) },
});

export const writeJson = (terminal: Terminal, value: object): void => terminal.write(`${JSON.stringify(value)}\n`);

/** Columns as wide as they must be; the last as long as it is. */
const tableOf = (rows: readonly (readonly string[])[]): string => {
  const widths = rows[0]?.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0))) ?? [];
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
};

export const letterTable = (letters: readonly DeadLetterSummary[]): string =>
  tableOf([
    ['POSITION', 'RECORDED', 'STATUS', 'REASON', 'TYPE', 'ROOM'],
    ...letters.map((letter) => [
      positionName(letter),
      iso(letter.recordedAtMs),
      letter.status,
      letter.reason,
      printable(letter.type ?? '-'),
      printable(letter.subject ?? textOf(letter.key) ?? '-'),
    ]),
  ]);

export const whereOption = {
  type: 'string',
  multiple: true,
  placeholder: 'field=value',
  description: 'Only those that meet this condition; may be repeated',
} as const;

export const jsonOption = { type: 'boolean', description: 'Lines of JSON' } as const;

export const listDeadLetters = defineCommand({
  name: 'dead-letters list',
  summary: 'List records that could not be applied, in the order of their positions',
  positionals: '',
  options: {
    where: whereOption,
    limit: { type: 'string', placeholder: 'n', description: 'At most so many, up to 1000 [50]' },
    after: { type: 'string', placeholder: 'position', description: 'Those after this one: the next page' },
    json: jsonOption,
  },
  details: whereHelp,
  examples: [
    'dead-letters list',
    'dead-letters list --where reason=invalid_data --where since=2h',
    "dead-letters list --where 'room=room 42' --where status=open --where status=discarded --json",
  ],
  run: async ({ values }, open) => {
    const filter = parseWhere(values.where ?? [], Date.now());
    const limit = parseNumber('limit', values.limit, { min: 1, max: 1_000, fallback: 50 });
    const after = values.after === undefined ? null : parsePosition(values.after);
    const { pool, terminal } = open();
    // One more, to know whether there is another page.
    const found = await findDeadLetters(pool, filter, { after, limit: limit + 1 });
    const page = found.slice(0, limit);
    if (values.json) for (const letter of page) writeJson(terminal, toJson(letter));
    else if (page.length > 0) terminal.write(letterTable(page));
    const last = page.at(-1);
    if (last === undefined) terminal.tell('No dead letters.\n');
    else if (found.length > limit) terminal.tell(`There are more: --after ${positionName(last)}\n`);
    return 'done';
  },
});

const printLetter = (letter: KeptDeadLetter, maxBytes: number): string => {
  const { settledBy, key, value, headers } = letter;
  const print = (bytes: Buffer, header?: string): string => printShown(showBytes(bytes, maxBytes, header));
  const about: [string, string][] = [
    ['position', positionName(letter)],
    ['recorded', iso(letter.recordedAtMs)],
    ['status', letter.status],
    ...(settledBy === null
      ? []
      : [['settled by', `${positionName(settledBy)} at ${iso(settledBy.atMs)}`] as [string, string]]),
    ['reason', letter.reason],
    ['message', printable(letter.message)],
    ['type', printable(letter.type ?? '-')],
    ['room', printable(letter.subject ?? '-')],
    ['published', letter.isRelayed ? `on ${deadLetterTopic(letter.topic)}` : 'not yet'],
    ['key', key === null ? 'none' : print(key)],
  ];
  const headerLines = Object.entries(headers).map(([name, bytes]) => `  ${printable(name)}: ${print(bytes, name)}\n`);
  return [
    tableOf(about),
    `headers:\n${headerLines.join('')}`,
    value === null ? 'value: none\n' : `value, ${value.length} bytes:\n${print(value)}\n`,
  ].join('');
};

export const showDeadLetter = defineCommand({
  name: 'dead-letters show',
  summary: 'Show one record that could not be applied, with what it holds',
  positionals: '<position>',
  options: {
    bytes: {
      type: 'string',
      placeholder: 'n',
      description: 'At most so many bytes of each part, up to 1000000 [4096]',
    },
    json: { type: 'boolean', description: 'As JSON' },
  },
  details: `A value that is UTF-8 is shown as text, with control characters spelt out, any other as hexadecimal. Tokens, passwords
and the like are left out.`,
  examples: [
    'dead-letters show realtime.room-events.v1/3/1204',
    'dead-letters show realtime.room-events.v1/3/1204 --json',
  ],
  run: async ({ values, positionals }, open) => {
    const [position, ...more] = positionals;
    if (position === undefined || more.length > 0) throw new UsageError('Say one position');
    const place = parsePosition(position);
    const maxBytes = parseNumber('bytes', values.bytes, { min: 1, max: 1_000_000, fallback: 4_096 });
    const { pool, terminal } = open();
    const letter = await readDeadLetter(pool, place);
    if (letter === undefined) {
      terminal.tell(`There is no dead letter at ${positionName(place)}.\n`);
      return 'nothing';
    }
    if (!values.json) {
      terminal.write(printLetter(letter, maxBytes));
      return 'done';
    }
    const headers = Object.entries(letter.headers).map(([name, bytes]) => [name, showBytes(bytes, maxBytes, name)]);
    const value = letter.value === null ? null : showBytes(letter.value, maxBytes);
    writeJson(terminal, { ...toJson(letter), headers: Object.fromEntries(headers), value });
    return 'done';
  },
});
