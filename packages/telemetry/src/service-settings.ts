import { z } from 'zod';

/**
 * The settings that both services have, besides those of what they use; a service combines it with its own by `.and()`.
 */
export const ServiceSettings = z
  .object({
    HOST: z.string().min(1).default('127.0.0.1').describe('Address to listen on'),
    CONSUMER_GROUP: z
      .string()
      .min(1)
      .default('realtime-room-worker')
      .describe(
        "The room-worker's consumer group with Kafka, by whose name its lag is told. Each database on one Kafka needs a " +
          'value of its own: two that share one get part of the partitions each, and the rest goes stale',
      ),
    SHUTDOWN_SECONDS: z.coerce.number().min(1).max(300).default(10).describe('How long an orderly end may take'),
    LOG_LEVEL: z
      .enum(['trace', 'debug', 'info', 'warn', 'error'])
      .default('info')
      .describe('Lowest level that is logged'),
  })
  .transform((env) => ({
    host: env.HOST,
    consumerGroup: env.CONSUMER_GROUP,
    shutdownMs: env.SHUTDOWN_SECONDS * 1000,
    logLevel: env.LOG_LEVEL,
  }));
export type ServiceSettings = z.infer<typeof ServiceSettings>;
