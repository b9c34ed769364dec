import { type Pool, purge } from '@realtime-service/room-store';
import type { Logger } from '@realtime-service/telemetry';

/** So often that a worker that is restarted every hour purges, too. */
const purgeEveryMs = 600_000;

interface PurgingDependencies {
  readonly pool: Pool;
  readonly logger: Logger;
}

/** Purges one time after the other. One that has much to drop takes longer than its turn, and some connections. */
export const startPurging = ({ pool, logger }: PurgingDependencies): { readonly stop: () => void } => {
  let isUnderWay = false;
  const once = async (): Promise<void> => {
    if (isUnderWay) return;
    isUnderWay = true;
    await purge(pool).then(
      (purged) => logger.info({ ...purged }, 'purged'),
      (error: unknown) => logger.warn({ err: error }, 'purge failed'),
    );
    isUnderWay = false;
  };
  const timer = setInterval(once, purgeEveryMs);
  return { stop: () => clearInterval(timer) };
};
