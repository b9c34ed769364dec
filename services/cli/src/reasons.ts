import { isSchemaMissing } from '@realtime-service/room-store';
import { messageOf } from '@realtime-service/telemetry';

const noLogHere = 'there is no log in this database; where it is kept in Kafka, KAFKA_BROKERS must say so';

/** Why something failed, through all its causes. A driver's error often has the same error for a cause. */
export const reasonsOf = (error: unknown): string => {
  const reasons = new Set<string>();
  for (let each: unknown = error; each instanceof Error; each = each.cause)
    reasons.add(isSchemaMissing(each) ? noLogHere : messageOf(each) || each.name);
  return [...reasons].join(': ') || String(error);
};
