import pg from 'pg';
import { keptAlive } from './database.ts';

export interface Listener {
  readonly stop: () => void;
}

const reconnectAfterMs = 1_000;

/**
 * Tells of notifications on a channel, over a connection of its own past any pooler. A lost connection is made again;
 * what was notified meanwhile is missed, so `onNotification` is called after each connect, and callers poll as well.
 */
export const listen = (
  directUrl: string,
  channel: string,
  onNotification: () => void,
  onError: (error: Error) => void,
): Listener => {
  let client: pg.Client | undefined;
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;

  const connect = async (): Promise<void> => {
    let connecting: pg.Client | undefined;
    try {
      // Reads the certificates that the URL names.
      connecting = new pg.Client({ connectionString: directUrl, connectionTimeoutMillis: 2_000, ...keptAlive });
      client = connecting;
      connecting.on('error', onError);
      connecting.on('end', retry);
      connecting.on('notification', onNotification);
      await connecting.connect();
      await connecting.query(`listen ${channel}`);
      onNotification();
    } catch (error) {
      onError(error as Error);
      await connecting?.end().catch(onError);
      retry();
    }
  };

  const retry = (): void => {
    if (isStopped || timer !== undefined) return;
    timer = setTimeout(() => {
      timer = undefined;
      void connect();
    }, reconnectAfterMs);
  };

  void connect();
  return {
    stop: () => {
      isStopped = true;
      clearTimeout(timer);
      // Not waited for: one that has fallen silent never ends.
      void client?.end().catch(onError);
    },
  };
};
