import { z } from 'zod';
import { type CloudEvent, CloudEventContext } from './cloud-event.ts';
import { faultsOf } from './faults.ts';
import { boundedText, Identity, LoginId, Reason, RoomId, Sid, Timestamp, UserId } from './ids.ts';
import { optional } from './optional.ts';
import { LogOffset, LogTopic, PartitionNumber } from './position.ts';
import type { ProblemFault } from './problems.ts';

export const Role = z.enum(['host', 'moderator', 'speaker', 'listener', 'observer']).meta({
  id: 'Role',
  description:
    'From the highest to the lowest. All subscribe. `host`, `moderator` and `speaker` publish every source and send data; the first two moderate, `host` alone dispatches agents. `listener` publishes nothing. Nor does `observer`, who is `hidden`.',
});
export type Role = z.infer<typeof Role>;

export const Privilege = z
  .enum(['join', 'publish_audio', 'publish_video', 'screen_share', 'data'])
  .meta({ id: 'Privilege', description: 'What a ban takes away.' });
export type Privilege = z.infer<typeof Privilege>;

export const MediaSource = z
  .enum(['microphone', 'camera', 'screen_share', 'screen_share_audio'])
  .meta({ id: 'MediaSource' });
export type MediaSource = z.infer<typeof MediaSource>;

export const PermissionOverrides = z
  .object({
    publishSources: optional(z.array(MediaSource).max(4)),
    subscribe: optional(z.boolean()),
    publishData: optional(z.boolean()),
    hidden: optional(z.boolean()),
    dispatchAgents: optional(z.boolean()),
  })
  .meta({ id: 'PermissionOverrides', description: 'Replaces what the role says, field by field.' });
export type PermissionOverrides = z.infer<typeof PermissionOverrides>;

export const DevicePolicy = z
  .discriminatedUnion('mode', [
    z.object({ mode: z.literal('multi'), max: optional(z.int().min(1).max(100)) }),
    z.object({ mode: z.literal('single_newest') }),
    z.object({ mode: z.literal('single_oldest') }),
  ])
  .meta({
    id: 'DevicePolicy',
    description:
      '`multi` counts devices, `single_newest` lets the newcomer take over, `single_oldest` refuses the newcomer, unless it asks to take over.',
  });
export type DevicePolicy = z.infer<typeof DevicePolicy>;

export const RoomSettings = z
  .object({
    clientName: optional(z.boolean()),
    clientMetadata: optional(z.boolean()),
    clientAttributes: optional(z.boolean()),
  })
  .meta({ id: 'RoomSettings', description: 'What a client may bring into its own token. All off by default.' });
export type RoomSettings = z.infer<typeof RoomSettings>;

export const RoomAccess = z
  .enum(['members', 'authenticated'])
  .meta({ id: 'RoomAccess', description: '`authenticated`: any valid caller enters with the default role.' });
export type RoomAccess = z.infer<typeof RoomAccess>;

const DisplayName = boundedText(512);

export const MemberData = z
  .object({
    userId: UserId,
    role: Role,
    displayName: optional(DisplayName),
    permissions: optional(PermissionOverrides),
  })
  .meta({ id: 'MemberData' });
export type MemberData = z.infer<typeof MemberData>;

const maxParticipants = z
  .int()
  .min(1)
  .max(100_000)
  .meta({ description: 'Most people inside at once. Null or left out: no limit. To let nobody in, lock the room.' });

/** Of two entries about one person none can be known to be the one that was meant. */
const Members = z
  .array(MemberData)
  .max(10_000)
  .superRefine((members, context) => {
    const named = new Set<string>();
    for (const [at, { userId }] of members.entries()) {
      if (named.has(userId)) context.addIssue({ code: 'custom', path: [at, 'userId'], message: 'named before' });
      named.add(userId);
    }
  });

