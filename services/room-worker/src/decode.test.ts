import { consumedTopics, observedType, toBinaryHeaders, topics } from '@realtime-service/contracts';
import type { StoredRecord } from '@realtime-service/event-log';
import { evolveRoom, keyOf, suspectsOf, WorkingSet } from '@realtime-service/room-model';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import {
  binaryRecord,
  contextOf,
  partitionCount,
  recordedAtMs,
  storedRecord,
  structuredRecord,
} from '../test/records.ts';
import { type Decoded, decodeRecord } from './decode.ts';

const decode = (record: Parameters<typeof storedRecord>[0], changes: Partial<StoredRecord> = {}): Decoded =>
  decodeRecord(storedRecord(record, changes), partitionCount);

/** What a record became, in one word: a room event's type, why it is dead, why it was skipped. */
const outcomeOf = ({ record: { content }, skipped }: Decoded): string => {
  switch (content.kind) {
    case 'room_event':
      return content.event.type;
    case 'livekit':
      return content.fact.type;
    case 'dead':
      return content.dead.reason;
    case 'retry':
      return content.kind;
    case 'skipped':
      return `skipped: ${skipped}`;
  }
};

/** Whom the dead letter leaves in doubt. */
const doubtedBy = ({ record }: Decoded): string[] => {
  if (record.content.kind !== 'dead') throw new Error('no dead letter');
  return suspectsOf(record.content.unreadable, new WorkingSet(), record.origin).flatMap((change) =>
    change.entity === 'suspect' ? [[change.row.scope, change.row.roomId, change.row.userId].join(' ').trim()] : [],
  );
};

const removal = binaryRecord({}, { userId: 'u-7' });
const removalBytes = removal.value as Buffer;
const withValue = (value: Buffer | null) => ({ ...removal, value });

describe('C12: values that are not plain JSON', () => {
  test.each([
    [
      'a schema registry prefix',
      Buffer.concat([Buffer.from([0, 0, 0, 0, 12]), removalBytes]),
      'schema_registry_prefix',
    ],
    ['a byte order mark', Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), removalBytes]), 'member.removed'],
    ['UTF-16', Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(removalBytes.toString(), 'utf16le')]), 'not_utf8'],
    ['no bytes', Buffer.alloc(0), 'invalid_data'],
    ['the first half', removalBytes.subarray(0, removalBytes.length / 2), 'not_json'],
    [
      'a lone byte inside an id',
      Buffer.concat([Buffer.from('{"userId":"u-'), Buffer.from([0xc3]), Buffer.from('7"}')]),
      'not_utf8',
    ],
    ['null', Buffer.from('null'), 'invalid_data'],
    ['a list', Buffer.from('[]'), 'invalid_data'],
    ['a mebibyte of opening brackets', Buffer.alloc(1024 * 1024, '['), 'not_json'],
    ['a number', Buffer.from('1'), 'invalid_data'],
    ['an id with NUL', Buffer.from(String.raw`{"userId":"u-\u00007"}`), 'invalid_data'],
    ['an id with a lone surrogate', Buffer.from(String.raw`{"userId":"u-\ud83c"}`), 'invalid_data'],
  ])('%s', (_, value, outcome) => {
    expect(outcomeOf(decode(withValue(value)))).toBe(outcome);
  });

  test('no value and no CloudEvent is a tombstone, with or without a key', () => {
    expect(outcomeOf(decode({ key: 'room-42' }))).toBe('skipped: tombstone');
    expect(outcomeOf(decode({ key: null }))).toBe('skipped: tombstone');
  });

  test('a type that needs no data may have no value', () => {
    expect(outcomeOf(decode({ ...binaryRecord({ type: 'room.closed' }, null), value: null }))).toBe('room.closed');
  });

  test('a member named __proto__ changes no prototype and no role', () => {
    const value = Buffer.from('{"userId":"u-7","role":"listener","__proto__":{"role":"host","polluted":true}}');
    const { record } = decode({ ...binaryRecord({ type: 'member.added' }, {}), value });
    expect(record.content).toMatchObject({ kind: 'room_event', event: { data: { userId: 'u-7', role: 'listener' } } });
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false);
  });

  test('the dead letter keeps the bytes as they came', () => {
    const value = Buffer.from([0xff, 0, 1]);
    const stored = storedRecord({ ...removal, value });
    const decoded = decodeRecord(stored, partitionCount);
    expect(decoded.record.content).toMatchObject({ dead: { key: stored.key, value, headers: stored.headers } });
    expect(decoded.stored).toBe(stored);
  });

  test('whatever the bytes, decoding answers', () => {
    const bytes = fc.option(fc.uint8Array({ maxLength: 64 }));
    const headers = fc.dictionary(
      fc.constantFrom(
        'content-type',
        'ce_specversion',
        'ce_id',
        'ce_type',
        'ce_time',
        'ce_subject',
        'ce_sequence',
        'traceparent',
      ),
      fc.uint8Array({ maxLength: 32 }),
    );
    const topic = fc.constantFrom(...consumedTopics);
    fc.assert(
      fc.property(topic, bytes, bytes, headers, (name, key, value, given) => {
        const { record } = decode(
          { topic: name, value: value && Buffer.from(value) },
          {
            key: key && Buffer.from(key),
            headers: Object.fromEntries(Object.entries(given).map(([header, each]) => [header, Buffer.from(each)])),
          },
        );
        expect(['dead', 'skipped', 'room_event', 'livekit']).toContain(record.content.kind);
      }),
    );
  });
});

