import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { createRoomService, type RoomService } from '@realtime-service/livekit';

export interface FakeParticipant {
  readonly sid: string;
  readonly identity: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly permission: Readonly<Record<string, unknown>>;
  readonly kind?: string;
  readonly tracks?: readonly {
    readonly sid: string;
    readonly type?: string;
    readonly source?: string;
    readonly mime_type?: string;
  }[];
}

/** An answer in the server's place: an HTTP answer, or none at all. */
export type Fault =
  | {
      readonly status: number;
      readonly body?: object;
      readonly headers?: Readonly<Record<string, string>>;
      readonly afterMs?: number;
    }
  | 'silence';

export interface Call {
  readonly method: string;
  readonly atMs: number;
  readonly body: Readonly<Record<string, unknown>>;
}

/** LiveKit's RoomService over HTTP, as far as the enforcement uses it, with faults to order. */
export interface FakeLivekit {
  readonly url: string;
  readonly service: RoomService;
  /** The same, for who waits no longer than this. */
  readonly serviceWithin: (timeoutMs: number) => RoomService;
  readonly calls: readonly Call[];
  readonly callsOf: (method: string) => Call[];
  /** What was told, in order: to whom (nobody: to all), and what. */
  readonly notices: () => { readonly to: readonly string[]; readonly notice: unknown }[];
  /** room → identity → participant */
  readonly rooms: Map<string, Map<string, FakeParticipant>>;
  readonly put: (room: string, participant: FakeParticipant) => void;
  /** What the next calls of a method meet, one each; a function decides each time, until it says undefined. */
  readonly fail: (method: string, faults: Fault[] | (() => Fault | undefined)) => void;
  /** Holds the answers of a method back until the returned function is called. */
  readonly hold: (method: string) => () => void;
  readonly stop: () => Promise<void>;
}

const notFound = (msg: string): Fault => ({ status: 404, body: { code: 'not_found', msg } });

export const startFakeLivekit = async (timeoutMs: number): Promise<FakeLivekit> => {
  const rooms = new Map<string, Map<string, FakeParticipant>>();
  const calls: Call[] = [];
  const faults = new Map<string, () => Fault | undefined>();
  const held = new Map<string, Promise<void>>();

  const act = (method: string, body: Readonly<Record<string, unknown>>): Fault => {
    const room = rooms.get(String(body.room));
    const identity = String(body.identity);
    const participant = room?.get(identity);
    // The real one asks the room's node, and nobody answers for a room that is gone.
    if (room === undefined && (method === 'ListParticipants' || method === 'GetParticipant')) return 'silence';
    switch (method) {
      case 'ListRooms': {
        const names = (body.names as string[] | undefined) ?? [...rooms.keys()];
        return {
          status: 200,
          body: { rooms: names.filter((name) => rooms.has(name)).map((name) => ({ sid: `RM_${name}`, name })) },
        };
      }
      case 'CreateRoom':
        if (!rooms.has(String(body.name))) rooms.set(String(body.name), new Map());
        return { status: 200, body: {} };
      case 'ListParticipants':
        return { status: 200, body: { participants: [...(room?.values() ?? [])] } };
      case 'DeleteRoom':
        if (!rooms.delete(String(body.room))) return notFound('requested room does not exist');
        return { status: 200, body: {} };
      case 'GetParticipant':
        return participant === undefined ? notFound('participant does not exist') : { status: 200, body: participant };
      case 'RemoveParticipant':
        if (!room?.delete(identity)) return notFound('participant does not exist');
        return { status: 200, body: {} };
      case 'UpdateParticipant':
        if (participant === undefined) return notFound('participant does not exist');
        room?.set(identity, { ...participant, permission: body.permission as FakeParticipant['permission'] });
        return { status: 200, body: participant };
      case 'SendData':
        return { status: 200, body: {} };
      case 'MutePublishedTrack':
        return { status: 200, body: { track: null } };
      default:
        return { status: 404, body: { code: 'bad_route', msg: method } };
    }
  };

  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const method = request.url?.split('/').at(-1) ?? '';
    const body = JSON.parse(Buffer.concat(chunks).toString());
    calls.push({ method, atMs: performance.now(), body });
    await held.get(method);
    const answer = faults.get(method)?.() ?? act(method, body);
    if (answer === 'silence') return;
    if (answer.afterMs !== undefined) await delay(answer.afterMs, undefined, { ref: false });
    response.writeHead(answer.status, { 'content-type': 'application/json', ...answer.headers });
    response.end(JSON.stringify(answer.body ?? {}));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  const key = { apiKey: 'fake', secret: 'fake-secret-of-no-value-outside-this-test' };
  const serviceWithin = (withinMs: number): RoomService => createRoomService({ apiUrl: url, key, timeoutMs: withinMs });
  return {
    url,
    service: serviceWithin(timeoutMs),
    serviceWithin,
    calls,
    callsOf: (method) => calls.filter((call) => call.method === method),
    notices: () =>
      calls
        .filter(({ method }) => method === 'SendData')
        .map(({ body }) => ({
          to: body.destination_identities as string[],
          notice: JSON.parse(Buffer.from(String(body.data), 'base64').toString()),
        })),
    rooms,
    put: (room, participant) => {
      const people = rooms.get(room) ?? new Map<string, FakeParticipant>();
      rooms.set(room, people.set(participant.identity, participant));
    },
    fail: (method, given) => {
      const queue = typeof given === 'function' ? given : () => given.shift();
      faults.set(method, queue);
    },
    hold: (method) => {
      const release = Promise.withResolvers<void>();
      held.set(method, release.promise);
      return () => {
        held.delete(method);
        release.resolve();
      };
    },
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
};
