import { z } from 'zod';
import { boundedText } from './ids.ts';

/**
 * LiveKit's webhooks and our own observations of its lists, read tolerantly: newer servers add names, fields and enum
 * values, and a fact must not be lost for them (livekit/protocol livekit_webhook.proto, livekit_models.proto).
 */

/** protojson writes 64-bit numbers as strings; other writers do not. */
const Int64 = z
  .union([z.string().regex(/^-?\d{1,19}$/), z.number().int()])
  .transform((value) => Number(value))
  .catch(0);

/** Enums are names, or numbers where the writer did not know the name. */
const EnumName = z.union([z.string(), z.number()]).transform(String);

const toCamel = (key: string): string => key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** protojson may be written with proto names; attribute maps keep their keys. */
const camelKeys = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(camelKeys);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [toCamel(key), key === 'attributes' ? inner : camelKeys(inner)]),
  );
};

export const LivekitRoom = z.object({
  sid: boundedText(128).min(1),
  name: boundedText(256).min(1),
  creationTime: Int64.optional(),
  creationTimeMs: Int64.optional(),
  metadata: z.string().optional().catch(undefined),
});
export type LivekitRoom = z.infer<typeof LivekitRoom>;

export const ParticipantKind = z
  .enum(['STANDARD', 'INGRESS', 'EGRESS', 'SIP', 'AGENT', 'CONNECTOR', 'BRIDGE'])
  .or(z.literal('UNKNOWN'));
export type ParticipantKind = z.infer<typeof ParticipantKind>;

const kindOf = (value: string | undefined): ParticipantKind => ParticipantKind.catch('UNKNOWN').parse(value ?? 'STANDARD');

export const LivekitParticipant = z.object({
  sid: boundedText(128).min(1),
  identity: boundedText(512).min(1),
  state: EnumName.optional().catch(undefined),
  joinedAt: Int64.optional(),
  joinedAtMs: Int64.optional(),
  version: Int64.optional(),
  kind: EnumName.optional().catch(undefined).transform(kindOf),
  attributes: z.record(z.string(), z.string()).optional().catch(undefined),
  permission: z.looseObject({ hidden: z.boolean().optional() }).optional().catch(undefined),
  disconnectReason: EnumName.optional().catch(undefined),
});
export type LivekitParticipant = z.infer<typeof LivekitParticipant>;

/** The envelope that every webhook has. An id is missing only in hand-made ones. */
export const LivekitWebhook = z.preprocess(
  camelKeys,
  z.object({
    event: z.string().min(1).max(128),
    id: boundedText(256).min(1).optional(),
    createdAt: Int64.optional(),
    room: z.unknown(),
    participant: z.unknown(),
  }),
);
export type LivekitWebhook = z.infer<typeof LivekitWebhook>;

/** CloudEvents type of a webhook in the log is `livekit.` + its event name; a sweep's difference is this one. */
export const observedType = 'livekit.observed';

/** One room as LiveKit listed it. `room` is null when LiveKit has no such room. */
export const LivekitObserved = z.object({
  roomName: boundedText(256).min(1),
  /** When the list was asked for, milliseconds since the epoch: facts received later win. */
  listedAtMs: z.int().min(0),
  room: LivekitRoom.nullable(),
  participants: z.array(LivekitParticipant).max(10_000),
});
export type LivekitObserved = z.infer<typeof LivekitObserved>;

export type LivekitFact =
  | { readonly type: 'room_started' | 'room_finished'; readonly room: LivekitRoom }
  | {
      readonly type: 'participant_joined' | 'participant_left' | 'participant_connection_aborted';
      readonly room: LivekitRoom;
      readonly participant: LivekitParticipant;
    }
  | { readonly type: 'observed'; readonly observed: LivekitObserved };

/** Events that are known and change no state of ours. */
const uninteresting = new Set(['track_published', 'track_unpublished', 'egress_started', 'egress_updated', 'egress_ended', 'ingress_started', 'ingress_ended']);

export type LivekitReading =
  | { readonly kind: 'fact'; readonly fact: LivekitFact }
  | { readonly kind: 'ignored'; readonly why: 'no_state' | 'unknown_event' | 'incomplete' };

/** Reads a webhook's JSON. Never throws for what a newer LiveKit could send. */
export const readLivekitWebhook = (value: unknown): LivekitReading => {
  const webhook = LivekitWebhook.safeParse(value);
  if (!webhook.success) return { kind: 'ignored', why: 'incomplete' };
  const { event } = webhook.data;
  switch (event) {
    case 'room_started':
    case 'room_finished': {
      const room = LivekitRoom.safeParse(webhook.data.room);
      return room.success ? { kind: 'fact', fact: { type: event, room: room.data } } : { kind: 'ignored', why: 'incomplete' };
    }
    case 'participant_joined':
    case 'participant_left':
    case 'participant_connection_aborted': {
      const room = LivekitRoom.safeParse(webhook.data.room);
      const participant = LivekitParticipant.safeParse(webhook.data.participant);
      if (!room.success || !participant.success) return { kind: 'ignored', why: 'incomplete' };
      return { kind: 'fact', fact: { type: event, room: room.data, participant: participant.data } };
    }
    default:
      return { kind: 'ignored', why: uninteresting.has(event) ? 'no_state' : 'unknown_event' };
  }
};
