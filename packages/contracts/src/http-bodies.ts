import { z } from 'zod';
import { Identity, LoginId, Reason, RoomId, Sid, Timestamp, UserId } from './ids.ts';
import { JoinPermissions } from './join.ts';
import { AtLeast, LogOffset, LogTopic, PartitionNumber } from './position.ts';
import { problemCodes } from './problems.ts';
import { DevicePolicy, PermissionOverrides, Privilege, Role, RoomAccess } from './room-events.ts';

/** Answer of the event route: so many facts are in the log; the projection has them once it has come to `at_least`. */
export const EventsAccepted = z.object({ accepted: z.int().min(0), at_least: AtLeast }).meta({ id: 'EventsAccepted' });
export type EventsAccepted = z.infer<typeof EventsAccepted>;

export const ModerationAccepted = z.object({ at_least: AtLeast }).meta({ id: 'ModerationAccepted' });
export type ModerationAccepted = z.infer<typeof ModerationAccepted>;

export const ModerationRequest = z.strictObject({ reason: Reason.optional() }).meta({ id: 'ModerationRequest' });
export type ModerationRequest = z.infer<typeof ModerationRequest>;

export const BanRequest = z
  .strictObject({
    userId: UserId,
    privilege: Privilege,
    seconds: z.int().min(1).max(315_360_000).optional(),
    reason: Reason.optional(),
  })
  .meta({ id: 'BanRequest' });
export type BanRequest = z.infer<typeof BanRequest>;

export const UnbanQuery = z.strictObject({ privilege: Privilege }).meta({ id: 'UnbanQuery' });
export type UnbanQuery = z.infer<typeof UnbanQuery>;

export const RoomView = z
  .object({
    roomId: RoomId,
    name: z.string().optional(),
    access: RoomAccess,
    isLocked: z.boolean(),
    isLive: z.boolean(),
    opensAt: Timestamp.optional(),
    closesAt: Timestamp.optional(),
    ownRole: Role,
  })
  .meta({ id: 'RoomView' });
export type RoomView = z.infer<typeof RoomView>;

export const ParticipantView = z
  .object({
    identity: z.string(),
    participantSid: z.string(),
    userId: UserId.optional(),
    displayName: z.string().optional(),
    role: Role.optional(),
    joinedAt: Timestamp,
  })
  .meta({ id: 'ParticipantView' });
export type ParticipantView = z.infer<typeof ParticipantView>;

export const ParticipantsView = z
  .object({
    participants: z.array(ParticipantView).max(1_000),
    isComplete: z.boolean().describe('False where more are inside than the 1,000 who came first.'),
  })
  .meta({ id: 'ParticipantsView' });
export type ParticipantsView = z.infer<typeof ParticipantsView>;

/** The data of an event of a room's stream: all of it, each time that something has changed. */
export const RoomSight = ParticipantsView.extend({ room: RoomView }).meta({ id: 'RoomSight' });
export type RoomSight = z.infer<typeof RoomSight>;

/** Answer of `/readyz`: one entry per dependency. Why one is down stands in the log alone. */
export const ReadinessView = z
  .object({
    status: z.enum(['UP', 'DOWN']),
    dependencies: z.record(z.string(), z.object({ ok: z.boolean(), latencyMs: z.number(), since: Timestamp })),
  })
  .meta({ id: 'ReadinessView' });
export type ReadinessView = z.infer<typeof ReadinessView>;

/** Query of `/explain`. */
export const ExplainQuery = z
  .strictObject({ room: RoomId, user: UserId, login: LoginId.optional() })
  .meta({ id: 'ExplainQuery' });
export type ExplainQuery = z.infer<typeof ExplainQuery>;

export const FactProvenance = z
  .object({ eventId: z.string(), topic: LogTopic, partition: PartitionNumber, offset: LogOffset, time: Timestamp })
  .meta({ id: 'FactProvenance', description: 'The fact that something was last changed by, and where it stands.' });
export type FactProvenance = z.infer<typeof FactProvenance>;

export const ExplainedVerdict = z
  .discriminatedUnion('isAllowed', [
    z.object({
      isAllowed: z.literal(true),
      role: Role,
      permissions: JoinPermissions.extend({ dispatchAgents: z.boolean() }),
      changesAt: Timestamp.nullable().describe('When the answer changes by time alone.'),
    }),
    z.object({
      isAllowed: z.literal(false),
      reason: z.string().describe('As in the log line and the label of the metric.'),
      code: z.enum(problemCodes),
      evidence: z.enum(['fact', 'absence']).describe('Whether a fact says so, or nothing is known.'),
      opensAt: Timestamp.nullable(),
    }),
  ])
  .meta({ id: 'ExplainedVerdict' });
