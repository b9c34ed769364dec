import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { Client, Pool } from '@realtime-service/room-store';
import { startRealtime } from './run-realtime.ts';

/** `realtime rebuild` under way: its progress as it comes, and means to end it. */
export const startRebuild = (url: string, ...args: readonly string[]) =>
  startRebuildWith({ DATABASE_URL: url }, ...args);
export const startRebuildWith = (env: Readonly<Record<string, string>>, ...args: readonly string[]) => {
  const child = startRealtime(env, 'rebuild', ...args);
  let told = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    told += text;
  });
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  return {
    ended,
    told: () => told,
    hasTold: async (text: string): Promise<void> => {
      while (!told.includes(text)) {
        if (child.exitCode !== null) throw new Error(`ended: ${told}`);
        await delay(20);
      }
    },
    end: async (signal: NodeJS.Signals): Promise<number | null> => {
      child.kill(signal);
      const [code] = await ended;
      return code;
    },
  };
};

/** Reads a table and does not end its transaction: no swap can happen until `release`. */
export const holdTables = async (pool: Pool): Promise<{ readonly release: () => Promise<void> }> => {
  const client: Client = await pool.connect();
  await client.query('begin; select from bans limit 1');
  return {
    release: async () => {
      await client.query('rollback');
      client.release();
    },
  };
};
