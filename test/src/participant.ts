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

/** A real client (rtc-node) in a room, and what happens to it. */
export interface Participant {
  readonly room: Room;
  readonly identity: string;
  /** Resolves when this client is out, with LiveKit's reason and the moment (performance clock). */
  readonly out: Promise<{ readonly reason: DisconnectReason; readonly atMs: number }>;
  /** Publishes a moving picture. */
  readonly publishVideo: () => Promise<string>;
  readonly leave: () => Promise<void>;
}

/** @throws when LiveKit refuses */
export const connect = async (serverUrl: string, token: string): Promise<Participant> => {
  const room = new Room();
  const out = Promise.withResolvers<{ reason: DisconnectReason; atMs: number }>();
  room.on(RoomEvent.Disconnected, (reason) => out.resolve({ reason, atMs: performance.now() }));
  await room.connect(serverUrl, token, { autoSubscribe: true, dynacast: false });
  const local = room.localParticipant;
  if (local === undefined) throw new Error('connected without a local participant');
  let frames: NodeJS.Timeout | undefined;
  return {
    room,
    identity: local.identity,
    out: out.promise,
    publishVideo: async () => {
      const source = new VideoSource(160, 120);
      const track = LocalVideoTrack.createVideoTrack('camera', source);
      const options = new TrackPublishOptions({ source: TrackSource.SOURCE_CAMERA });
      const { sid = '' } = await local.publishTrack(track, options);
      let shade = 0;
      frames = setInterval(() => {
        shade = (shade + 8) % 256;
        source.captureFrame(new VideoFrame(new Uint8Array(160 * 120 * 4).fill(shade), 160, 120, VideoBufferType.RGBA));
      }, 100);
      return sid;
    },
    leave: async () => {
      clearInterval(frames);
      await room.disconnect();
    },
  };
};
