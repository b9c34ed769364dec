import http from 'node:http';
import https from 'node:https';
import { urlToHttpOptions } from 'node:url';
import {
  camelKeys,
  LivekitParticipant,
  LivekitRoom,
  LivekitTrack,
  type MediaSource,
} from '@realtime-service/contracts';
import { z } from 'zod';
import { createHs256Signer } from './hs256-signer.ts';
import type { LivekitKey } from './settings.ts';

/** What LiveKit may refuse or fail with. "Not found" never gets here: it is an answer. */
export class LivekitError extends Error {
  override readonly name = 'LivekitError';
  /** `unauthorised`: our key is not LiveKit's. `unavailable`: the same call may go through later. */
  readonly kind: 'unauthorised' | 'unavailable' | 'refused';
  /** From `Retry-After`, milliseconds. */
  readonly retryAfterMs: number | null;

  constructor(message: string, { kind, retryAfterMs = null, ...options }: LivekitErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.retryAfterMs = retryAfterMs;
  }
}

interface LivekitErrorOptions extends ErrorOptions {
  readonly kind: LivekitError['kind'];
  readonly retryAfterMs?: number | null;
}

const flag = z.boolean().default(false);

/** protojson leaves defaults out, or not, as the server is set. Sources that we do not grant keep their name. */
const Permission = z.object({
  canSubscribe: flag,
  canPublish: flag,
  canPublishData: flag,
  canPublishSources: z.array(z.string().transform((name) => name.toLowerCase() as MediaSource)).default([]),
  hidden: flag,
  canUpdateMetadata: flag,
  canSubscribeMetrics: flag,
  canManageAgentSession: flag,
  recorder: flag,
  agent: flag,
});

/** A complete permission object, as `UpdateParticipant` takes it and lists show it. */
export type ActualPermission = z.infer<typeof Permission>;

const Track = LivekitTrack.extend({ sid: z.string() });

/** Twirp's servers write proto names by default. */
const fromProtoNames = <T extends z.ZodType>(schema: T) => z.preprocess((value) => camelKeys(value), schema);

const Participant = fromProtoNames(
  LivekitParticipant.extend({
    identity: z.string(),
    permission: Permission.prefault({}),
    tracks: z.array(Track).default([]),
  }),
);

/** A participant as LiveKit lists it now. */
export type ListedParticipant = z.infer<typeof Participant>;

/** By its proto name: to look for other spellings costs as much as the rest of the list. */
const ListedTrack = LivekitTrack.omit({ mimeType: true })
  .extend({ mime_type: LivekitTrack.shape.mimeType })
  .transform(({ mime_type: mimeType, ...track }): LivekitTrack => ({ ...track, mimeType }));

/**
 * A sid, whether it is there, seen by others, and disguised: all that a sweep asks, read without a look at the rest.
 */
const ListedSid = LivekitParticipant.pick({
  sid: true,
  state: true,
  permission: true,
  kind: true,
}).extend({
  identity: z.string(),
  tracks: z.array(ListedTrack).default([]),
});
export type ListedSid = z.infer<typeof ListedSid>;

const RoomName = z.compile(LivekitRoom.shape.name);
const Identity = z.compile(LivekitParticipant.shape.identity);

/**
 * Whoever has another key of LiveKit's may choose names that we cannot store, as one with NUL. These alone are left out
 * of a list: no fact and no token of ours has such a name, and webhooks about it say nothing here either.
 */
const withName = (rooms: LivekitRoom[]): LivekitRoom[] => rooms.filter(({ name }) => RoomName.safeParse(name).success);
const withIdentity = <P extends { readonly identity: string }>(people: P[]): P[] =>
  people.filter(({ identity }) => Identity.safeParse(identity).success);

/** What tells LiveKit's answers from those of whatever stands between. Its lists are there also when they are empty. */
const Rooms = z.compile(
  z.object({ rooms: z.array(fromProtoNames(LivekitRoom.extend({ name: z.string() }))).transform(withName) }),
);
const Participants = z.compile(z.object({ participants: z.array(Participant).transform(withIdentity) }));
const Sids = z.compile(z.object({ participants: z.array(ListedSid).transform(withIdentity) }));
const Updated = LivekitParticipant.pick({ sid: true });
const Muted = z.object({ track: z.object({}).nullable() });
/** Strictly: were a newer LiveKit to say more, it would be asked again, and find it done. */
const Done = z.strictObject({});
/** Settles nothing: where the room was not made, LiveKit refuses whoever joins. */
const Made = z.object({});

export interface RoomOptions {
  readonly emptyTimeoutSeconds: number;
  readonly departureTimeoutSeconds: number;
  readonly metadata?: string;
  /** Dispatched when this call makes the room; LiveKit ignores them where it exists. */
  readonly agents?: readonly { readonly agent_name: string; readonly metadata?: string | undefined }[];
}

