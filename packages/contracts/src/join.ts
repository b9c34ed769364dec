import { z } from 'zod';
import { boundedText, DeviceId, RoomId } from './ids.ts';
import { optional } from './optional.ts';
import { AtLeast } from './position.ts';
import { MediaSource, Role } from './room-events.ts';

const utf8 = new TextEncoder();
const maxAttributesBytes = 2048;
const reserved = /^(?:rt|lk)\./;

/**
 * LiveKit's TokenSource request plus our own fields, every one optional and untrusted. Unknown fields are ignored
 * (LiveKit's SDKs extend it) and nothing of them reaches a token.
 */
export const JoinRequest = z
  .object({
    room_name: optional(RoomId),
    participant_identity: optional(boundedText(256).min(1)),
    participant_name: optional(
      boundedText(512).refine((name) => [...name].length <= 128, 'must be at most 128 characters'),
    ),
    participant_metadata: optional(boundedText(2048)),
    participant_attributes: optional(
      z
        .record(boundedText(128).min(1), boundedText(maxAttributesBytes))
        .refine((attributes) => Object.keys(attributes).length <= 16, 'must have at most 16 keys')
        .refine(
          (attributes) => utf8.encode(JSON.stringify(attributes)).length <= maxAttributesBytes,
          'must be at most 2 KiB in all',
        )
        .refine(
          (attributes) => !Object.keys(attributes).some((key) => reserved.test(key)),
          'keys beginning with rt. or lk. are reserved',
        )
        .meta({ maxProperties: 16 }),
    ),
    room_config: optional(
      z.strictObject({
        agents: optional(
          z
            .array(z.strictObject({ agent_name: boundedText(128).min(1), metadata: optional(boundedText(1024)) }))
            .max(8),
        ),
      }),
    ),
    device_id: optional(DeviceId),
    take_over: optional(z.boolean()),
    at_least: optional(AtLeast),
  })
  .meta({ id: 'JoinRequest' });
export type JoinRequest = z.infer<typeof JoinRequest>;

export const JoinPermissions = z
  .object({
    publishSources: z.array(MediaSource),
    subscribe: z.boolean(),
    publishData: z.boolean(),
    hidden: z.boolean(),
    moderate: z.boolean(),
  })
  .meta({
    id: 'JoinPermissions',
    description: "What the role, the overrides and the bans leave; every right said, none left to LiveKit's defaults.",
  });
export type JoinPermissions = z.infer<typeof JoinPermissions>;

export const JoinResponse = z
  .object({
    server_url: z.string(),
    participant_token: z.string(),
    room_name: RoomId,
    participant_identity: z.string(),
    participant_name: z
      .string()
      .describe('The one asked for where the room allows that; else the projected one, control characters as spaces.'),
    expires_at: z.iso.datetime(),
    role: Role,
    permissions: JoinPermissions,
    trace_id: z.string(),
  })
  .meta({ id: 'JoinResponse' });
export type JoinResponse = z.infer<typeof JoinResponse>;
