import { z } from 'zod';
import { Reason, RoomId, Timestamp, UserId } from './ids.ts';
import { AtLeast } from './position.ts';
import { Privilege, Role, RoomAccess } from './room-events.ts';

/** Answer of the event route and of the moderation routes: the fact is in the log, at this position. */
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

/** Answer of `/readyz`: one entry per dependency. */
export const ReadinessView = z
  .object({
    ready: z.boolean(),
    checks: z.record(
      z.string(),
      z.object({ ok: z.boolean(), latencyMs: z.number(), since: Timestamp, error: z.string().optional() }),
    ),
  })
  .meta({ id: 'ReadinessView' });
export type ReadinessView = z.infer<typeof ReadinessView>;