const RoomCreated = z.object({
  name: optional(boundedText(512)),
  access: optional(RoomAccess),
  defaultRole: optional(Role),
  opensAt: optional(Timestamp),
  closesAt: optional(Timestamp),
  maxParticipants: optional(maxParticipants),
  devicePolicy: optional(DevicePolicy),
  settings: optional(RoomSettings),
  /** Full state: members that are not named become removed. */
  members: optional(Members),
});

const RoomUpdated = z.object({
  name: boundedText(512).nullable().optional(),
  access: RoomAccess.nullable().optional(),
  defaultRole: Role.nullable().optional(),
  opensAt: Timestamp.nullable().optional(),
  closesAt: Timestamp.nullable().optional(),
  maxParticipants: maxParticipants.nullable().optional(),
  devicePolicy: DevicePolicy.nullable().optional(),
  settings: RoomSettings.nullable().optional(),
});

const nothing = optional(z.object({}));

export const DeadLetterPosition = z
  .object({ topic: LogTopic, partition: PartitionNumber, offset: LogOffset })
  .meta({ id: 'DeadLetterPosition', description: 'Where a dead letter stands: the record that could not be applied.' });
export type DeadLetterPosition = z.infer<typeof DeadLetterPosition>;

/** Text for people never keeps a right from being taken: an unfit reason is dropped, the fact counts. */
const RemovalReason = optional(Reason).catch(undefined);

/** Whoever took or gave back a right through a moderation route. Nothing rests on it. */
const Moderator = optional(UserId).catch(undefined);

/** One data schema per event type. Unknown fields are ignored: producers may be newer than we are. */
export const roomEventData = {
  'room.created': RoomCreated.meta({
    description:
      'The room exists, with these properties. With `members` it is full state: each person is named once, and members not named become removed. What else is absent is: access `members`, default role `listener`, devices `multi`, no limit, no schedule, all settings off.',
  }),
  'room.updated': RoomUpdated.meta({ description: 'Some properties changed: absent = unchanged, null = cleared.' }),
  'room.locked': nothing.meta({
    description: 'From now on only those who are live in it, hosts and moderators may enter.',
  }),
  'room.unlocked': nothing.meta({ description: 'The lock is lifted.' }),
  'room.closed': optional(z.object({ reason: RemovalReason })).meta({
    description: 'The room is over, for good: its call ends and joins answer `room_closed`.',
  }),
  'member.added': MemberData.meta({
    description: 'This person is a member, exactly so: what is absent falls back to the role.',
  }),
  'member.updated': z
    .object({
      userId: UserId,
      role: optional(Role),
      displayName: DisplayName.nullable().optional(),
      permissions: PermissionOverrides.nullable().optional(),
    })
    .meta({
      description: 'Something about a member changed: absent = unchanged, null = cleared (a role cannot be cleared).',
    }),
  'member.removed': z.object({ userId: UserId, reason: RemovalReason }).meta({
    description:
      "This person is no member any more; live sessions end. Where the room's access is `authenticated` everybody with a valid token may enter, this person too, with the default role: ban to keep somebody out.",
  }),
  'member.banned': z
    .object({
      userId: UserId,
      privilege: Privilege,
      until: optional(Timestamp),
      by: Moderator,
      reason: RemovalReason,
    })
    .meta({ description: 'One privilege is taken away, until then or for good. A ban outlives membership.' }),
  'member.unbanned': z
    .object({ userId: UserId, privilege: Privilege, by: Moderator })
    .meta({ description: 'The ban of that privilege is lifted.' }),
  'user.disabled': z
    .object({ userId: UserId })
    .meta({ description: 'In every room: this person may not enter, and live sessions end.' }),
  'user.enabled': z
    .object({ userId: UserId })
    .meta({ description: 'In every room: this person may enter again where a member.' }),
  'login.ended': z
    .object({ userId: UserId, sid: LoginId })
    .meta({ description: 'That login (Keycloak `sid`) is over, and with it the calls that were joined by it.' }),
  'participant.kick_requested': z
    .object({
      participantSid: Sid,
      identity: Identity,
      by: UserId,
      reason: RemovalReason,
    })
    .meta({ description: 'A moderator ends one session, and no later one. Appended by the moderation route.' }),
  'track.mute_requested': z
    .object({
      participantSid: Sid,
      identity: Identity,
      trackSid: Sid,
      by: UserId,
      reason: RemovalReason,
    })
    .meta({ description: 'A moderator mutes one track. Appended by the moderation route.' }),
  'dead_letter.retried': DeadLetterPosition.meta({
    description: "An operator had a dead letter applied again. Appended by operators' tools.",
  }),
  'dead_letter.discarded': DeadLetterPosition.meta({
    description: "An operator gave a dead letter up. Appended by operators' tools.",
  }),
} as const;

