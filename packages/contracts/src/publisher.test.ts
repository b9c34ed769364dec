import { describe, expect, it } from 'vitest';
import {
  decodeAtLeast,
  InvalidRoomEventsError,
  type OutgoingRoomEvent,
  type ProducerMessage,
  RoomEventPublisher,
  readRecord,
  topics,
} from './index.ts';

interface Sent {
  readonly topic: string;
  readonly messages: ProducerMessage[];
}

/** Answers as kafkajs does: the partition and the offset of the first record. Room ids end with their partition. */
const recorder = () => {
  const sent: Sent[] = [];
  const high = new Map<number, number>();
  const send = async (request: Sent) => {
    sent.push(request);
    const partition = Number(request.messages[0]?.key.at(-1));
    const baseOffset = high.get(partition) ?? 100;
    high.set(partition, baseOffset + request.messages.length);
    return [{ topicName: request.topic, partition, errorCode: 0, baseOffset: String(baseOffset), logStartOffset: '0' }];
  };
  return { sent, send };
};

const fixed = { source: '/services/rooms', now: () => new Date('2026-03-01T10:00:00Z'), newId: () => 'id-1' };
const locked = (subject: string): OutgoingRoomEvent => ({ type: 'room.locked', subject });

it('an id that another fact before it has is a fault, since that would count as its repeat; the same fact again is none', async () => {
  const producer = recorder();
  const publisher = new RoomEventPublisher({ producer, ...fixed });
  const created: OutgoingRoomEvent = { type: 'room.created', subject: 'a-1', id: 'a', data: {} };
  const added: OutgoingRoomEvent = {
    type: 'member.added',
    subject: 'a-1',
    id: 'a',
    data: { userId: 'ann', role: 'host' },
  };
  await expect(publisher.publish([created, added])).rejects.toMatchObject({
    faults: [{ path: '/1/id', message: 'is that of another event before it' }],
  });
  expect(producer.sent).toEqual([]);
  await publisher.publish([created, created, { ...created, id: 'b' }]);
  expect(producer.sent[0]?.messages).toHaveLength(3);
});

it.each<[string, OutgoingRoomEvent, OutgoingRoomEvent]>([
  ['type', locked('r1'), { type: 'room.unlocked', subject: 'r1' }],
  ['room', locked('r1'), locked('r2')],
  [
    'data',
    { type: 'member.removed', subject: 'r1', data: { userId: 'ann' } },
    { type: 'member.removed', subject: 'r1', data: { userId: 'bob' } },
  ],
])('another fact is one that differs in its %s alone', (_, fact, other) => {
  const publisher = new RoomEventPublisher({ producer: recorder(), ...fixed });
  expect(() =>
    publisher.toMessages([
      { ...fact, id: 'a' },
      { ...other, id: 'a' },
    ]),
  ).toThrow('/1/id');
});