describe('what a dead letter says', () => {
  const messageOf = ({ record: { content } }: Decoded) => (content.kind === 'dead' ? content.dead.message : undefined);

  test.each([
    ['bytes that are no text', withValue(Buffer.from([0xff])), 'not_utf8'],
    ['an envelope', binaryRecord({ time: 'noon' }, {}), expect.stringMatching(/^\/time: ./)],
    ['no event', { value: Buffer.from('{}') }, 'no_cloud_event'],
    ['data', binaryRecord({}, { userId: 7 }), expect.stringMatching(/^\/data\/userId: ./)],
    ['data that are no object', binaryRecord({}, 7), expect.stringMatching(/^\/data: ./)],
    ['a webhook', { topic: topics.livekitWebhooks, value: Buffer.from('{') }, 'not_json'],
  ])('what is wrong, and where: %s', (_, record, message) => {
    expect(messageOf(decode(record))).toEqual(message);
  });

  test('no more than a thousand letters of it', () => {
    const members = Array.from({ length: 100 }, () => ({ userId: 7 }));
    expect(messageOf(decode(binaryRecord({ type: 'room.created' }, { members })))).toMatch(/^\/data.{995}$/);
  });

  test('which event it was, as far as that can be read; it is no fact whose repeat changes nothing', () => {
    const { record } = decode(binaryRecord({ time: '2026-03-01T10:00:00Z', sequence: '7' }, { userId: 7 }));
    const { partition } = storedRecord(removal);
    const place = { topic: topics.roomEvents, partition, offset: 7n };
    const timeMs = Date.parse('2026-03-01T10:00:00Z');
    expect(record).toMatchObject({ origin: { ...place, eventId: 'e-1', timeMs, sequence: 7n }, factKey: null });
    const nameless = decode(withValue(Buffer.from('{'))).record;
    const eventId = `${topics.roomEvents}/${partition}/7`;
    expect(nameless).toMatchObject({ origin: { ...place, eventId, timeMs: recordedAtMs, sequence: null } });
  });
});

test('a retry reads the letter as if it came now, by its own place and time', () => {
  const position = { topic: topics.roomEvents, partition: 3, offset: '5' };
  const { content } = decode(binaryRecord({ type: 'dead_letter.retried' }, position)).record;
  if (content.kind !== 'retry') throw new Error('no retry');
  expect(content.letter).toEqual({ ...position, offset: 5n });
  const { timestampMs: _, ...letter } = storedRecord(removal, { ...content.letter });
  const why = { reason: 'invalid_data', message: '/data: …' } as const;
  expect(content.decode({ ...letter, ...why, recordedAtMs: 1_000 })).toMatchObject({
    content: { kind: 'room_event', event: { type: 'member.removed', data: { userId: 'u-7' } } },
    origin: { ...content.letter, timeMs: 1_000 },
    recordedAtMs: 1_000,
  });
});