export type ExplainedVerdict = z.infer<typeof ExplainedVerdict>;

const ExplainedRoom = z.object({
  state: z.enum(['unknown', 'open', 'closed']),
  access: RoomAccess,
  defaultRole: Role,
  isLocked: z.boolean(),
  opensAt: Timestamp.nullable(),
  closesAt: Timestamp.nullable(),
  maxParticipants: z.int().nullable(),
  devicePolicy: DevicePolicy,
  closingReason: Reason.nullable(),
  provenance: FactProvenance,
});

const ExplainedMember = z.object({
  role: Role.nullable(),
  permissions: PermissionOverrides.nullable(),
  isRemoved: z.boolean(),
  removalReason: Reason.nullable(),
  provenance: FactProvenance,
});

const ExplainedBan = z.object({
  privilege: Privilege,
  until: Timestamp.nullable().describe('Null for good.'),
  isLifted: z.boolean(),
  reason: Reason.nullable(),
  provenance: FactProvenance,
});

const ExplainedSuspect = z.object({
  scope: z.enum(['room', 'header', 'member', 'ban', 'user', 'login']),
  detail: z.string().describe('The privilege of a ban, the id of a login, else empty.'),
  provenance: FactProvenance,
});

const ExplainedSession = z.object({
  identity: Identity,
  deviceId: z.string().nullable(),
  participantSid: Sid,
  isLive: z.boolean(),
  joinedAt: Timestamp,
  endedAt: Timestamp.nullable(),
  endReason: z.string().nullable(),
  lastFactAt: Timestamp,
});

const ExplainedPartition = z
  .object({ topic: LogTopic, partition: PartitionNumber, lag: z.int(), ageMs: z.number() })
  .nullable();

/** Answer of `/explain`. Null says that there is none. Names of people and rooms are not in it. */
export const Explanation = z
  .object({
    at: Timestamp.describe("The moment of the decision, by the database's clock."),
    roomId: RoomId,
    userId: UserId,
    loginId: LoginId.nullable().describe('Null where none was asked about: then no login counts as ended.'),
    identity: Identity.describe('Who the person would be in LiveKit, without a device.'),
    join: z
      .object({ status: z.int(), code: z.enum(problemCodes).nullable(), reason: z.string().nullable() })
      .describe('What a join is answered at this moment. The gate says 403 `forbidden` to all that is below 500 here.'),
    enter: ExplainedVerdict.describe('May the person enter, by these facts?'),
    stay: ExplainedVerdict.describe('Would a session of the person be left inside?'),
    freshness: z
      .object({
        isCurrent: z
          .boolean()
          .describe(
            'False where the facts are too old to decide by, or an api that has just started waits for them: joins are answered with 503.',
          ),
        isLogKnown: z.boolean().describe('False where the end of the log cannot be read: nothing is refused for that.'),
        partition: ExplainedPartition.describe('The one that the facts about the room are in.'),
        userPartition: ExplainedPartition.describe('The one that those about the person are in.'),
      })
      .describe('Of the partitions of the log; null where its end has never been read.'),
    isRoomLive: z.boolean(),
    facts: z.object({
      room: ExplainedRoom.nullable(),
      member: ExplainedMember.nullable(),
      bans: z.array(ExplainedBan).describe('Also those that are over or lifted.'),
      user: z.object({ isDisabled: z.boolean(), provenance: FactProvenance }).nullable(),
      endedLogin: z.object({ provenance: FactProvenance }).nullable(),
      suspects: z
        .array(ExplainedSuspect)
        .describe('Doubts that keep the person out; the provenance is that of the dead letter.'),
      ownSessions: z
        .array(ExplainedSession)
        .describe('Live ones, and those that ended within two minutes. What LiveKit tells has no provenance.'),
      seats: z
        .object({
          takenByOthers: z.int(),
          ownOtherDevices: z.int(),
          ownUnusedTokens: z.int(),
          isHeld: z.boolean(),
          isReserved: z.boolean(),
        })
        .nullable()
        .describe('Null where the room counts none.'),
    }),
  })
  .meta({ id: 'Explanation' });
export type Explanation = z.infer<typeof Explanation>;
