import { randomUUID } from 'node:crypto';
import { type RoomEventType, toBinaryHeaders, topics } from '@realtime-service/contracts';
import type { NewRecord } from '@realtime-service/event-log';

/** A fact about a room, as a domain service appends it. */
export const factOf = (type: RoomEventType, roomId: string, data: object): NewRecord => ({
  topic: topics.roomEvents,
  key: roomId,
  value: Buffer.from(JSON.stringify(data)),
  headers: toBinaryHeaders({ specversion: '1.0', id: randomUUID(), source: '/bench', type, subject: roomId }),
});