describe('whom a dead letter leaves in doubt', () => {
  test.each([
    ['the room, where the member cannot be read', withValue(Buffer.from('{')), ['room room-42']],
    [
      'the ban, where only the rest is bad',
      binaryRecord({ type: 'member.banned' }, { userId: 'u-7', privilege: 'fly' }),
      ['ban room-42 u-7'],
    ],
    [
      'nobody, by a type that takes nothing away',
      binaryRecord({ type: 'member.added' }, { userId: 'u-7', role: 'king' }),
      [],
    ],
    [
      'the member, where only the time is bad',
      binaryRecord({ time: 'noon' }, { userId: 'u-7' }),
      ['member room-42 u-7'],
    ],
    ['nobody, by a bad name', binaryRecord({ type: 'member.updated' }, { userId: 'u-7', displayName: 7 }), []],
    [
      'the header, by an update of the room',
      binaryRecord({ type: 'room.updated' }, { maxParticipants: -1 }),
      ['header room-42'],
    ],
    [
      'the user, by a fact about a user',
      binaryRecord({ type: 'user.disabled', subject: 'u-7' }, { userId: 8 }),
      ['user  u-7'],
    ],
    [
      'the room and the user of that key, where not even the type is readable',
      { key: 'room-42', value: Buffer.from('{') },
      ['room room-42', 'user  room-42'],
    ],
  ])('%s', (_, record, doubted) => {
    expect(doubtedBy(decode(record))).toEqual(doubted);
  });

  test('nobody, by a fact from LiveKit', () => {
    const record = { topic: topics.livekitWebhooks, key: 'room-42', value: Buffer.from('{') };
    expect(outcomeOf(decode(record))).toBe('invalid_envelope');
    expect(doubtedBy(decode(record))).toEqual([]);
  });
});

describe('C17: time', () => {
  const zone = process.env['TZ'];
  afterEach(() => {
    if (zone === undefined) delete process.env['TZ'];
    else process.env['TZ'] = zone;
  });
  const timeOf = (time: string | undefined) =>
    decode(binaryRecord({ ...(time === undefined ? {} : { time }) }, { userId: 'u-7' }));

  describe.each(['UTC', 'Asia/Tokyo'])('in %s', (tz) => {
    test.each([
      '2026-03-01T10:00:00.370582GMT',
      '2026-03-01T10:00:00.545218America/Los_Angeles',
      '2026-03-01 10:00:00Z',
      '2026-03-01T10:00:00',
      '2026-02-31T00:00:00Z',
      '1772359200000',
    ])('%s is a dead letter, never the present time', (time) => {
      process.env['TZ'] = tz;
      expect(outcomeOf(timeOf(time))).toBe('invalid_envelope');
    });

    test.each([
      ['2026-03-01T10:00:00.123456789+02:00', Date.parse('2026-03-01T08:00:00.123Z')],
      ['9999-12-31T23:59:59Z', Date.parse('9999-12-31T23:59:59Z')],
      [undefined, recordedAtMs],
    ])("%s is that instant, or where there is none the record's", (time, timeMs) => {
      process.env['TZ'] = tz;
      expect(timeOf(time)).toMatchObject({ record: { origin: { timeMs }, content: { kind: 'room_event' } } });
    });
  });

  test('a number in structured mode is no time', () => {
    expect(outcomeOf(decode(structuredRecord({ time: 1_772_359_200_000 }, { userId: 'u-7' })))).toBe(
      'invalid_envelope',
    );
  });

  test.each(['2026-03-01T10:00:00.123456789+02:00', '9999-12-31T23:59:59Z', undefined])(
    'an older grant of time %s brings nobody back: order comes from the sequence, then the position',
    (time) => {
      const set = new WorkingSet();
      const apply = ({ record }: Decoded): void => {
        if (record.content.kind !== 'room_event') throw new Error('no room event');
        for (const change of evolveRoom(set, record.content.event, record.origin)) set.put(change);
      };
      const at = time === undefined ? {} : { time };
      apply(decode(binaryRecord({ sequence: '9', time: '2026-03-01T12:00:00Z' }, { userId: 'u-7' }), { offset: 1n }));
      apply(
        decode(binaryRecord({ type: 'member.added', sequence: '4', ...at }, { userId: 'u-7', role: 'host' }), {
          offset: 2n,
        }),
      );
      expect(set.members.get(keyOf('room-42', 'u-7'))).toMatchObject({ isRemoved: true });
      // Nor does a time far ahead freeze the member: what has the later version still counts.
      apply(
        decode(binaryRecord({ type: 'member.added', sequence: '10' }, { userId: 'u-7', role: 'host' }), { offset: 3n }),
      );
      expect(set.members.get(keyOf('room-42', 'u-7'))).toMatchObject({ isRemoved: false });
    },
  );

  test.each([recordedAtMs * 1000, Number.MAX_SAFE_INTEGER, 9.2e18, -1, Number.NEGATIVE_INFINITY])(
    "a record time of %d is none: the event's own stands in for it, or the earliest",
    (timestampMs) => {
      const { record } = decode(removal, { timestampMs });
      expect([record.recordedAtMs, record.origin.timeMs]).toEqual([0, 0]);
      const time = '2026-03-01T10:00:00Z';
      const told = decode(binaryRecord({ time }, { userId: 'u-7' }), { timestampMs });
      expect(told.record.recordedAtMs).toBe(Date.parse(time));
      const never = decode(binaryRecord({ time: '9999-12-31T23:59:59Z' }, { userId: 'u-7' }), { timestampMs });
      expect(never.record.recordedAtMs).toBe(0);
      for (const { record: guessed } of [decode(removal, { timestampMs }), told, never])
        expect(guessed.isTimeGuessed).toBe(true);
      expect(decode(removal).record.isTimeGuessed).toBe(false);
    },
  );
});

