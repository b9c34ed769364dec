import { z } from 'zod';
import { boundedText } from './ids.ts';

/**
 * LiveKit's webhooks and our own observations of its lists, read tolerantly: newer servers add names, fields and enum
 * values, and a fact must not be lost for them (livekit/protocol livekit_webhook.proto, livekit_models.proto).
 */

/** protojson writes 64-bit numbers as strings; other writers do not. What no clock or counter reaches counts as 0. */
const Int64 = z
  .union([z.string().regex(/^-?\d{1,19}$/), z.number()])
  .transform(Number)
  .pipe(z.int())
  .catch(0);

/** Enums are names, or numbers where the writer did not know the name. */
const EnumName = z.union([boundedText(128), z.number()]).transform(String);

const toCamel = (key: string): string =>
  key.includes('_') ? key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()) : key;

/**
 * protojson may be written with proto names; attribute maps keep their keys. What we read lies at most 4 deep, and what
 * lies deeper stays as it is, so that no nesting overflows the stack.
 */
export const camelKeys = (value: unknown, depth = 4): unknown => {
  if (depth === 0 || value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map((inner) => camelKeys(inner, depth - 1));
  // Most writers use our names already, and a copy of everything would be a good part of a record's cost.
  let camel: Record<string, unknown> | undefined;
  for (const [key, inner] of Object.entries(value)) {
    const name = toCamel(key);
    const read = key === 'attributes' ? inner : camelKeys(inner, depth - 1);
    if (camel === undefined && name === key && read === inner) continue;
    camel ??= { ...value };
    if (name !== key) delete camel[key];
    camel[name] = read;
  }
  return camel ?? value;
};

const AttributeText = boundedText(65_536);

/** A participant's attributes; one that cannot be stored is left out, the others count. */
const Attributes = z.record(z.string(), z.unknown()).transform((attributes) => {
  const isStorable = (value: unknown) => AttributeText.safeParse(value).success;
  const kept = Object.entries(attributes).filter(
    (entry): entry is [string, string] => isStorable(entry[0]) && isStorable(entry[1]),
  );
  return Object.fromEntries(kept);
});

export const LivekitRoom = z.object({
  sid: boundedText(128).min(1),
  name: boundedText(256).min(1),
  creationTime: Int64.optional(),
  creationTimeMs: Int64.optional(),
  metadata: boundedText(65_536).optional().catch(undefined),
});
export type LivekitRoom = z.infer<typeof LivekitRoom>;

export const ParticipantKind = z.enum([
  'STANDARD',
  'INGRESS',
  'EGRESS',
  'SIP',
  'AGENT',
  'CONNECTOR',
  'BRIDGE',
  'UNKNOWN',
]);
export type ParticipantKind = z.infer<typeof ParticipantKind>;

const KnownKind = ParticipantKind.catch('UNKNOWN');
const kindOf = (value: string | undefined): ParticipantKind => KnownKind.parse(value ?? 'STANDARD');

export const LivekitParticipant = z.object({
  sid: boundedText(128).min(1),
  identity: boundedText(512).min(1),
  state: EnumName.optional().catch(undefined),
  joinedAt: Int64.optional(),
  joinedAtMs: Int64.optional(),
  version: Int64.optional(),
  kind: EnumName.optional().catch(undefined).transform(kindOf),
  attributes: Attributes.optional().catch(undefined),
  permission: z.object({ hidden: z.boolean().optional() }).optional().catch(undefined),
  disconnectReason: EnumName.optional().catch(undefined),
});
export type LivekitParticipant = z.infer<typeof LivekitParticipant>;

/** As its publisher has announced it, but for `mimeType`: what arrives. LiveKit leaves out `AUDIO` and `UNKNOWN`. */
export const LivekitTrack = z.object({
  type: EnumName.optional().catch(undefined),
  source: EnumName.optional().catch(undefined),
  mimeType: boundedText(128).optional().catch(undefined),
});
export type LivekitTrack = z.infer<typeof LivekitTrack>;

const kindOfSource: ReadonlyMap<string, 'AUDIO' | 'VIDEO'> = new Map([
  ['MICROPHONE', 'AUDIO'],
  ['SCREEN_SHARE_AUDIO', 'AUDIO'],
  ['CAMERA', 'VIDEO'],
  ['SCREEN_SHARE', 'VIDEO'],
]);

/**
 * By what arrives, else by what was announced; undefined for what is neither, as a codec that LiveKit does not know.
 */
const mediaOf = ({ type = 'AUDIO', mimeType = '' }: LivekitTrack): string | undefined =>
  /^(?:audio|video)(?=\/|$)/i.exec(mimeType || type)?.[0].toUpperCase();

/**
 * Whether a track is audio under a source of video, or the other way round. LiveKit compares the source alone with what
 * somebody may publish (livekit pkg/rtc/participant.go, `AddTrack`), and refuses one that is unknown where sources
 * are set.
 */
export const isDisguised = (track: LivekitTrack): boolean => {
  const due = kindOfSource.get(track.source ?? '');
  const media = mediaOf(track);
  return due !== undefined && media !== undefined && media !== due;
};

/** The envelope that every webhook has. An id is missing only in hand-made ones. */
const LivekitWebhook = z.preprocess(
  (value) => camelKeys(value),
  z.object({
    event: boundedText(128).min(1),
    id: boundedText(256).min(1).optional().catch(undefined),
    createdAt: Int64.optional(),
    room: z.unknown().optional(),
    participant: z.unknown().optional(),
    track: z.unknown().optional(),
  }),
);
type LivekitWebhook = z.infer<typeof LivekitWebhook>;

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

/** What a webhook tells. */
export type WebhookFact =
  | { readonly type: 'room_started' | 'room_finished'; readonly room: LivekitRoom }
  | { readonly type: 'participant_joined'; readonly room: LivekitRoom; readonly participant: LivekitParticipant }
  | {
      readonly type: 'participant_left' | 'participant_connection_aborted';
      readonly room: LivekitRoom;
      readonly participant: LivekitParticipant;
    }
  /** Of a disguised track only: others say nothing here. */
  | {
      readonly type: 'track_published';
      readonly room: LivekitRoom;
      readonly participant: LivekitParticipant;
      readonly track: LivekitTrack;
    };

/** What LiveKit tells, and what a sweep finds in its lists. */
export type LivekitFact = WebhookFact | { readonly type: 'observed'; readonly observed: LivekitObserved };

const readWebhook = z.compile(LivekitWebhook);
const readRoom = z.compile(LivekitRoom);
const readParticipant = z.compile(LivekitParticipant);
const readTrack = z.compile(LivekitTrack);

/** Events that are known and change no state of ours. */
const uninteresting = new Set([
  'track_unpublished',
  'egress_started',
  'egress_updated',
  'egress_ended',
  'ingress_started',
  'ingress_ended',
]);

/** A webhook that changes state, as LiveKit named and dated it: `id` is missing in hand-made ones. */
export interface ReadWebhook extends Pick<LivekitWebhook, 'id' | 'createdAt'> {
  readonly kind: 'fact';
  readonly fact: WebhookFact;
}

type Ignored = 'no_state' | 'unknown_event' | 'incomplete';

const readPresence = (webhook: LivekitWebhook): { room: LivekitRoom; participant: LivekitParticipant } | undefined => {
  const room = readRoom.safeParse(webhook.room);
  const participant = readParticipant.safeParse(webhook.participant);
  return room.success && participant.success ? { room: room.data, participant: participant.data } : undefined;
};

/** Reads of a webhook no more than its event needs: most are about tracks that say nothing here. */
const factOf = (webhook: LivekitWebhook): WebhookFact | Ignored => {
  const { event } = webhook;
  switch (event) {
    case 'room_started':
    case 'room_finished': {
      const room = readRoom.safeParse(webhook.room);
      return room.success ? { type: event, room: room.data } : 'incomplete';
    }
    case 'participant_joined':
    case 'participant_left':
    case 'participant_connection_aborted': {
      const presence = readPresence(webhook);
      return presence === undefined ? 'incomplete' : { type: event, ...presence };
    }
    case 'track_published': {
      const track = readTrack.safeParse(webhook.track);
      if (!track.success || !isDisguised(track.data)) return 'no_state';
      const presence = readPresence(webhook);
      return presence === undefined ? 'incomplete' : { type: event, ...presence, track: track.data };
    }
    default:
      return uninteresting.has(event) ? 'no_state' : 'unknown_event';
  }
};

/** Reads a webhook's JSON. Never throws for what a newer LiveKit could send. */
export const readLivekitWebhook = (
  value: unknown,
): ReadWebhook | { readonly kind: 'ignored'; readonly why: Ignored } => {
  const webhook = readWebhook.safeParse(value);
  if (!webhook.success) return { kind: 'ignored', why: 'incomplete' };
  const fact = factOf(webhook.data);
  if (typeof fact === 'string') return { kind: 'ignored', why: fact };
  const { id, createdAt } = webhook.data;
  return { kind: 'fact', fact, id, createdAt };
};
