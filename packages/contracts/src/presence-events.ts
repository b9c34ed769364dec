import { z } from 'zod';
import { UserId } from './ids.ts';
import { JoinPermissions } from './join.ts';

const session = z.object({
  roomSid: z.string(),
  participantSid: z.string(),
  identity: z.string(),
  userId: UserId.optional(),
  deviceId: z.string().optional(),
});

/** What we tell domain services, so that they never parse LiveKit's webhooks. At least once, in order per room. */
export const presenceEventData = {
  'room.live_started': z.object({ roomSid: z.string() }),
  'room.live_ended': z.object({ roomSid: z.string() }),
  'participant.joined': session,
  'participant.left': session.extend({ reason: z.string() }),
  'participant.removed': session.extend({ reason: z.string(), latencyMs: z.int().min(0).optional() }),
  'participant.permissions_applied': session.extend({ permissions: JoinPermissions }),
} as const;

export type PresenceEventType = keyof typeof presenceEventData;
export type PresenceEventData<T extends PresenceEventType> = z.output<(typeof presenceEventData)[T]>;
export type PresenceEvent = {
  [T in PresenceEventType]: { readonly type: T; readonly roomId: string; readonly data: PresenceEventData<T> };
}[PresenceEventType];
