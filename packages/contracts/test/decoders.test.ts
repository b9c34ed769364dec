import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ZodError, type z } from 'zod';
import { readFixtures } from '../scripts/fixtures.ts';
import { contractObjects } from '../scripts/objects.ts';
import {
  AtLeast,
  consumedTopics,
  decodeAtLeast,
  encodeAtLeast,
  fromHttpBinary,
  fromStructured,
  type LogPosition,
  mediaTypes,
  partitionName,
  readLivekitWebhook,
  readRecord,
  readRoomEvent,
  roomEventTypes,
  topics,
} from '../src/index.ts';

/** Objects whose texts are ours to bound; presence events and views are written by us, from what was read before. */
const readFromOthers = Object.entries(contractObjects).filter(
  ([name]) => /^(?:room-events|cloud-event|values|livekit)\//.test(name) || /Request$/.test(name),
);

/** A fixture with one of its parts replaced by anything: near to valid, where decoders break. */
const mutated = (name: string): fc.Arbitrary<unknown> => {
  const values = readFixtures(name).valid.map(({ value }) => value);
  return fc
    .tuple(fc.constantFrom(...values), fc.nat(), fc.oneof(fc.jsonValue(), hostileText))
    .map(([value, at, replacement]) => {
      const places = placesOf(value);
      const place = places[at % places.length] ?? [];
      return replaceAt(value, place, replacement);
    });
};

const hostileText = fc.oneof(
  fc.constantFrom('\0', 'a\0b', '\ud800', 'x\udfff', '__proto__', '9'.repeat(20), '', '\ufeff'),
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
);

const placesOf = (value: unknown): string[][] =>
  value === null || typeof value !== 'object'
    ? [[]]
    : [[], ...Object.entries(value).flatMap(([key, inner]) => placesOf(inner).map((place) => [key, ...place]))];

const replaceAt = (value: unknown, [key, ...rest]: readonly string[], replacement: unknown): unknown => {
  if (key === undefined) return replacement;
  const entries = Object.entries(value as object).map(([name, inner]) => [
    name,
    name === key ? replaceAt(inner, rest, replacement) : inner,
  ]);
  return Array.isArray(value) ? entries.map(([, inner]) => inner) : Object.fromEntries(entries);
};

/** Every text in a value, keys included. */
const textsOf = (value: unknown): string[] => {
  if (typeof value === 'string') return [value];
  if (value === null || typeof value !== 'object') return [];
  return Object.entries(value).flatMap(([key, inner]) => [key, ...textsOf(inner)]);
};

const isStorable = (text: string): boolean => text.isWellFormed() && !text.includes('\0');

describe.each(readFromOthers)('%s', (name, schema: z.ZodType) => {
  it('accepts only what can be stored, and throws nothing but ZodError', () => {
    fc.assert(
      fc.property(mutated(name), (value) => {
        const parsed = schema.safeParse(value);
        if (parsed.success) expect(textsOf(parsed.data).filter((text) => !isStorable(text))).toEqual([]);
        else expect(parsed.error).toBeInstanceOf(ZodError);
      }),
      { numRuns: 300 },
    );
  });
});

