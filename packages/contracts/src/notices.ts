import { z } from 'zod';
import { Reason, Sid, Timestamp } from './ids.ts';
import { problemCodes } from './problems.ts';

/**
 * Topic of the data messages that people inside get from the service. Anybody with the right to publish data can send
 * on it too: only those that LiveKit names no sender of are the service's.
 */
export const noticeTopic = 'rt.notice';

/**
 * What somebody inside is told, as JSON. Delivery is tried once and not assured: whoever missed it sees what follows.
 */
export const Notice = z
  .discriminatedUnion('type', [
    z.object({
      type: z.literal('removed'),
      code: z
        .enum(['kicked', ...problemCodes])
        .describe('`kicked`, after which one may join again, or what a join would be answered with now.'),
      reason: Reason.optional(),
    }),
    z.object({ type: z.literal('muted'), trackSid: Sid, reason: Reason.optional() }),
    z.object({ type: z.literal('closing'), closesAt: Timestamp }),
  ])
  .meta({ id: 'Notice', description: 'A data message to people in a call, on topic `rt.notice`.' });
export type Notice = z.infer<typeof Notice>;