describe('what is sent', () => {
  it('is the binary mode of the Kafka binding, keyed by the subject', async () => {
    const producer = recorder();
    await new RoomEventPublisher({ producer, ...fixed }).publish({
      type: 'member.added',
      subject: 'café-1',
      data: { userId: 'ann', role: 'host', displayName: undefined },
      sequence: 7n,
      traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    });
    expect(producer.sent).toEqual([
      {
        topic: topics.roomEvents,
        messages: [
          {
            key: 'café-1',
            value: '{"userId":"ann","role":"host"}',
            headers: {
              'content-type': 'application/json',
              ce_specversion: '1.0',
              ce_id: 'id-1',
              ce_source: '/services/rooms',
              ce_type: 'member.added',
              ce_subject: 'café-1',
              ce_time: '2026-03-01T10:00:00.000Z',
              ce_sequence: '00000000000000000007',
              ce_traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
            },
          },
        ],
      },
    ]);
  });

  it('has a UUID and the time of now by default, and a value even without data: null would be a tombstone', () => {
    const before = Date.now();
    const [message] = new RoomEventPublisher({ producer: recorder(), source: '/s' }).toMessages([locked('r1')]);
    expect(message?.value).toBe('{}');
    expect(message?.headers.ce_id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(Date.parse(message?.headers.ce_time ?? '')).toBeGreaterThanOrEqual(before);
    expect(message?.headers).not.toHaveProperty('ce_sequence');
  });

  it('is what the service reads', () => {
    const [message] = new RoomEventPublisher({ producer: recorder(), ...fixed }).toMessages([locked('r1')]);
    const headers = Object.entries(message?.headers ?? {}).map(([name, text]) => [name, Buffer.from(text)]);
    expect(
      readRecord({ value: Buffer.from(message?.value ?? ''), headers: Object.fromEntries(headers) }),
    ).toMatchObject({
      kind: 'event',
      event: { context: { id: 'id-1', subject: 'r1', type: 'room.locked' }, data: {} },
    });
  });

  it('has the ids and times that the caller gave, and no trace context that is none', async () => {
    const producer = recorder();
    const time = new Date('2026-02-01T00:00:00Z');
    const event: OutgoingRoomEvent = { ...locked('r1'), id: 'outbox-9', time, sequence: 12, traceparent: 'banana' };
    const { ids } = await new RoomEventPublisher({ producer, ...fixed }).publish(event);
    expect(ids).toEqual(['outbox-9']);
    const headers = producer.sent[0]?.messages[0]?.headers;
    expect(headers).toMatchObject({ ce_time: '2026-02-01T00:00:00.000Z', ce_sequence: '00000000000000000012' });
    expect(headers).not.toHaveProperty('ce_traceparent');
  });
});

describe('order and positions', () => {
  it('one request per room, in the order of its events; the position of the last event of each', async () => {
    const producer = recorder();
    const events: OutgoingRoomEvent[] = [locked('a1'), locked('b2'), { type: 'room.unlocked', subject: 'a1' }];
    const { ids, atLeast } = await new RoomEventPublisher({ producer, source: '/s' }).publish(events);
    expect(
      producer.sent.map(({ messages }) => messages.map(({ key, headers }) => `${key} ${headers.ce_type}`)),
    ).toEqual([['a1 room.locked', 'a1 room.unlocked'], ['b2 room.locked']]);
    expect(ids).toHaveLength(3);
    expect(decodeAtLeast(atLeast ?? '')).toEqual([
      { topic: topics.roomEvents, partition: 1, offset: 101n },
      { topic: topics.roomEvents, partition: 2, offset: 100n },
    ]);
  });

  it('several requests, where those of a room are more than a broker takes at once; a record that is larger goes alone', async () => {
    const producer = recorder();
    const members = Array.from({ length: 3_000 }, (_, n) => ({ userId: `u-${n}`, role: 'host' as const }));
    const displayName = '\u{1f3a5}'.repeat(128);
    const added = members.map(
      (data): OutgoingRoomEvent => ({ type: 'member.added', subject: 'a1', data: { ...data, displayName } }),
    );
    const whole = members.map((data) => ({ ...data, displayName }));
    const created: OutgoingRoomEvent = { type: 'room.created', subject: 'a1', data: { members: whole } };
    const { ids, atLeast } = await new RoomEventPublisher({ producer, source: '/s' }).publish([created, ...added]);
    expect(producer.sent.flatMap(({ messages }) => messages.map(({ headers }) => headers.ce_id))).toEqual(ids);
    const [alone, ...others] = producer.sent.map(({ messages }) => Buffer.byteLength(JSON.stringify(messages)));
    expect(producer.sent[0]?.messages).toHaveLength(1);
    expect(alone).toBeGreaterThan(1_000_000);
    expect(others.length).toBeGreaterThan(1);
    for (const bytes of others) expect(bytes).toBeLessThan(600_000);
    expect(decodeAtLeast(atLeast ?? '')).toEqual([{ topic: topics.roomEvents, partition: 1, offset: 3_100n }]);
  });

  it.each([
    ['nothing', undefined],
    ['no offset', [{ partition: 1, errorCode: 0 }]],
    ['an offset that was not assigned', [{ partition: 1, baseOffset: '-1' }]],
    [
      'several partitions for one key',
      [
        { partition: 1, baseOffset: '1' },
        { partition: 2, baseOffset: '1' },
      ],
    ],
  ])('no position when the producer answers %s', async (_, answer) => {
    const publisher = new RoomEventPublisher({ producer: { send: async () => answer }, ...fixed });
    expect(await publisher.publish(locked('r1'))).toEqual({ ids: ['id-1'], atLeast: undefined });
  });

  it('no position when one of two is unknown: a join that waits for the other alone would come too early', async () => {
    const { send } = recorder();
    const producer = { send: async (request: Sent) => (request.messages[0]?.key === 'a1' ? send(request) : undefined) };
    const publisher = new RoomEventPublisher({ producer, source: '/s' });
    expect((await publisher.publish(locked('a1'))).atLeast).toBeDefined();
    expect((await publisher.publish([locked('a1'), locked('b2')])).atLeast).toBeUndefined();
  });

  it('nothing is sent for no events', async () => {
    const producer = recorder();
    expect(await new RoomEventPublisher({ producer, ...fixed }).publish([])).toEqual({ ids: [], atLeast: undefined });
    expect(producer.sent).toEqual([]);
  });

  it("the producer's error is the caller's, and later rooms are not sent", async () => {
    const away = new Error('broker away');
    let calls = 0;
    const send = async () => {
      calls += 1;
      throw away;
    };
    const publisher = new RoomEventPublisher({ producer: { send }, source: '/s' });
    await expect(publisher.publish([locked('r1'), locked('r2')])).rejects.toBe(away);
    expect(calls).toBe(1);
  });
});

describe('invalid events', () => {
  it('are all named, and none is sent', async () => {
    const producer = recorder();
    const publisher = new RoomEventPublisher({ producer, ...fixed });
    const events = [
      locked('r1'),
      { type: 'member.added', subject: 'r\0', id: '', data: { userId: '', role: 'admin' } },
      { type: 'user.disabled', subject: 'ann', data: { userId: 'bob' } },
      { type: 'room.teleported', subject: 'r1' },
      { ...locked('r1'), time: new Date(Number.NaN), sequence: -1 },
    ] as unknown as OutgoingRoomEvent[];
    const error = await publisher.publish(events).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(InvalidRoomEventsError);
    const { faults, message } = error as InvalidRoomEventsError;
    const paths = [
      '/1/id',
      '/1/subject',
      '/1/data/userId',
      '/1/data/role',
      '/2/subject',
      '/3/type',
      '/4/time',
      '/4/sequence',
    ];
    expect([...new Set(faults.map(({ path }) => path))]).toEqual(paths);
    for (const path of paths) expect(message).toContain(path);
    expect(producer.sent).toEqual([]);
  });

  it('are those whose sequence is a number that stands for several', () => {
    const publisher = new RoomEventPublisher({ producer: recorder(), ...fixed });
    const sequenceAt = (sequence: bigint | number | string): string | undefined =>
      publisher.toMessages([{ ...locked('r1'), sequence }])[0]?.headers.ce_sequence;
    for (const exact of [Number.MAX_SAFE_INTEGER, 9007199254740993n, '9007199254740993'])
      expect(sequenceAt(exact)).toBe(String(exact).padStart(20, '0'));
    for (const inexact of [2 ** 53, 2 ** 64]) {
      expect(() => sequenceAt(inexact)).toThrow(InvalidRoomEventsError);
      expect(() => sequenceAt(inexact)).toThrow('/0/sequence must be exact');
    }
  });
});
