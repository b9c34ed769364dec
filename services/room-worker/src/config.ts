import { LogSettings } from '@realtime-service/event-log';
import { LivekitKeys, LivekitSettings } from '@realtime-service/livekit';
import { DatabaseSettings } from '@realtime-service/room-store';
import { ServiceSettings } from '@realtime-service/telemetry';
import { z } from 'zod';

const port = z.coerce.number().int().min(0).max(65_535);

const OwnSettings = z
  .object({
    WORKER_PORT: port.default(8090).describe('Port of the webhook intake'),
    WORKER_OPS_PORT: port.default(8091).describe('Port of the ops routes'),
    LIVEKIT_WEBHOOK_KEYS: LivekitKeys.optional().describe(
      'Keys that LiveKit signs webhooks with; LIVEKIT_KEYS by default',
    ),
    UNKNOWN_ROOMS: z
      .enum(['observe', 'close'])
      .default('observe')
      .describe('What to do with rooms that LiveKit has and the domain does not: only count them, or close them'),
    SWEEP_INTERVAL_SECONDS: z.coerce
      .number()
      .min(1)
      .max(3600)
      .default(15)
      .describe('How often presence is compared with LiveKit'),
    CLOSING_NOTICE_SECONDS: z.coerce
      .number()
      .min(0)
      .max(86_400)
      .default(60)
      .describe("How long before a room's scheduled end people inside are told of it; 0: not before it ends"),
  })
  .transform((env) => ({
    port: env.WORKER_PORT,
    opsPort: env.WORKER_OPS_PORT,
    webhookKeys: env.LIVEKIT_WEBHOOK_KEYS,
    unknownRooms: env.UNKNOWN_ROOMS,
    sweepIntervalMs: env.SWEEP_INTERVAL_SECONDS * 1000,
    closingNoticeMs: env.CLOSING_NOTICE_SECONDS * 1000,
  }));

/** Every setting of the room-worker, from the environment. */
export const WorkerSettings = ServiceSettings.and(OwnSettings)
  .and(DatabaseSettings)
  .and(LogSettings)
  .and(LivekitSettings);
export type WorkerSettings = z.infer<typeof WorkerSettings>;