export interface DataMessage {
  readonly topic: string;
  readonly text: string;
  /** Everybody in the room, where it is not said. */
  readonly to?: readonly string[];
}

/** The part of LiveKit's RoomService that we use. Each call is one bounded request, without retries. */
export interface RoomService {
  /** Makes the room; changes nothing where it exists. */
  readonly createRoom: (room: string, options: RoomOptions) => Promise<void>;
  /**
   * Has a node that lives take over a room that is listed and whose node does not live: LiveKit goes on listing it, and
   * nobody answers for it. A room whose node lives is left as it is. False where there is no such room; one that ends
   * in between is made anew, empty.
   */
  readonly reviveRoom: (room: string) => Promise<boolean>;
  /** False where there was no such room. */
  readonly deleteRoom: (room: string) => Promise<boolean>;
  /** All, or those of these names. */
  readonly listRooms: (names?: readonly string[]) => Promise<LivekitRoom[]>;
  /** Empty where there is no such room. */
  readonly listParticipants: (room: string) => Promise<ListedParticipant[]>;
  /** Of a room listed a moment ago, at the least cost. Where it is gone since, LiveKit is unavailable after 3 s. */
  readonly listSids: (room: LivekitRoom) => Promise<ListedSid[]>;
  /** Null where this identity is not connected. */
  readonly getParticipant: (room: string, identity: string) => Promise<ListedParticipant | null>;
  /** False where LiveKit does not find this identity: not connected, or come anew a moment ago. */
  readonly removeParticipant: (room: string, identity: string) => Promise<boolean>;
  /** Replaces the whole permission object. False as of a removal. */
  readonly setPermission: (room: string, identity: string, permission: ActualPermission) => Promise<boolean>;
  /** False where this identity is not connected. A track that is not there LiveKit mutes without a word. */
  readonly muteTrack: (room: string, identity: string, trackSid: string) => Promise<boolean>;
  /** Resolves when LiveKit has it on its way. Of a room that is absent LiveKit knows only after 3 s, as unavailable. */
  readonly sendData: (room: string, message: DataMessage) => Promise<void>;
}

export interface RoomServiceOptions {
  readonly apiUrl: string;
  readonly key: LivekitKey;
  readonly timeoutMs: number;
}

const tokenTtlSeconds = 60;

/** For half its life; and where the clock was set back since, a token is not valid yet. */
const isFresh = (signedAtSeconds: number, nowSeconds: number): boolean =>
  signedAtSeconds <= nowSeconds && nowSeconds < signedAtSeconds + tokenTtlSeconds / 2;

/** What a call's token allows (livekit/protocol auth/grants.go). */
type Grant =
  | { readonly roomCreate: true }
  | { readonly roomList: true }
  | { readonly roomAdmin: true; readonly room: string };

/** Seconds or an HTTP date (RFC 9110, 10.2.3); never more than a minute. */
const readRetryAfter = (header: string | undefined): number | null => {
  if (header === undefined) return null;
  const delayMs = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isNaN(delayMs) ? null : Math.min(Math.max(delayMs, 0), 60_000);
};

const TwirpError = z.object({ code: z.string() });

/** Undefined where it is not JSON, as a proxy's error page. */
const readJson = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};

/** A 200 that is not LiveKit's or a redirect, from whatever stands between, passes as an outage does. */
const kindOf = (status: number): LivekitError['kind'] => {
  if (status === 401 || status === 403) return 'unauthorised';
  return status < 400 || status === 429 || status >= 500 ? 'unavailable' : 'refused';
};

interface Answer {
  readonly status: number;
  readonly retryAfter: string | undefined;
  /** Undefined where the body is not JSON. */
  readonly json: unknown;
}

/** Over connections that are kept: `fetch` takes five times as long, which joins wait for. */
const createPost = (apiUrl: string, timeoutMs: number) => {
  const { request, Agent } = apiUrl.startsWith('https:') ? https : http;
  const { hostname, port, path: prefix } = urlToHttpOptions(new URL(apiUrl));
  const service = `${prefix?.replace(/\/$/, '')}/twirp/livekit.RoomService`;
  const base = { method: 'POST', hostname, port, agent: new Agent({ keepAlive: true }) };

  return (method: string, authorization: string, body: object): Promise<Answer> => {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const headers = { authorization, 'content-type': 'application/json' };
    const asked = request({ ...base, path: `${service}/${method}`, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (piece: string) => {
        text += piece;
      });
      response.on('error', reject);
      response.on('end', () => {
        const { statusCode: status = 0, headers } = response;
        resolve({ status, retryAfter: headers['retry-after'], json: readJson(text) });
      });
    });
    asked.on('error', reject);
    asked.end(JSON.stringify(body));
    const timer = setTimeout(() => asked.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    return promise.finally(() => clearTimeout(timer));
  };
};

/**
 * Twirp with JSON bodies. The SDK's client costs four times as much on lists, and hides the status and
 * `Retry-After` that retries depend on (livekit/protocol livekit_room.proto, twirp's error codes).
 */