describe('readers', () => {
  it('read any room event without throwing, and let through only what can be stored', () => {
    const anyEvent = fc.constantFrom(...roomEventTypes).chain((type) => mutated(`room-events/${type}`));
    fc.assert(
      fc.property(anyEvent, (value) => {
        try {
          const reading = readRoomEvent(fromStructured(value));
          if (reading.kind === 'event') expect(textsOf(reading.event).filter((text) => !isStorable(text))).toEqual([]);
        } catch (error) {
          expect(error).toBeInstanceOf(ZodError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('read any webhook without throwing', () => {
    const hook = fc.record({
      event: fc.constantFrom('room_started', 'participant_joined', 'participant_left', 'egress_ended', 'tomorrow'),
      room: fc.oneof(fc.jsonValue(), fc.record({ sid: hostileText, name: hostileText, metadata: hostileText })),
      participant: fc.oneof(
        fc.jsonValue(),
        fc.record({
          sid: fc.constant('PA_1'),
          identity: hostileText,
          attributes: fc.dictionary(hostileText, hostileText),
          joined_at_ms: fc.jsonValue(),
        }),
      ),
    });
    fc.assert(
      fc.property(hook, (value) => {
        const reading = readLivekitWebhook(value);
        if (reading.kind === 'fact') expect(textsOf(reading.fact).filter((text) => !isStorable(text))).toEqual([]);
      }),
      { numRuns: 2000 },
    );
  });

  it('read any record without throwing', () => {
    const bytes = fc.uint8Array({ maxLength: 64 });
    const context = fc.record(
      {
        ce_specversion: fc.oneof(fc.constant(Buffer.from('1.0')), bytes),
        ce_type: fc.oneof(fc.constant(Buffer.from('room.locked')), bytes),
        'content-type': fc.oneof(fc.constant(Buffer.from(mediaTypes.structured)), bytes),
        ce_id: bytes,
        ce_source: bytes,
        ce_subject: bytes,
        ce_time: bytes,
      },
      { requiredKeys: [] },
    );
    const value = fc.option(
      fc.oneof(
        bytes,
        fc.json().map((text) => Buffer.from(text)),
      ),
    );
    fc.assert(
      fc.property(fc.record({ headers: context, value }), (record) => void readRecord(record)),
      { numRuns: 2000 },
    );
  });

  it('read any HTTP headers and throw nothing but ZodError', () => {
    const headers = fc.dictionary(
      fc.constantFrom('ce-specversion', 'ce-id', 'ce-source', 'ce-subject', 'ce-type', 'content-type'),
      fc.oneof(hostileText, fc.constantFrom('1.0', 'a%', '%c3', '"a\\"')),
    );
    fc.assert(
      fc.property(headers, (given) => {
        try {
          fromHttpBinary(given, {});
        } catch (error) {
          expect(error).toBeInstanceOf(ZodError);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('read webhooks about every room and person that may have a token', () => {
    const room = { sid: 'RM_1', name: 'r'.repeat(256) };
    const participant = { sid: 'PA_1', identity: 'i'.repeat(256) };
    const event = 'participant_joined';
    expect(readLivekitWebhook({ event, room, participant })).toMatchObject({ fact: { room, participant } });
    const nobody = { ...participant, identity: '' };
    expect(readLivekitWebhook({ event, room, participant: nobody })).toEqual({ kind: 'ignored', why: 'incomplete' });
  });

  it('bear JSON that is nested half a million deep', () => {
    const deep = JSON.parse(`${'['.repeat(500_000)}${']'.repeat(500_000)}`);
    const context = { specversion: '1.0', id: '1', source: '/s', type: 'member.added', subject: 'room-42' };
    const event = fromStructured({ ...context, unknown: deep, data: { userId: 'ann', role: 'host', unknown: deep } });
    expect(readRoomEvent(event)).toMatchObject({ kind: 'event', event: { data: { userId: 'ann', role: 'host' } } });
    expect(readRoomEvent({ ...event, data: deep })).toMatchObject({ kind: 'invalid' });
    expect(readLivekitWebhook({ event: 'room_started', room: { sid: 'RM_1', name: 'r', deep }, deep })).toMatchObject({
      kind: 'fact',
    });
    expect(readLivekitWebhook(deep)).toEqual({ kind: 'ignored', why: 'incomplete' });
  });

  it('leave prototypes alone', () => {
    const poison = JSON.parse(
      '{"__proto__":{"role":"host","polluted":true},"constructor":{"prototype":{"polluted":true}}}',
    );
    const data = { userId: 'ann', role: 'listener', ...poison, permissions: poison };
    const reading = readRoomEvent({
      context: { specversion: '1.0', id: '1', source: '/s', type: 'member.added', subject: 'r' },
      data,
    });
    expect(reading).toEqual({
      kind: 'event',
      event: { type: 'member.added', subject: 'r', data: { userId: 'ann', role: 'listener', permissions: {} } },
    });
    readLivekitWebhook({ event: 'room_started', room: poison, participant: poison });
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });
});

describe('positions', () => {
  const topic = fc.constantFrom(...consumedTopics);
  const offset = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n });
  const entries = fc.uniqueArray(fc.record({ topic, partition: fc.integer({ min: 0, max: 255 }), offset }), {
    selector: partitionName,
    minLength: 1,
    maxLength: 256,
  });
  const byPlace = (all: readonly LogPosition[] | undefined) =>
    new Map(all?.map((entry) => [partitionName(entry), entry.offset]));

  it('come back as they went, and fit the schema', () => {
    fc.assert(
      fc.property(entries, (positions) => {
        const text = encodeAtLeast(positions);
        expect(AtLeast.safeParse(text).success).toBe(true);
        expect(byPlace(decodeAtLeast(text))).toEqual(byPlace(positions));
      }),
    );
  });

  it('of two partitions have two names, whatever their topics are called', () => {
    const names = [partitionName({ topic: 't1', partition: 2 }), partitionName({ topic: 't', partition: 12 })];
    expect(new Set(names).size).toBe(2);
  });

  it('keep the highest offset of each partition, whatever the order', () => {
    const offsets = fc.array(offset, { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(offsets, (all) => {
        const [kept, ...others] =
          decodeAtLeast(encodeAtLeast(all.map((each) => ({ topic: topics.roomEvents, partition: 3, offset: each })))) ??
          [];
        expect(others).toEqual([]);
        expect(all).toContain(kept?.offset);
        expect(all.filter((each) => each > (kept?.offset ?? -1n))).toEqual([]);
      }),
    );
  });

  it('hold the last offset of 256 partitions', () => {
    const all = Array.from({ length: 256 }, (_, partition) => ({
      topic: topics.roomEvents,
      partition,
      offset: 2n ** 63n - 1n,
    }));
    const text = encodeAtLeast(all);
    expect(AtLeast.safeParse(text).success).toBe(true);
    expect(decodeAtLeast(text)).toEqual(all);
  });

  it('that are not ours are undefined', () => {
    const ofJson = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    expect(decodeAtLeast(ofJson([['t', [[0, '9223372036854775808']]]]))).toBeUndefined();
    expect(decodeAtLeast(ofJson([['t\0', [[0, '1']]]]))).toBeUndefined();
    expect(decodeAtLeast(ofJson([['t', [[-1, '1']]]]))).toBeUndefined();
    expect(decodeAtLeast(ofJson([['t', [[0.5, '1']]]]))).toBeUndefined();
    expect(decodeAtLeast(ofJson([['t', [[0, 1]]]]))).toBeUndefined();
    expect(decodeAtLeast(ofJson([['t', []]]))).toBeUndefined();
    expect(decodeAtLeast(ofJson([['', [[0, '1']]]]))).toBeUndefined();
    expect(decodeAtLeast(ofJson([]))).toBeUndefined();
    expect(decodeAtLeast('A')).toBeUndefined();
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json().map(ofJson)), (text) => void decodeAtLeast(text)));
  });
});

it.each([7, 'x'.repeat(600), { text: 'because' }])(
  'a reason that is unfit for people is dropped, and the removal counts: %j',
  (reason) => {
    const context = { specversion: '1.0', id: '1', source: 's', type: 'member.removed', subject: 'room-42' } as const;
    const data = { userId: 'u-7', reason };
    expect(readRoomEvent({ context, data })).toEqual({
      kind: 'event',
      event: { type: 'member.removed', subject: 'room-42', data: { userId: 'u-7' } },
    });
  },
);
