import { setTimeout as delay } from 'node:timers/promises';
import type { EventLog } from '@realtime-service/event-log';
import { countKeptRecords, isSchemaMissing, type Pool, releaseRecords } from '@realtime-service/room-store';
import type { Logger } from '@realtime-service/telemetry';
import type { ApiMetrics } from '../metrics.ts';

const batchSize = 100;
const pauseMs = 1_000;
/** Shorter than the time for which a transaction may idle. */
const appendWithinMs = 3_000;

interface KeptSenderDependencies {
  readonly pool: Pool;
  readonly append: EventLog['append'];
  readonly metrics: Pick<ApiMetrics, 'keptRecords' | 'keptRecordsWaiting'>;
  readonly logger: Logger;
}

/** Appends what was kept while the log was away, in its order and at least once, whichever process kept it. */
export const startKeptSender = ({
  pool,
  append,
  metrics,
  logger,
}: KeptSenderDependencies): { readonly stop: () => Promise<void> } => {
  const stopping = new AbortController();

  const send = async (): Promise<number> => {
    let waiting: number | undefined;
    try {
      waiting = await countKeptRecords(pool);
      metrics.keptRecordsWaiting.set(waiting);
      if (waiting === 0) return 0;
      const sent = await releaseRecords(pool, batchSize, async (records) => {
        await append(records, appendWithinMs);
      });
      metrics.keptRecords.inc({ outcome: 'appended' }, sent);
      if (sent > 0) logger.info({ records: sent }, 'kept records were appended');
      return sent;
    } catch (error) {
      // The last number would say that all is well.
      if (waiting === undefined) metrics.keptRecordsWaiting.remove({});
      // Before the first migration there is nothing to send.
      if (!isSchemaMissing(error)) logger.warn({ err: error }, 'kept records could not be appended yet');
      return 0;
    }
  };

  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const sent = await send();
      if (sent < batchSize) await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => {});
    }
  };
  const running = run();

  return {
    stop: () => {
      stopping.abort();
      return running;
    },
  };
};
