import { z } from 'zod';
import { CloudEventContext, Traceparent, toBinaryHeaders } from './cloud-event.ts';
import { createIdCheck, faultsOf } from './faults.ts';
import { type AtLeast, encodeAtLeast, LogOffset, type LogPosition, PartitionNumber } from './position.ts';
import type { ProblemFault } from './problems.ts';
import { type RoomEventData, type RoomEventReading, type RoomEventType, readRoomEvent } from './room-events.ts';
import { topics } from './topics.ts';

/** A record as kafkajs and its kin take it. */
export interface ProducerMessage {
  key: string;
  value: string;
  headers: Record<string, string>;
}

/**
 * What the publisher needs of a Kafka client; kafkajs' `Producer` is one. It must partition by murmur2, as Java does.
 */
export interface MessageProducer {
  send(request: { topic: string; messages: ProducerMessage[] }): Promise<unknown>;
}

interface Envelope<T extends RoomEventType> {
  readonly type: T;
  /** The room's id; the user's for `user.*` and `login.*`. */
  readonly subject: string;
  /** Pass the id of your outbox row, so that publishing it again changes nothing. A random UUID by default. */
  readonly id?: string | undefined;
  /** When it happened. Now by default; the order of facts never rests on it. */
  readonly time?: Date | undefined;
  /**
   * A monotonic version of the entity (room, member, ban, user), where there is one; a number only where it is safe.
   */
  readonly sequence?: bigint | number | string | undefined;
  /** W3C trace context of what caused the fact; left out when it is not valid. */
  readonly traceparent?: string | undefined;
}

/**
 * What says nothing, as `{}`: one `Record<string, never>` among the events has the compiler call each text in the data
 * of any event wrong, where it should name the misspelt field.
 */
type DataOf<T extends RoomEventType> =
  RoomEventData<T> extends Record<string, never> | undefined ? Record<never, never> | undefined : RoomEventData<T>;

type Payload<T extends RoomEventType> =
  undefined extends RoomEventData<T> ? { readonly data?: DataOf<T> } : { readonly data: DataOf<T> };

/** A fact to publish: the type says what `data` is. */
export type OutgoingRoomEvent = { [T in RoomEventType]: Envelope<T> & Payload<T> }[RoomEventType];

export interface PublishedRoomEvents {
  /** The CloudEvents ids, in the order of the events. */
  readonly ids: readonly string[];
  /** To hand to clients that join right away; undefined when the producer answered no offsets. */
  readonly atLeast: AtLeast | undefined;
}

/** Nothing was sent. `faults` names what is wrong by the event's index and path; the first hundred of each event. */
export class InvalidRoomEventsError extends Error {
  override readonly name = 'InvalidRoomEventsError';
  readonly faults: readonly ProblemFault[];

  constructor(faults: readonly ProblemFault[]) {
    super(`Invalid room events: ${faults.map(({ path, message }) => `${path} ${message}`).join('; ')}`);
    this.faults = faults;
  }
}

/** kafkajs answers the offset of the first record of each partition. */
const ProducerAnswer = z.array(z.object({ partition: PartitionNumber, baseOffset: LogOffset })).length(1);

/** A broker takes 1 MiB at once (`message.max.bytes`), with headers that instrumentations of the client may add. */
const maxRequestBytes = 500_000;
/** Of a record: its lengths and its time. */
const overheadBytes = 64;
const utf8 = new TextEncoder();

const bytesOf = ({ key, value, headers }: ProducerMessage): number =>
  overheadBytes + utf8.encode([key, value, ...Object.entries(headers).flat()].join('')).length;

/** In their order. A record that is larger goes alone: the topic may take it. */
const toRequests = (messages: readonly ProducerMessage[]): ProducerMessage[][] => {
  const requests: ProducerMessage[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const message of messages) {
    const ownBytes = bytesOf(message);
    bytes += ownBytes;
    if (bytes > maxRequestBytes) {
      requests.push([]);
      bytes = ownBytes;
    }
    requests.at(-1)?.push(message);
  }
  return requests;
};

const AttributesButSubject = CloudEventContext.omit({ subject: true });

/** Faults of the attributes but `subject`, which the reading checks by the type. */
const contextFaults = (context: CloudEventContext): readonly ProblemFault[] => {
  const { error } = AttributesButSubject.safeParse(context);
  return error === undefined ? [] : faultsOf(error);
};

