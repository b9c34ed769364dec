import { describe, expect, test } from 'vitest';
import { parsePosition } from './arguments.ts';
import { UsageError } from './command.ts';
import { parseWhere } from './where.ts';

const now = Date.parse('2026-03-01T12:00:00Z');

describe('conditions', () => {
  test.each<{ given: string[]; then: object }>([
    { given: [], then: { status: ['open'] } },
    { given: ['reason=not_json'], then: { status: ['open'], reason: ['not_json'] } },
    { given: ['reason=not_json', 'reason=not_utf8'], then: { status: ['open'], reason: ['not_json', 'not_utf8'] } },
    { given: ['status=discarded'], then: { status: ['discarded'] } },
    {
      given: ['type=member.removed', 'topic=realtime.room-events.v1'],
      then: { status: ['open'], type: ['member.removed'], topic: ['realtime.room-events.v1'] },
    },
    { given: ['room=a=b, c'], then: { status: ['open'], room: ['a=b, c'] } },
    { given: ['key= '], then: { status: ['open'], key: [' '] } },
    { given: ['since=45s'], then: { status: ['open'], sinceMs: now - 45_000 } },
    { given: ['since=2h'], then: { status: ['open'], sinceMs: now - 7_200_000 } },
    {
      given: ['since=7d', 'until=90m'],
      then: { status: ['open'], sinceMs: now - 604_800_000, untilMs: now - 5_400_000 },
    },
    {
      given: ['since=2026-03-01T10:00:00+02:00', 'until=2026-03-01T08:00:30Z'],
      then: { status: ['open'], sinceMs: now - 14_400_000, untilMs: now - 14_370_000 },
    },
  ])('$given', ({ given, then }) => {
    expect(parseWhere(given, now)).toEqual(then);
  });

  test.each<[given: string[], message: string]>([
    [['reason'], "A condition is <field>=<value>, not 'reason'"],
    [['=x'], 'A condition is <field>=<value>'],
    [['room='], 'A condition is <field>=<value>'],
    [['rooms=a'], "There is no field 'rooms'"],
    [['__proto__=a'], "There is no field '__proto__'"],
    [['toString=a'], "There is no field 'toString'"],
    [['reason=bad'], 'reason is one of not_json'],
    [['status=closed'], 'status is one of open'],
    [['topic=orders'], 'topic is one of realtime.room-events.v1'],
    [['since=yesterday'], 'since takes a time'],
    [['since=2h30m'], 'since takes a time'],
    [['since=2026-02-31T00:00:00Z'], 'since takes a time'],
    [['since=2026-03-01T10:00:00'], 'since takes a time'],
    [['since=1h', 'since=2h'], 'since is given twice'],
    [['since=1h', 'until=2h'], 'since must be before until'],
  ])('%j is refused', (given, message) => {
    expect(() => parseWhere(given, now)).toThrow(UsageError);
    expect(() => parseWhere(given, now)).toThrow(message);
  });

  test.each(['2026-03-01T10:00:00.370582GMT', '2026-03-01 10:00:00Z', '1772359200000'])(
    'C17: a bound is never nearly a time: %s',
    (text) => {
      expect(() => parseWhere([`since=${text}`], now)).toThrow(UsageError);
    },
  );
});

describe('positions', () => {
  test('name topic, partition and offset', () => {
    expect(parsePosition('realtime.room-events.v1/3/9007199254740993')).toEqual({
      topic: 'realtime.room-events.v1',
      partition: 3,
      offset: 9_007_199_254_740_993n,
    });
  });

  test.each([
    '',
    'a',
    'a/1',
    'a/1/',
    'a/1/2/3',
    'a/-1/2',
    'a/1/x',
    'a/1e3/2',
    '/1/2',
    'a b/1/2',
    'a/1/9223372036854775808',
  ])('%j is none', (text) => {
    expect(() => parsePosition(text)).toThrow(UsageError);
  });
});