test.each([
  ['the earliest', 0, false],
  ['the latest', Date.parse('2200-01-01T00:00:00Z') - 1, false],
  ['one later', Date.parse('2200-01-01T00:00:00Z'), true],
])('a record time that clocks show: %s', (_, timestampMs, isTimeGuessed) => {
  expect(decode(removal, { timestampMs }).record).toMatchObject({ isTimeGuessed });
});

describe('C19: ids', () => {
  const emoji = (count: number): string => '\u{1F3A5}'.repeat(count);
  test.each([
    'a/b',
    'a%2Fb',
    '../admin',
    '..',
    'a b',
    'a?b#c',
    'a+b',
    '\u{1F3A5}',
    'caf\u00e9',
    'cafe\u0301',
    'x'.repeat(101),
    emoji(64),
    '__proto__',
  ])('room %j is used byte for byte', (subject) => {
    const { record } = decode(binaryRecord({ subject }, { userId: 'u-7' }));
    expect(record.content).toMatchObject({ kind: 'room_event', event: { subject } });
  });

  test.each([
    ['65 emoji', emoji(65)],
    ['NUL', 'a\0b'],
    ['nothing', ''],
  ])('a room id of %s is a dead letter', (_, subject) => {
    expect(outcomeOf(decode(binaryRecord({ subject }, { userId: 'u-7' })))).toBe('invalid_envelope');
  });

  test('two spellings of one name are two members', () => {
    const userOf = (userId: string) => decode(binaryRecord({}, { userId })).record.content;
    expect(userOf('caf\u00e9')).not.toEqual(userOf('cafe\u0301'));
    expect(userOf('cafe\u0301')).toMatchObject({ event: { data: { userId: 'cafe\u0301' } } });
  });

  test('a user id of 192 bytes is a dead letter, of 191 it is a fact', () => {
    expect(outcomeOf(decode(binaryRecord({}, { userId: 'u'.repeat(191) })))).toBe('member.removed');
    expect(outcomeOf(decode(binaryRecord({}, { userId: 'u'.repeat(192) })))).toBe('invalid_data');
  });
});

describe('key and partition', () => {
  test("another key than the subject is a dead letter, and the doubt is the subject's", () => {
    const decoded = decode({ ...removal, key: 'room-43' });
    expect(outcomeOf(decoded)).toBe('key_mismatch');
    expect(doubtedBy(decoded)).toEqual(['member room-42 u-7']);
  });

  test.each([
    ['no key', null],
    ['a key that is no text', Buffer.from([0xff])],
  ])('%s is a mismatch', (_, key) => {
    expect(outcomeOf(decode({ ...removal, key }))).toBe('key_mismatch');
    expect(outcomeOf(decode({ ...binaryRecord({ subject: '\ufffd' }, { userId: 'u-7' }), key }))).toBe('key_mismatch');
  });

  test.each([
    ['a byte order mark belongs to the id that begins with it', '\ufeffroom-42', '\ufeffroom-42', 'member.removed'],
    ['a byte order mark makes another key', '\ufeffroom-42', 'room-42', 'key_mismatch'],
  ])('%s', (_, key, subject, outcome) => {
    expect(outcomeOf(decode({ ...binaryRecord({ subject }, { userId: 'u-7' }), key }))).toBe(outcome);
  });

  test('a byte order mark in the key of a record that cannot be read puts no other room in doubt', () => {
    const doubts = doubtedBy(decode({ key: '\ufeffroom-42', value: Buffer.from('{') }));
    expect(doubts).toEqual(['room \ufeffroom-42', 'user  \ufeffroom-42']);
  });

  test('another normalisation of the subject is another key', () => {
    expect(outcomeOf(decode({ ...binaryRecord({ subject: 'caf\u00e9' }, { userId: 'u-7' }), key: 'cafe\u0301' }))).toBe(
      'key_mismatch',
    );
  });

  test('a record in another partition than murmur2 gives counts, and is told', () => {
    const { partition } = storedRecord(removal);
    expect(decode(removal)).toMatchObject({ isMisplaced: false });
    const misplaced = decode(removal, { partition: (partition + 1) % partitionCount });
    expect(misplaced).toMatchObject({ isMisplaced: true, record: { content: { kind: 'room_event' } } });
    for (const anywhere of [0, 1]) {
      const keyless = decode({ ...removal, key: null }, { partition: anywhere });
      expect(keyless).toMatchObject({ isMisplaced: false });
    }
  });
});

