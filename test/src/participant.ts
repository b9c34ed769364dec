import {
  AudioFrame,
  AudioSource,
  type DisconnectReason,
  LocalAudioTrack,
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
  readonly publishVideo: (source?: TrackSource) => Promise<string>;
  /** Publishes a tone, until this client is out. */
  readonly publishAudio: (source?: TrackSource) => Promise<string>;
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
  const frames: NodeJS.Timeout[] = [];
  let isOut = false;
  void out.promise.then(() => {
    isOut = true;
  });
  return {
    room,
    identity: local.identity,
    out: out.promise,
    publishVideo: async (said = TrackSource.SOURCE_CAMERA) => {
      const source = new VideoSource(160, 120);
      const track = LocalVideoTrack.createVideoTrack('camera', source);
      const { sid = '' } = await local.publishTrack(track, new TrackPublishOptions({ source: said }));
      let shade = 0;
      const next = (): void => {
        shade = (shade + 8) % 256;
        source.captureFrame(new VideoFrame(new Uint8Array(160 * 120 * 4).fill(shade), 160, 120, VideoBufferType.RGBA));
      };
      frames.push(setInterval(next, 100));
      return sid;
    },
    publishAudio: async (said = TrackSource.SOURCE_MICROPHONE) => {
      const source = new AudioSource(48_000, 1);
      const track = LocalAudioTrack.createAudioTrack('microphone', source);
      const { sid = '' } = await local.publishTrack(track, new TrackPublishOptions({ source: said }));
      const tone = Int16Array.from({ length: 480 }, (_, at) => 20_000 * Math.sin((2 * Math.PI * at) / 48));
      const play = async (): Promise<void> => {
        while (!isOut) await source.captureFrame(new AudioFrame(tone, 48_000, 1, tone.length));
      };
      void play();
      return sid;
    },
    leave: async () => {
      for (const each of frames) clearInterval(each);
      await room.disconnect();
    },
  };
};
