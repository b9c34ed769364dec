import {
  type DisconnectReason,
  LocalVideoTrack,
  Room,
  RoomEvent,
  TrackPublishOptions,
  TrackSource,
  VideoBufferType,
  VideoFrame,
  VideoSource,
} from '@livekit/rtc-node';
import { noticeTopic } from '@realtime-service/contracts';
import { createDatabase, freePort, type Livekit, startLivekit } from '@realtime-service/dev-stack';
import { realParts } from '@realtime-service/dev-stack/vitest';
import { createEmbeddedLog, type EventLog } from '@realtime-service/event-log';
import { createRoomService, type RoomService } from '@realtime-service/livekit';
import { type Permissions, permissionsOf, toVideoGrant } from '@realtime-service/room-model';
import { createPool, type Pool } from '@realtime-service/room-store';
import { createLogger } from '@realtime-service/telemetry';
import { AccessToken } from 'livekit-server-sdk';
import { WorkerSettings } from '../src/config.ts';
import { startWorker, type Worker } from '../src/worker.ts';
import { type RoomFact, roomRecord } from './projection.ts';

export const livekitKey = { apiKey: 'worker-key', secret: 'worker-secret-of-no-value-outside-this-test' };

/** A room-worker in this process with a LiveKit of its own; the log is the embedded one. */
export interface RealWorker {
  readonly livekit: Livekit;
  readonly rooms: RoomService;
  readonly pool: Pool;
  readonly log: EventLog;
  readonly worker: () => Worker;
  /** Ends the worker and starts another one, with other settings. */
  readonly restart: (env: Readonly<Record<string, string>>) => Promise<void>;
  readonly publish: (...events: readonly RoomFact[]) => Promise<void>;
  readonly createRoom: (room: string) => Promise<void>;
  readonly stop: () => Promise<void>;
}

export const startRealWorker = async ({
  hasWebhooks,
  env = {},
}: {
  hasWebhooks: boolean;
  env?: Record<string, string>;
}): Promise<RealWorker> => {
  const port = await freePort();
  const livekit = await startLivekit({
    keys: { [livekitKey.apiKey]: livekitKey.secret },
    ...(hasWebhooks ? { webhookUrl: `http://127.0.0.1:${port}/webhooks/livekit` } : {}),
  });
  const url = await createDatabase(realParts(['postgres']).postgres.url);
  const start = (more: Readonly<Record<string, string>>): Promise<Worker> => {
    const settings = WorkerSettings.parse({
      DATABASE_URL: url,
      LIVEKIT_URL: livekit.url,
      LIVEKIT_KEYS: `${livekitKey.apiKey}: ${livekitKey.secret}`,
      WORKER_PORT: String(port),
      WORKER_OPS_PORT: '0',
      SWEEP_INTERVAL_SECONDS: '3600',
      ...env,
      ...more,
    });
    const logger = createLogger({ service: 'test', destination: { write: () => undefined } });
    return startWorker(settings, logger, new AbortController().signal);
  };
  let worker = await start({});
  const pool = createPool({ url, maxConnections: 5, applicationName: 'test', onError: () => undefined });
  const log = createEmbeddedLog({ pool, writeLog: () => undefined });
  const rooms = createRoomService({ apiUrl: livekit.apiUrl, key: livekitKey, timeoutMs: 5_000 });
  return {
    livekit,
    rooms,
    pool,
    log,
    worker: () => worker,
    restart: async (more) => {
      await worker.stop();
      worker = await start(more);
    },
    publish: async (...events) => {
      await log.append(events.map(roomRecord), 5_000);
    },
    createRoom: (room) => rooms.createRoom(room, { emptyTimeoutSeconds: 60, departureTimeoutSeconds: 60 }),
    stop: async () => {
      await worker.stop();
      await log.close();
      await pool.end();
      await livekit.stop();
    },
  };
};

export interface Admission {
  readonly room: string;
  readonly userId: string;
  readonly identity?: string;
  readonly permissions?: Permissions;
}

/** A token as the api signs it. */
export const tokenFor = async ({
  room,
  userId,
  identity = userId,
  permissions = permissionsOf('speaker', null, []),
}: Admission): Promise<string> => {
  const token = new AccessToken(livekitKey.apiKey, livekitKey.secret, {
    identity,
    ttl: 120,
    attributes: { 'rt.user': userId },
  });
  const { canPublishSources, ...grant } = toVideoGrant(room, permissions);
  const sources = {
    camera: TrackSource.SOURCE_CAMERA,
    microphone: TrackSource.SOURCE_MICROPHONE,
    screen_share: TrackSource.SOURCE_SCREENSHARE,
    screen_share_audio: TrackSource.SOURCE_SCREENSHARE_AUDIO,
  };
  token.addGrant({ ...grant, canPublishSources: canPublishSources.map((source) => sources[source] as number) });
  return token.toJwt();
};

/** A real client in a room. */
export interface Client {
  readonly sid: string;
  /** Resolves with LiveKit's reason when this client is out. */
  readonly out: Promise<DisconnectReason>;
  readonly isOut: () => boolean;
  /** What the service has told this client. */
  readonly notices: readonly unknown[];
  readonly publishVideo: () => Promise<string>;
  readonly leave: () => Promise<void>;
}

export const connect = async (serverUrl: string, admission: Admission, token?: string): Promise<Client> => {
  const room = new Room();
  const out = Promise.withResolvers<DisconnectReason>();
  let isOut = false;
  room.on(RoomEvent.Disconnected, (reason) => {
    isOut = true;
    out.resolve(reason);
  });
  const notices: unknown[] = [];
  room.on(RoomEvent.DataReceived, (payload, sender, _kind, topic) => {
    if (topic === noticeTopic && sender === undefined) notices.push(JSON.parse(Buffer.from(payload).toString()));
  });
  await room.connect(serverUrl, token ?? (await tokenFor(admission)), { autoSubscribe: true, dynacast: false });
  const local = room.localParticipant;
  if (local?.sid === undefined) throw new Error('connected without a local participant');
  let frames: NodeJS.Timeout | undefined;
  return {
    sid: local.sid,
    out: out.promise,
    isOut: () => isOut,
    notices,
    publishVideo: async () => {
      const source = new VideoSource(160, 120);
      const track = LocalVideoTrack.createVideoTrack('camera', source);
      const { sid = '' } = await local.publishTrack(
        track,
        new TrackPublishOptions({ source: TrackSource.SOURCE_CAMERA }),
      );
      frames = setInterval(
        () => source.captureFrame(new VideoFrame(new Uint8Array(160 * 120 * 4), 160, 120, VideoBufferType.RGBA)),
        100,
      );
      return sid;
    },
    leave: async () => {
      clearInterval(frames);
      await room.disconnect();
    },
  };
};
