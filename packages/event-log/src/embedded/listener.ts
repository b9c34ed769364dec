import type { Pool, PoolClient } from 'pg';

export const appendedChannel = 'log_appended';

export interface Listener {
  /** Connects, unless it is connected. */
  readonly listen: () => Promise<void>;
  readonly stop: () => void;
}

/** Is told of every append, over a connection of its own. */
export function createListener(pool: Pool, onAppended: () => void): Listener {
  let client: PoolClient | undefined;

  async function listen(): Promise<void> {
    if (client !== undefined) return;
    client = await pool.connect();
    client.on('notification', onAppended);
    client.on('error', stop);
    try {
      await client.query(`listen ${appendedChannel}`);
    } catch (error) {
      stop();
      throw error;
    }
  }

  /** The connection is destroyed: nobody else should get one that listens. */
  function stop(): void {
    client?.release(true);
    client = undefined;
  }

  return { listen, stop };
}