export const createRoomService = ({ apiUrl, key, timeoutMs }: RoomServiceOptions): RoomService => {
  const signPayload = createHs256Signer(key.secret);
  const post = createPost(apiUrl, timeoutMs);
  const signed = new Map<string, { readonly header: string; readonly atSeconds: number }>();

  const sign = (grant: Grant, nowSeconds: number): string => {
    const claims = { video: grant, iss: key.apiKey, nbf: nowSeconds, exp: nowSeconds + tokenTtlSeconds };
    return `Bearer ${signPayload(JSON.stringify(claims))}`;
  };

  /** A token that names no room serves every room for half its life: making rooms is a large part of a join's cost. */
  const authorise = (grant: Grant): string => {
    const nowSeconds = Math.floor(Date.now() / 1000);
    if ('room' in grant) return sign(grant, nowSeconds);
    const name = Object.keys(grant).join();
    const known = signed.get(name);
    if (known !== undefined && isFresh(known.atSeconds, nowSeconds)) return known.header;
    const header = sign(grant, nowSeconds);
    signed.set(name, { header, atSeconds: nowSeconds });
    return header;
  };

  /** The answer, or null for "not found". @throws {LivekitError} */
  const call = async <T extends z.ZodType>(
    method: string,
    grant: Grant,
    body: object,
    Expected: T,
  ): Promise<z.output<T> | null> => {
    let answer: Answer;
    try {
      answer = await post(method, authorise(grant), body);
    } catch (cause) {
      throw new LivekitError(`LiveKit did not answer ${method}`, { kind: 'unavailable', cause });
    }
    const { status, retryAfter, json } = answer;
    const read = status === 200 ? Expected.safeParse(json) : undefined;
    if (read?.success) return read.data;
    if (status === 404 && TwirpError.safeParse(json).data?.code === 'not_found') return null;
    // The body of a refusal can hold the token: only its status is kept.
    throw new LivekitError(`LiveKit answered ${method} with ${status}`, {
      kind: kindOf(status),
      retryAfterMs: readRetryAfter(retryAfter),
      cause: read?.error,
    });
  };

  const listRooms = async (names?: readonly string[]): Promise<LivekitRoom[]> => {
    const listed = await call('ListRooms', { roomList: true }, { names }, Rooms);
    if (listed === null) throw new LivekitError('LiveKit answered ListRooms with "not found"', { kind: 'unavailable' });
    return listed.rooms;
  };

  /** Asked first where the room's own node would answer: of a room that is gone LiveKit says 503, after 3 s. */
  const hasRoom = async (room: string): Promise<boolean> => (await listRooms([room])).length > 0;

  const admin = (room: string): Grant => ({ roomAdmin: true, room });

  return {
    createRoom: async (room, { emptyTimeoutSeconds, departureTimeoutSeconds, metadata, agents }) => {
      const body = {
        name: room,
        empty_timeout: emptyTimeoutSeconds,
        departure_timeout: departureTimeoutSeconds,
        metadata,
        agents,
      };
      await call('CreateRoom', { roomCreate: true }, body, Made);
    },
    reviveRoom: async (room) => {
      if (!(await hasRoom(room))) return false;
      // By its name alone: what else was said here would be changed (pkg/service/roomallocator.go).
      await call('CreateRoom', { roomCreate: true }, { name: room }, Made);
      return true;
    },
    deleteRoom: async (room) => (await call('DeleteRoom', { roomCreate: true }, { room }, Done)) !== null,
    listRooms,
    listParticipants: async (room) => {
      if (!(await hasRoom(room))) return [];
      return (await call('ListParticipants', admin(room), { room }, Participants))?.participants ?? [];
    },
    listSids: async ({ name: room }) =>
      (await call('ListParticipants', admin(room), { room }, Sids))?.participants ?? [],
    getParticipant: async (room, identity) => {
      if (!(await hasRoom(room))) return null;
      return call('GetParticipant', admin(room), { room, identity }, Participant);
    },
    removeParticipant: async (room, identity) =>
      (await call('RemoveParticipant', admin(room), { room, identity }, Done)) !== null,
    setPermission: async (room, identity, permission) => {
      const canPublishSources = permission.canPublishSources.map((source) => source.toUpperCase());
      const body = { room, identity, permission: { ...permission, canPublishSources } };
      return (await call('UpdateParticipant', admin(room), body, Updated)) !== null;
    },
    muteTrack: async (room, identity, trackSid) => {
      const body = { room, identity, track_sid: trackSid, muted: true };
      return (await call('MutePublishedTrack', admin(room), body, Muted)) !== null;
    },
    sendData: async (room, { topic, text, to = [] }) => {
      const data = Buffer.from(text).toString('base64');
      const body = { room, data, kind: 'RELIABLE', topic, destination_identities: to };
      await call('SendData', admin(room), body, Done);
    },
  };
};
