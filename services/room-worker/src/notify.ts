import { type Notice, noticeTopic } from '@realtime-service/contracts';
import type { RoomService } from '@realtime-service/livekit';
import type { Clock } from './clock.ts';
import type { WorkerMetrics } from './metrics.ts';

/** As long as what is told of waits for the telling, at most. */
const withinMs = 50;

interface NotifyDependencies {
  readonly livekit: Pick<RoomService, 'sendData'>;
  readonly clock: Clock;
  readonly metrics: Pick<WorkerMetrics, 'notices'>;
}

/**
 * Tells people inside, one of them or all, within 50 ms or not at all: never fails, and holds nothing up for longer.
 */
export const notify = async (
  { livekit, clock, metrics }: NotifyDependencies,
  { roomId, identity }: { readonly roomId: string; readonly identity?: string },
  notice: Notice,
): Promise<void> => {
  const answered = new AbortController();
  const message = {
    topic: noticeTopic,
    text: JSON.stringify(notice),
    ...(identity !== undefined && { to: [identity] }),
  };
  const outcome = await Promise.race([
    livekit.sendData(roomId, message).then(
      () => 'sent',
      () => 'failed',
    ),
    clock.delay(withinMs, answered.signal).then(
      () => 'late',
      () => 'late',
    ),
  ]);
  answered.abort();
  metrics.notices.inc({ type: notice.type, outcome });
};
