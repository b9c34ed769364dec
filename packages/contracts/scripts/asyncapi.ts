import { z } from 'zod';
import manifest from '../package.json' with { type: 'json' };
import {
  CloudEventContext,
  deadLetterTopic,
  defaultPartitionCount,
  fromStructured,
  isUserEventType,
  LivekitObserved,
  observedType,
  presenceEventData,
  presenceEventTypes,
  RoomId,
  roomEventData,
  roomEventTypes,
  Sequence,
  Timestamp,
  Traceparent,
  toBinaryHeaders,
  topics,
  UserId,
} from '../src/index.ts';
import { exampleOf, type Json } from './fixtures.ts';
import { type JsonObject, schemaConverter } from './json-schema.ts';

const weekMs = 604_800_000;
const bindingVersion = '0.5.0';

const channel = (
  address: string,
  description: string,
  retentionMs: number,
  messages: readonly string[],
): JsonObject => ({
  address,
  description,
  messages: Object.fromEntries(messages.map((name) => [name, { $ref: `#/components/messages/${name}` }])),
  bindings: {
    kafka: {
      partitions: defaultPartitionCount,
      replicas: 3,
      topicConfiguration: { 'retention.ms': retentionMs },
      bindingVersion,
    },
  },
});

const operation = (action: 'receive' | 'send', channelName: string, summary: string): JsonObject => ({
  action,
  channel: { $ref: `#/channels/${channelName}` },
  summary,
});

/** An event in binary mode. The traits carry the headers that all have. */
const eventMessage = (type: string, payload: JsonObject, key: JsonObject, example?: Json): JsonObject => ({
  name: type,
  title: type,
  ...(typeof payload.description === 'string' && { summary: payload.description }),
  traits: [{ $ref: '#/components/messageTraits/cloudEvent' }],
  payload,
  bindings: { kafka: { key, bindingVersion } },
  ...(example !== undefined && { examples: [binaryExample(example)] }),
});

const binaryExample = (structured: Json): JsonObject => {
  const { context, data } = fromStructured(structured);
  return { headers: toBinaryHeaders(context), payload: (data ?? {}) as Json };
};

const cloudEventHeaders = z.looseObject({
  'content-type': z.string().describe('`application/json`; the media type of the value.'),
  ce_specversion: CloudEventContext.shape.specversion,
  ce_id: CloudEventContext.shape.id.describe('Unique per source: a repeat changes nothing.'),
  ce_source: CloudEventContext.shape.source,
  ce_type: CloudEventContext.shape.type,
  ce_subject: CloudEventContext.shape.subject.describe('Equals the record key.'),
  ce_time: Timestamp.optional(),
  ce_sequence: Sequence.optional().describe('A monotonic version of the entity.'),
  ce_traceparent: Traceparent.optional().describe('The origin of the trace; the header `traceparent` is the last hop.'),
});

const deadLetterHeaders = z.looseObject({
  'kafka_dlt-original-topic': z.string(),
  'kafka_dlt-original-partition': z.string(),
  'kafka_dlt-original-offset': z.string(),
  'kafka_dlt-original-timestamp': z.string(),
  'kafka_dlt-exception-fqcn': z.string(),
  'kafka_dlt-exception-message': z.string(),
});

/** The AsyncAPI 3.0 document, as seen from this service. */
export const asyncApi = (): JsonObject => {
  const { components, convert } = schemaConverter('draft-7');
  const roomKey = convert(RoomId);
  const userKey = convert(UserId);
  const messages: JsonObject = {
    ...Object.fromEntries(
      roomEventTypes.map((type) => [
        type,
        eventMessage(
          type,
          convert(roomEventData[type]),
          isUserEventType(type) ? userKey : roomKey,
          exampleOf(`room-events/${type}`),
        ),
      ]),
    ),
    'livekit.webhook': eventMessage(
      'livekit.webhook',
      {
        type: 'object',
        required: ['event'],
        properties: { event: { type: 'string' } },
        description:
          "A verified webhook of LiveKit without its secrets; `ce_type` is `livekit.` and LiveKit's event name.",
      },
      roomKey,
    ),
    [observedType]: eventMessage(
      observedType,
      convert(LivekitObserved.describe("One room as LiveKit's lists have it, where that differs from what is known.")),
      roomKey,
    ),
    ...Object.fromEntries(
      presenceEventTypes.map((type) => [
        type,
        eventMessage(type, convert(presenceEventData[type]), roomKey, exampleOf(`presence-events/${type}`)),
      ]),
    ),
    deadLetter: {
      name: 'deadLetter',
      title: 'deadLetter',
      summary: 'A record that can never be applied: its own key, value and headers, and why.',
      headers: convert(deadLetterHeaders),
      payload: { description: 'The original bytes.' },
    },
  };
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'realtime-service',
      version: manifest.version,
      description:
        'Domain services publish facts about rooms and members; this service tells them who is live. Events are CloudEvents 1.0 in ' +
        'the binary mode of the Kafka binding (structured mode is read, too). The record key is the subject, partitioned by murmur2.',
      license: { name: manifest.license },
    },
    defaultContentType: 'application/json',
    servers: {
      kafka: {
        host: '{brokers}',
        protocol: 'kafka',
        variables: { brokers: { default: 'localhost:9092', description: 'As in `KAFKA_BROKERS`.' } },
      },
    },
    channels: {
      roomEvents: channel(
        topics.roomEvents,
        'Facts from domain services. Kept for ever, since a rebuild replays them.',
        -1,
        roomEventTypes,
      ),
      livekitWebhooks: channel(topics.livekitWebhooks, 'What LiveKit said and what the sweep saw. Internal.', weekMs, [
        'livekit.webhook',
        observedType,
      ]),
      presence: channel(
        topics.presence,
        'Who is live. At least once, in order per room, with one id per real change.',
        weekMs,
        presenceEventTypes,
      ),
      roomEventsDeadLetters: channel(deadLetterTopic(topics.roomEvents), 'Room events that can never be applied.', -1, [
        'deadLetter',
      ]),
      livekitWebhooksDeadLetters: channel(
        deadLetterTopic(topics.livekitWebhooks),
        'Facts of LiveKit that can never be applied.',
        weekMs,
        ['deadLetter'],
      ),
    },
    operations: {
      receiveRoomEvents: operation('receive', 'roomEvents', 'Project the facts of domain services.'),
      sendRoomEvents: operation(
        'send',
        'roomEvents',
        'Append what came over HTTP: events of producers without Kafka, and moderation.',
      ),
      sendLivekitFacts: operation('send', 'livekitWebhooks', 'Append verified webhooks and observed differences.'),
      receiveLivekitFacts: operation('receive', 'livekitWebhooks', 'Project who is live.'),
      sendPresence: operation('send', 'presence', 'Tell domain services who is live.'),
      sendRoomEventsDeadLetters: operation(
        'send',
        'roomEventsDeadLetters',
        'Show producers what could not be applied.',
      ),
      sendLivekitDeadLetters: operation('send', 'livekitWebhooksDeadLetters', 'Keep what could not be applied.'),
    },
    components: {
      messages,
      messageTraits: { cloudEvent: { contentType: 'application/json', headers: convert(cloudEventHeaders) } },
      schemas: components,
    },
  };
};
