import { type RoomOptions, type RoomService, tokenLeewaySeconds } from '@realtime-service/livekit';
import { attributes } from '@realtime-service/room-model';
import { currentTraceparent } from '@realtime-service/telemetry';

const secondMs = 1_000;

export type Agents = NonNullable<RoomOptions['agents']>;

/** Resolves when LiveKit has the room; the agents are dispatched when it is new. @throws {LivekitError} */
export type MakeRoom = (roomId: string, agents: Agents) => Promise<void>;

interface RoomMakerOptions {
  readonly createRoom: RoomService['createRoom'];
  readonly tokenTtlSeconds: number;
  /** How long one answer serves everybody; a second by default. */
  readonly coalesceMs?: number;
  /** Milliseconds by a clock that nobody sets. */
  readonly now?: () => number;
}

/**
 * Makes rooms where they are used: in LiveKit they never appear by themselves (`auto_create: false`), so that an old
 * token cannot bring a closed one back. LiveKit is asked at most once per room and `coalesceMs`, whatever it answers.
 */
export const createRoomMaker = ({
  createRoom,
  tokenTtlSeconds,
  coalesceMs = secondMs,
  now = () => performance.now(),
}: RoomMakerOptions): MakeRoom => {
  const recent = new Map<string, { readonly startedAtMs: number; readonly made: Promise<void> }>();
  // A new room outlives the tokens that were handed out with it. One that is empty already does not wait anew.
  const timeoutSeconds = tokenTtlSeconds + tokenLeewaySeconds;

  const dropExpired = (nowMs: number): void => {
    for (const [name, { startedAtMs }] of recent) {
      if (nowMs - startedAtMs < coalesceMs) return;
      recent.delete(name);
    }
  };

  return (roomId, agents) => {
    const nowMs = now();
    dropExpired(nowMs);
    // No id holds NUL.
    const name = agents.length === 0 ? roomId : `${roomId}\0${JSON.stringify(agents)}`;
    const known = recent.get(name);
    if (known !== undefined) return known.made;
    const trace = currentTraceparent();
    const made = createRoom(roomId, {
      emptyTimeoutSeconds: timeoutSeconds,
      departureTimeoutSeconds: timeoutSeconds,
      ...(trace !== undefined && { metadata: JSON.stringify({ [attributes.trace]: trace }) }),
      ...(agents.length > 0 && { agents }),
    });
    recent.set(name, { startedAtMs: nowMs, made });
    return made;
  };
};
