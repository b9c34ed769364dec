import type { RoomService } from '@realtime-service/livekit';
import { currentTraceparent } from '@realtime-service/telemetry';
import { attributes } from '@realtime-service/room-model';

const coalesceMs = 1_000;
/** Beyond the life of a token: LiveKit's own leeway is a minute. */
const leewaySeconds = 60;

/** Resolves when LiveKit has the room. @throws {LivekitError} */
export type MakeRoom = (roomId: string) => Promise<void>;

interface RoomMakerOptions {
  readonly createRoom: RoomService['createRoom'];
  readonly tokenTtlSeconds: number;
  readonly now?: () => number;
}

/**
 * Makes rooms where they are used; for LiveKit's own rooms never appear by themselves (`auto_create: false`), so that
 * an old token cannot bring a closed one back. Asked at most once per room and second, whatever the answer.
 */
export const createRoomMaker = ({ createRoom, tokenTtlSeconds, now = Date.now }: RoomMakerOptions): MakeRoom => {
  const recent = new Map<string, { readonly startedAtMs: number; readonly made: Promise<void> }>();
  // Outlives every token that was handed out for it.
  const timeoutSeconds = tokenTtlSeconds + leewaySeconds;

  const dropExpired = (nowMs: number): void => {
    for (const [roomId, { startedAtMs }] of recent) {
      if (nowMs - startedAtMs < coalesceMs) return;
      recent.delete(roomId);
    }
  };

  return (roomId) => {
    const nowMs = now();
    dropExpired(nowMs);
    const known = recent.get(roomId);
    if (known !== undefined) return known.made;
    const trace = currentTraceparent();
    const made = createRoom(roomId, {
      emptyTimeoutSeconds: timeoutSeconds,
      departureTimeoutSeconds: timeoutSeconds,
      ...(trace !== undefined && { metadata: JSON.stringify({ [attributes.trace]: trace }) }),
    });
    recent.set(roomId, { startedAtMs: nowMs, made });
    return made;
  };
};
