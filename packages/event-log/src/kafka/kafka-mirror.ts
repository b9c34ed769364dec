import { type LogPosition, partitionName } from '@realtime-service/contracts';
import type { Consumer, TopicPartitionOffset } from 'kafkajs';
import type { WriteLog } from '../event-log.ts';

export interface Mirror {
  readonly show: (position: LogPosition) => void;
  /** Resolves when the group shows all, or it could not be done. */
  readonly settled: () => Promise<void>;
}

/**
 * Shows positions as the group's committed offsets. One request at a time, each with the newest of every partition, and
 * nobody waits for it: what was applied is applied, and the next records are asked for meanwhile.
 */
export function createMirror(consumer: Pick<Consumer, 'commitOffsets'>, writeLog: WriteLog): Mirror {
  const unshown = new Map<string, TopicPartitionOffset>();
  let committing: Promise<void> | undefined;

  async function commit(): Promise<void> {
    while (unshown.size > 0) {
      const offsets = [...unshown.values()];
      unshown.clear();
      try {
        await consumer.commitOffsets(offsets);
      } catch (error) {
        writeLog('warn', 'the committed offsets could not be mirrored', { error, offsets });
      }
    }
    committing = undefined;
  }

  return {
    show: (position) => {
      unshown.set(partitionName(position), { ...position, offset: String(position.offset) });
      committing ??= commit();
    },
    settled: async () => committing,
  };
}