describe('modes and headers', () => {
  test('structured and binary give the same fact', () => {
    const binary = decode(binaryRecord({ sequence: '7', time: '2026-03-01T10:00:00Z' }, { userId: 'u-7' }));
    const structured = decode(structuredRecord({ sequence: '7', time: '2026-03-01T10:00:00Z' }, { userId: 'u-7' }));
    const { content, factKey, origin } = structured.record;
    expect({ content, factKey, origin }).toEqual({
      content: binary.record.content,
      factKey: binary.record.factKey,
      origin: binary.record.origin,
    });
    expect(origin.sequence).toBe(7n);
  });

  test('a version counts to its last digit', () => {
    const sequence = '900719925474099300000000000000000000001';
    expect(decode(binaryRecord({ sequence }, { userId: 'u-7' })).record.origin.sequence).toBe(BigInt(sequence));
  });

  test('plain JSON that is no CloudEvent is a dead letter', () => {
    expect(outcomeOf(decode({ value: Buffer.from('{"userId":"u-7"}') }))).toBe('invalid_envelope');
  });

  test('an unknown type is skipped, whatever its data', () => {
    expect(outcomeOf(decode(binaryRecord({ type: 'room.painted' }, { colour: 1 })))).toBe('skipped: unknown_type');
  });

  test('unknown fields are ignored', () => {
    expect(outcomeOf(decode(binaryRecord({}, { userId: 'u-7', zzFuture: { a: 1 } })))).toBe('member.removed');
  });

  test('a fact is known by source and id together', () => {
    const keyOfFact = (source: string, id: string) =>
      decode(binaryRecord({ source, id }, { userId: 'u-7' })).record.factKey;
    expect(keyOfFact('/a', 'b')).toBe(keyOfFact('/a', 'b'));
    expect(
      new Set([keyOfFact('/a', 'b'), keyOfFact('/b', 'a'), keyOfFact('/a', 'bb'), keyOfFact('/ab', 'b')]).size,
    ).toBe(4);
  });

  test('a fact is known by the same key in every version, or repeats of older facts would count', () => {
    expect(decode(removal).record.factKey).toBe('e2d9fa68c8fa1e3c4adecd3ef8d44164');
  });

  const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
  const other = '00-00000000000000000000000000000001-0000000000000001-00';
  test.each([
    ['the header', { traceparent }, {}, traceparent],
    ["the event's origin, without a header", {}, { traceparent: other }, other],
    ["the event's origin, before the header", { traceparent }, { traceparent: other }, other],
    ['the header, where the event has none', { traceparent }, {}, traceparent],
    ['none, where it is garbage', { traceparent: 'garbage' }, {}, null],
    [
      'none, where it is all zeros',
      { traceparent: '00-00000000000000000000000000000000-0000000000000000-01' },
      {},
      null,
    ],
    ['none, where it is upper case', { traceparent: traceparent.toUpperCase() }, {}, null],
    ['none, where it has NUL', { traceparent: `${traceparent}\0` }, {}, null],
    ["the event's origin, behind garbage", { traceparent: '\0' }, { traceparent: other }, other],
  ])('the trace is that of %s, and the fact counts', (_, headers, context, trace) => {
    const record = binaryRecord(context, { userId: 'u-7' });
    const decoded = decode({ ...record, headers: { ...record.headers, ...headers } });
    expect(decoded.record).toMatchObject({ trace, content: { kind: 'room_event' } });
  });
});

