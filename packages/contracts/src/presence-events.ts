import { z } from 'zod';
import { CloudEventContext } from './cloud-event.ts';
import { RoomId, UserId } from './ids.ts';
import { JoinPermissions } from './join.ts';

const session = z.object({
  roomSid: z.string(),
  participantSid: z.string(),
  identity: z.string(),
  userId: UserId.optional(),
  deviceId: z.string().optional(),
});

/** Their `source`, whichever process wrote them. */
export const presenceSource = 'realtime-service';

/** What we tell domain services, so that they never parse LiveKit's webhooks. At least once, in order per room. */
export const presenceEventData = {
  'room.live_started': z
    .object({ roomSid: z.string() })
    .meta({ description: 'LiveKit opened the room: a call begins.' }),
  'room.live_ended': z.object({ roomSid: z.string() }).meta({
    description:
      'LiveKit closed the room: the call is over. That somebody who was still inside has left may be told only after it, and after the next `room.live_started`.',
  }),
  'participant.joined': session.meta({
    description: 'A session is live, and seen by others. One person with two devices has two.',
  }),
  'participant.left': session.extend({ reason: z.string() }).meta({
    description: "A session ended by itself, or is not seen by others any more (`hidden`); else `reason` is LiveKit's.",
  }),
  'participant.removed': session.extend({ reason: z.string() }).meta({
    description:
      "A session was ended by us; `reason` is LiveKit's word for that, `PARTICIPANT_REMOVED`, whatever the cause.",
  }),
  'participant.permissions_applied': session.extend({ permissions: JoinPermissions }).meta({
    description:
      'LiveKit enforces these permissions on a live session that others see, from now on. Not told of those that its token brought.',
  }),
} as const;

export type PresenceEventType = keyof typeof presenceEventData;
export type PresenceEventData<T extends PresenceEventType> = z.output<(typeof presenceEventData)[T]>;
export type PresenceEvent = {
  [T in PresenceEventType]: { readonly type: T; readonly roomId: string; readonly data: PresenceEventData<T> };
}[PresenceEventType];

export const presenceEventTypes = Object.keys(presenceEventData) as PresenceEventType[];

/** The schema of a whole event in structured mode, for documents and other languages. */
export const structuredPresenceEvent = (type: PresenceEventType) =>
  CloudEventContext.extend({ type: z.literal(type), subject: RoomId, data: presenceEventData[type] }).meta({
    id: `event.${type}`,
    description: presenceEventData[type].description ?? type,
  });
