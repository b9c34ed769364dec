import { createDatabase, startFaultProxy } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import pg from 'pg';
import { describeEventLog } from '../contract.ts';
import { createEmbeddedLog } from './embedded-log.ts';
import { prepareEmbeddedLog } from './schema.ts';

const silent = (): void => undefined;

describeWith(['postgres'], 'the embedded log', ({ postgres }) => {
  describeEventLog(async () => {
    const proxy = await startFaultProxy(postgres.port);
    const url = new URL(await createDatabase(postgres.url));
    url.port = String(proxy.port);
    const pool = new pg.Pool({ connectionString: url.href, max: 60, connectionTimeoutMillis: 5_000 });
    let topics = 0;
    return {
      openLog: () => createEmbeddedLog({ pool, writeLog: silent }),
      createTopic: async (partitions) => {
        topics += 1;
        await prepareEmbeddedLog(pool, [`topic-${topics}`], partitions);
        return `topic-${topics}`;
      },
      appendForeign: async (topic, partition, { key, value }) => {
        await pool.query(
          `with head as (
             update log_heads set next_offset = next_offset + 1
              where topic = $1 and partition = $2 returning next_offset
           )
           insert into log_records select $1, $2, next_offset - 1, now(), $3, $4, '{}' from head`,
          [topic, partition, key, value],
        );
      },
      stall: proxy.stall,
      heal: proxy.heal,
      close: async () => {
        await pool.end();
        await proxy.stop();
      },
    };
  });
});