/** Numbers that are not safe integers are rounded, so that two versions would be one. */
const sequenceFaults = ({ sequence }: OutgoingRoomEvent): readonly ProblemFault[] =>
  typeof sequence === 'number' && !Number.isSafeInteger(sequence)
    ? [{ path: '/sequence', message: 'must be exact: a safe integer, a bigint or a string of digits' }]
    : [];

const readingFaults = (reading: RoomEventReading): readonly ProblemFault[] => {
  switch (reading.kind) {
    case 'event':
      return [];
    case 'unknown_type':
      return [{ path: '/type', message: 'must be a known type' }];
    case 'invalid':
      return reading.faults;
  }
};

const timestampOf = (time: Date): string => (Number.isNaN(time.getTime()) ? String(time) : time.toISOString());

export interface RoomEventPublisherOptions {
  readonly producer: MessageProducer;
  /** CloudEvents `source`: who says so, the same for every instance of a service, such as `/services/rooms`. */
  readonly source: string;
  readonly now?: () => Date;
  readonly newId?: () => string;
}

/** Publishes room events in the binary mode of the CloudEvents Kafka binding, each checked before any is sent. */
export class RoomEventPublisher {
  readonly #producer: MessageProducer;
  readonly #source: string;
  readonly #now: () => Date;
  readonly #newId: () => string;

  constructor({
    producer,
    source,
    now = () => new Date(),
    newId = () => crypto.randomUUID(),
  }: RoomEventPublisherOptions) {
    this.#producer = producer;
    this.#source = source;
    this.#now = now;
    this.#newId = newId;
  }

  /**
   * Sends requests of one room (or user) each, one after the other, so that the events of a room stay in order and the
   * position of each is known. Not atomic: after a rejection some events may stand, and publishing all of them again
   * *with the same ids* is safe.
   * @throws {InvalidRoomEventsError} before anything is sent
   * @throws whatever the producer throws
   */
  async publish(events: OutgoingRoomEvent | readonly OutgoingRoomEvent[]): Promise<PublishedRoomEvents> {
    const messages = this.toMessages([events].flat());
    const positions: (LogPosition | undefined)[] = [];
    const requests = [...Map.groupBy(messages, ({ key }) => key).values()].flatMap(toRequests);
    for (const request of requests) positions.push(await this.#send(request));
    const known = positions.filter((position) => position !== undefined);
    return {
      ids: messages.map(({ headers }) => headers.ce_id as string),
      atLeast: known.length > 0 && known.length === positions.length ? encodeAtLeast(known) : undefined,
    };
  }

  /**
   * The records of these events, for producers that send in their own way (a transaction, an outbox relay).
   * @throws {InvalidRoomEventsError}
   */
  toMessages(events: readonly OutgoingRoomEvent[]): ProducerMessage[] {
    const faults: ProblemFault[] = [];
    const messages: ProducerMessage[] = [];
    const faultsOfId = createIdCheck<string>((known, fact) => known === fact);
    for (const [index, event] of events.entries()) {
      const context = this.#contextOf(event);
      const reading = readRoomEvent({ context, data: event.data });
      const found = [...contextFaults(context), ...sequenceFaults(event), ...readingFaults(reading)];
      if (reading.kind === 'event') {
        const { id, type, subject } = context;
        const value = JSON.stringify(reading.event.data ?? {});
        messages.push({ key: subject, value, headers: toBinaryHeaders(context) });
        found.push(...faultsOfId(id, JSON.stringify([type, subject, value])));
      }
      faults.push(...found.map(({ path, message }) => ({ path: `/${index}${path}`, message })));
    }
    if (faults.length > 0) throw new InvalidRoomEventsError(faults);
    return messages;
  }

  #contextOf({ type, subject, id, time, sequence, traceparent }: OutgoingRoomEvent): CloudEventContext {
    return {
      specversion: '1.0',
      id: id ?? this.#newId(),
      source: this.#source,
      type,
      subject,
      time: timestampOf(time ?? this.#now()),
      sequence: sequence?.toString(),
      traceparent: Traceparent.safeParse(traceparent).data,
    };
  }

  async #send(messages: ProducerMessage[]): Promise<LogPosition | undefined> {
    const answer = ProducerAnswer.safeParse(await this.#producer.send({ topic: topics.roomEvents, messages }))
      .data?.[0];
    if (answer === undefined) return undefined;
    const offset = BigInt(answer.baseOffset) + BigInt(messages.length - 1);
    return { topic: topics.roomEvents, partition: answer.partition, offset };
  }
}
