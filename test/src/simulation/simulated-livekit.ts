import type { LivekitRoom } from '@realtime-service/contracts';
import {
  type ActualPermission,
  type ListedParticipant,
  LivekitError,
  type RoomService,
} from '@realtime-service/livekit';
import { attributes } from '@realtime-service/room-model';
import type { Scheduler, SimulatedProcess } from './scheduler.ts';

/** By how much the clock may be set back while LiveKit is down. */
const setBackMs = 300_000;

/** A LiveKit token: it never ends, since whoever is connected is handed a fresh one again and again. */
export interface Token {
  readonly roomId: string;
  readonly identity: string;
  readonly userId: string;
  readonly loginId: string;
  readonly deviceId: string | null;
  readonly permission: ActualPermission;
}

export interface Webhook {
  readonly id: string;
  readonly roomName: string;
  readonly event: string;
  readonly createdAtMs: number;
  readonly body: object;
}

interface LiveRoom {
  readonly room: LivekitRoom;
  readonly people: Map<string, ListedParticipant>;
}

/** Who is asked when enforcement acts. */
export interface Witness {
  readonly onLook: (roomId: string, participant: ListedParticipant) => void;
  readonly onRemove: (roomId: string, participant: ListedParticipant) => void;
  readonly onDelete: (roomId: string) => void;
  readonly onMute: (trackSid: string) => void;
}

/** LiveKit as far as it concerns us: rooms, people, webhooks that somebody has to deliver, and crashes. */
export class SimulatedLivekit {
  readonly #scheduler: Scheduler;
  readonly rooms = new Map<string, LiveRoom>();
  /** Tracks that stay muted: nobody here speaks up again. */
  readonly muted = new Set<string>();
  webhooks: Webhook[] = [];
  #lastSid = 0;
  #lastMs = 0;
  #crashes = 0;
  #skewMs = 0;

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  #sid(prefix: string): string {
    this.#lastSid += 1;
    return `${prefix}_${this.#lastSid}`;
  }

  /** No two things happen in one millisecond. */
  #nowMs(): number {
    this.#lastMs = Math.max(this.#lastMs + 1, this.#scheduler.nowMs);
    return this.#lastMs + this.#skewMs;
  }

  #tell(event: string, room: LivekitRoom, participant?: ListedParticipant, disconnectReason?: string): void {
    const id = this.#sid('EV');
    const createdAtMs = this.#scheduler.nowMs;
    const about = participant === undefined ? {} : { participant: { ...participant, disconnectReason } };
    const body = { event, id, createdAt: Math.floor(createdAtMs / 1000), room, ...about };
    this.webhooks.push({ id, roomName: room.name, event, createdAtMs, body });
  }

  make(roomId: string): void {
    if (this.rooms.has(roomId)) return;
    const room = { name: roomId, sid: this.#sid('RM'), creationTimeMs: this.#nowMs() };
    this.rooms.set(roomId, { room, people: new Map() });
    this.#tell('room_started', room);
  }

  /** False where there is no such room. */
  enter({ roomId, identity, userId, loginId, deviceId, permission }: Token): boolean {
    const live = this.rooms.get(roomId);
    if (live === undefined) return false;
    this.leave(roomId, identity, 'DUPLICATE_IDENTITY');
    const participant: ListedParticipant = {
      sid: this.#sid('PA'),
      identity,
      state: 'ACTIVE',
      joinedAtMs: this.#nowMs(),
      version: 1,
      kind: 'STANDARD',
      attributes: {
        [attributes.user]: userId,
        [attributes.login]: loginId,
        ...(deviceId !== null && { [attributes.device]: deviceId }),
      },
      permission,
      tracks: [{ sid: this.#sid('TR') }],
    };
    live.people.set(identity, participant);
    this.#tell('participant_joined', live.room, participant);
    return true;
  }

  leave(roomId: string, identity: string, reason: string): ListedParticipant | undefined {
    const live = this.rooms.get(roomId);
    const participant = live?.people.get(identity);
    if (live === undefined || participant === undefined) return undefined;
    live.people.delete(identity);
    this.#tell('participant_left', live.room, { ...participant, version: (participant.version ?? 0) + 1 }, reason);
    return participant;
  }

  end(roomId: string): void {
    const live = this.rooms.get(roomId);
    if (live === undefined) return;
    for (const identity of [...live.people.keys()]) this.leave(roomId, identity, 'ROOM_DELETED');
    this.rooms.delete(roomId);
    this.#tell('room_finished', live.room);
  }

  /** Killed and started anew: nobody is inside, what was to be told is lost, the clock is set back every other time. */
  crash(): void {
    this.rooms.clear();
    this.webhooks = [];
    this.#crashes += 1;
    if (this.#crashes % 2 === 1) this.#skewMs -= setBackMs;
  }

  /** As one process reaches it: a call that fails may have been carried out. */
  connect(process: SimulatedProcess, witness: Witness): RoomService {
    const call = async <T>(method: string, work: () => T): Promise<T> => {
      const toError = () => new LivekitError(`LiveKit did not answer ${method}`, { kind: 'unavailable' });
      await this.#scheduler.wait(process, `before ${method}`, toError);
      const result = work();
      await this.#scheduler.wait(process, `after ${method}`, toError);
      return result;
    };
    const peopleIn = (roomId: string): ListedParticipant[] => [...(this.rooms.get(roomId)?.people.values() ?? [])];
    return {
      createRoom: (roomId) => call('createRoom', () => this.make(roomId)),
      reviveRoom: async (roomId) => {
        if (!(await call('listRooms', () => this.rooms.has(roomId)))) return false;
        await call('createRoom', () => this.make(roomId));
        return true;
      },
      deleteRoom: (roomId) =>
        call('deleteRoom', () => {
          if (!this.rooms.has(roomId)) return false;
          witness.onDelete(roomId);
          this.end(roomId);
          return true;
        }),
      listRooms: (names) =>
        call('listRooms', () =>
          [...this.rooms.values()].map(({ room }) => room).filter(({ name }) => names?.includes(name) ?? true),
        ),
      listParticipants: (roomId) => call('listParticipants', () => peopleIn(roomId)),
      listSids: ({ name }) => call('listSids', () => peopleIn(name)),
      getParticipant: (roomId, identity) =>
        call('getParticipant', () => {
          const participant = this.rooms.get(roomId)?.people.get(identity);
          if (participant !== undefined) witness.onLook(roomId, participant);
          return participant ?? null;
        }),
      removeParticipant: (roomId, identity) =>
        call('removeParticipant', () => {
          const participant = this.rooms.get(roomId)?.people.get(identity);
          if (participant === undefined) return false;
          witness.onRemove(roomId, participant);
          this.leave(roomId, identity, 'PARTICIPANT_REMOVED');
          return true;
        }),
      setPermission: (roomId, identity, permission) =>
        call('setPermission', () => {
          const people = this.rooms.get(roomId)?.people;
          const participant = people?.get(identity);
          if (people === undefined || participant === undefined) return false;
          people.set(identity, { ...participant, permission, version: (participant.version ?? 0) + 1 });
          return true;
        }),
      muteTrack: (roomId, identity, trackSid) =>
        call('muteTrack', () => {
          const participant = this.rooms.get(roomId)?.people.get(identity);
          if (participant?.tracks.some(({ sid }) => sid === trackSid)) {
            witness.onMute(trackSid);
            this.muted.add(trackSid);
          }
          return participant !== undefined;
        }),
      sendData: () => call('sendData', () => {}),
    };
  }
}
