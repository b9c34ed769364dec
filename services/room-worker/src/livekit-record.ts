import {
  type CloudEventContext,
  type LivekitParticipant,
  Timestamp,
  toBinaryHeaders,
  topics,
} from '@realtime-service/contracts';
import type { NewRecord } from '@realtime-service/event-log';
import { attributes } from '@realtime-service/room-model';

/** What a record of the LiveKit topic says about itself. */
export interface LivekitRecordContext {
  readonly id: string;
  readonly source: 'livekit' | 'sweep';
  readonly type: string;
  readonly roomName: string;
  readonly timeMs: number | undefined;
  readonly traceparent: string | undefined;
}

const ourAttributes = new Set<string>(Object.values(attributes));

/** A participant as the log keeps it: of the attributes our own signed ones; others' may be large, or private. */
export const participantForLog = (participant: LivekitParticipant): LivekitParticipant => ({
  ...participant,
  attributes:
    participant.attributes &&
    Object.fromEntries(Object.entries(participant.attributes).filter(([name]) => ourAttributes.has(name))),
});

/** Somebody listed, as short as presence is folded from: what is left out is what is read where nothing is said. */
export const listedForLog = (listed: LivekitParticipant) => {
  const {
    sid,
    identity,
    joinedAt,
    joinedAtMs,
    version,
    kind,
    attributes: signed,
    permission,
  } = participantForLog(listed);
  return {
    sid,
    identity,
    ...(joinedAtMs ? { joinedAtMs } : { joinedAt }),
    version,
    attributes: signed,
    ...(kind === 'STANDARD' ? {} : { kind }),
    ...(permission?.hidden ? { permission: { hidden: true } } : {}),
  };
};

/** An instant that no clock shows is left out: the record's own time then counts. */
const timeOf = (timeMs: number | undefined): string | undefined => {
  const date = new Date(timeMs ?? Number.NaN);
  return Number.isNaN(date.getTime()) ? undefined : Timestamp.safeParse(date.toISOString()).data;
};

/** A fact from LiveKit as a record of its topic, keyed by the room's name. */
export const toLivekitRecord = (about: LivekitRecordContext, data: object): NewRecord => {
  const { id, source, type, roomName, timeMs, traceparent } = about;
  const time = timeOf(timeMs);
  const context: CloudEventContext = { specversion: '1.0', id, source, type, subject: roomName, time, traceparent };
  return {
    topic: topics.livekitWebhooks,
    key: roomName,
    value: Buffer.from(JSON.stringify(data)),
    headers: toBinaryHeaders(context),
  };
};
