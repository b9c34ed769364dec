import { type CloudEvent, type LogPosition, toBinaryHeaders, topics } from '@realtime-service/contracts';
import { type EventLog, LogUnavailableError, type NewRecord, RecordTooLargeError } from '@realtime-service/event-log';
import { currentTraceparent } from '@realtime-service/telemetry';
import { ProblemError } from '../problem.ts';

const appendWithinMs = 4_000;

/** A room event in binary mode. One that names no origin of its trace begins it here. */
export const toRecord = ({ context, data }: CloudEvent) => {
  const traceparent = currentTraceparent();
  return {
    topic: topics.roomEvents,
    key: context.subject,
    value: Buffer.from(JSON.stringify(data ?? {})),
    headers: {
      ...toBinaryHeaders({ ...context, traceparent: context.traceparent ?? traceparent }),
      ...(traceparent !== undefined && { traceparent }),
    },
  } satisfies NewRecord;
};

/** @throws {ProblemError} 503 when some may have been written and others not: to be sent again, all of them */
export const appendEvents = async (
  append: EventLog['append'],
  records: readonly NewRecord[],
): Promise<LogPosition[]> => {
  try {
    return await append(records, appendWithinMs);
  } catch (cause) {
    if (cause instanceof LogUnavailableError)
      throw new ProblemError('store_unavailable', { reason: 'log_unavailable', cause });
    if (cause instanceof RecordTooLargeError)
      throw new ProblemError('body_too_large', { reason: 'event_too_large', cause });
    throw cause;
  }
};