describe('facts from LiveKit', () => {
  const livekit = (type: string, data: unknown) =>
    decode({
      topic: topics.livekitWebhooks,
      key: 'room-42',
      value: Buffer.from(JSON.stringify(data)),
      headers: toBinaryHeaders(contextOf({ type, source: 'livekit' })),
    });
  const room = { sid: 'RM_1', name: 'room-42' };
  const participant = { sid: 'PA_1', identity: 'u-7', attributes: { 'rt.trace': '00-1-2-01', 'rt.user': 'u-7' } };

  test('a webhook is a fact, and says which join it leads back to', () => {
    const decoded = livekit('livekit.participant_joined', { event: 'participant_joined', room, participant });
    expect(outcomeOf(decoded)).toBe('participant_joined');
    expect(decoded.joinTrace).toBe('00-1-2-01');
    const { attributes: _, ...stranger } = participant;
    for (const webhook of [
      { event: 'participant_joined', room, participant: stranger },
      { event: 'room_started', room },
    ]) {
      const untraced = livekit(`livekit.${webhook.event}`, webhook);
      expect(outcomeOf(untraced)).toBe(webhook.event);
      expect(untraced.joinTrace).toBeNull();
    }
  });

  test('what says nothing about presence is skipped', () => {
    expect(outcomeOf(livekit('livekit.track_published', { event: 'track_published', room }))).toBe('skipped: no_state');
  });

  test.each([
    ['audio as a camera', { source: 'CAMERA', mimeType: 'audio/opus' }, 'track_published'],
    ['audio, which LiveKit leaves unsaid, as a camera', { source: 'CAMERA' }, 'track_published'],
    ['a type of the wrong shape', { type: {}, source: 'CAMERA', mimeType: 'audio/opus' }, 'track_published'],
    ['a codec of the wrong shape', { type: 'AUDIO', source: 'CAMERA', mimeType: 7 }, 'track_published'],
    ['audio as a shared screen', { type: 'AUDIO', source: 'SCREEN_SHARE' }, 'track_published'],
    [
      'audio that was announced as a camera',
      { type: 'VIDEO', source: 'CAMERA', mimeType: 'audio/red' },
      'track_published',
    ],
    [
      'a codec that LiveKit does not know',
      { type: 'VIDEO', source: 'CAMERA', mimeType: 'MimeTypeUnknown' },
      'skipped: no_state',
    ],
    ['a kind as a number', { type: 1, source: 'CAMERA' }, 'skipped: no_state'],
    ['video as a microphone', { type: 'VIDEO', source: 'MICROPHONE', mimeType: 'video/VP8' }, 'track_published'],
    ['video as the sound of a screen', { type: 'VIDEO', source: 'SCREEN_SHARE_AUDIO' }, 'track_published'],
    ['a camera', { type: 'VIDEO', source: 'CAMERA', mimeType: 'video/H264' }, 'skipped: no_state'],
    ['a screen', { type: 'VIDEO', source: 'SCREEN_SHARE' }, 'skipped: no_state'],
    ['a microphone', { source: 'MICROPHONE', mimeType: 'audio/opus' }, 'skipped: no_state'],
    ['the sound of a screen', { type: 'AUDIO', source: 'SCREEN_SHARE_AUDIO' }, 'skipped: no_state'],
    ['an unknown source, which LiveKit holds to the sources that are set', { type: 'VIDEO' }, 'skipped: no_state'],
    ['a source of a newer LiveKit', { type: 'VIDEO', source: 'HOLOGRAM' }, 'skipped: no_state'],
  ])('a track is a fact where its source is not of its kind: %s', (_, track, outcome) => {
    const webhook = { event: 'track_published', room, participant, track: { sid: 'TR_1', ...track } };
    expect(outcomeOf(livekit('livekit.track_published', webhook))).toBe(outcome);
  });

  test('an observation is a fact, and a broken one a dead letter', () => {
    const observed = { roomName: 'room-42', listedAtMs: 1, room, participants: [] };
    expect(livekit(observedType, observed).record.content).toEqual({
      kind: 'livekit',
      fact: { type: 'observed', observed },
    });
    const broken = livekit(observedType, { ...observed, listedAtMs: 'yesterday' });
    expect(outcomeOf(broken)).toBe('invalid_data');
    expect(broken.record.content).toMatchObject({ dead: { message: expect.stringContaining('listedAtMs') } });
  });
});