export type RoomEventType = keyof typeof roomEventData;
export type RoomEventData<T extends RoomEventType> = z.output<(typeof roomEventData)[T]>;

/** A decoded room event: the type says what `data` is. */
export type RoomEvent = {
  [T in RoomEventType]: { readonly type: T; readonly subject: string; readonly data: RoomEventData<T> };
}[RoomEventType];

export const roomEventTypes = Object.keys(roomEventData) as [RoomEventType, ...RoomEventType[]];
export const isRoomEventType = (type: string): type is RoomEventType => Object.hasOwn(roomEventData, type);

type UserEventType = 'user.disabled' | 'user.enabled' | 'login.ended';

/** Facts about a user or a login are keyed by the user; all others by the room. */
export const isUserEventType = (type: RoomEventType): type is UserEventType =>
  type === 'user.disabled' || type === 'user.enabled' || type === 'login.ended';

const isUserEvent = (event: RoomEvent): event is Extract<RoomEvent, { readonly type: UserEventType }> =>
  isUserEventType(event.type);

/**
 * The schema of a whole event in structured mode, for documents and other languages. `readRoomEvent` is the reader: it
 * knows one rule more, that the subject of a user's event equals `data.userId`.
 */
export const structuredRoomEvent = (type: RoomEventType) =>
  CloudEventContext.extend({
    type: z.literal(type),
    subject: isUserEventType(type) ? UserId : RoomId,
    data: roomEventData[type],
  }).meta({ id: `event.${type}`, description: roomEventData[type].description ?? type });

const readRoomId = z.compile(RoomId);
const readUserId = z.compile(UserId);
const readData = Object.fromEntries(
  Object.entries(roomEventData).map(([type, schema]) => [type, z.compile<z.ZodType>(schema)]),
) as Readonly<Record<RoomEventType, z.ZodType>>;

export type RoomEventReading =
  | { readonly kind: 'event'; readonly event: RoomEvent }
  | { readonly kind: 'unknown_type' }
  | { readonly kind: 'invalid'; readonly faults: readonly ProblemFault[] };

/** Checks subject and data by the schema of the type. The one reader for the log and for the event route. */
export const readRoomEvent = ({ context, data }: CloudEvent): RoomEventReading => {
  const { type, subject } = context;
  if (!isRoomEventType(type)) return { kind: 'unknown_type' };
  const faults: ProblemFault[] = [];
  const subjectCheck = (isUserEventType(type) ? readUserId : readRoomId).safeParse(subject);
  if (!subjectCheck.success) faults.push(...faultsOf(subjectCheck.error, '/subject'));
  const parsed = readData[type].safeParse(data);
  if (!parsed.success) faults.push(...faultsOf(parsed.error, '/data'));
  if (faults.length > 0 || !parsed.success) return { kind: 'invalid', faults };
  const event = { type, subject, data: parsed.data } as RoomEvent;
  if (isUserEvent(event) && event.data.userId !== subject)
    return { kind: 'invalid', faults: [{ path: '/subject', message: 'must equal data.userId' }] };
  return { kind: 'event', event };
};
