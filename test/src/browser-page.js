// Runs in the browser: what a tab of `browser.ts` can do. LivekitClient is livekit-client's own bundle.
const { DefaultReconnectPolicy, Room, RoomEvent } = LivekitClient;
// As docs/gate.md has it.
const retryDelaysMs = [0, 300, 1_000, ...Array.from({ length: 22 }, () => 2_000)];
const room = new Room({ reconnectPolicy: new DefaultReconnectPolicy(retryDelaysMs) });
const messages = [];
let disconnectReason;
let returns = 0;

room.on(RoomEvent.Disconnected, (reason) => {
  disconnectReason = reason ?? -1;
});
room.on(RoomEvent.Reconnected, () => {
  returns += 1;
});
room.on(RoomEvent.TrackSubscribed, (track, _publication, participant) => {
  const element = track.attach();
  element.dataset.identity = participant.identity;
  document.body.append(element);
});

room.on(RoomEvent.DataReceived, (payload, participant, _kind, topic, _encryption, identity) => {
  messages.push({
    text: new TextDecoder().decode(payload),
    topic,
    participant: participant?.identity ?? null,
    identity,
  });
});

const countFrames = (video) => video.getVideoPlaybackQuality().totalVideoFrames;

globalThis.tab = {
  connect: (url, token) => room.connect(url, token),
  enableCamera: () => room.localParticipant.setCameraEnabled(true),
  simulate: (scenario) => room.simulateScenario(scenario),
  state: () => ({ connection: room.state, returns }),
  token: () => room.engine.token,
  messages: () => messages,
  disconnectReason: () => disconnectReason,
  /** Identities whose frames advance within half a second. */
  seenPlaying: async () => {
    const videos = [...document.querySelectorAll('video')];
    const before = videos.map(countFrames);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const playing = videos.filter((video, at) => video.videoWidth > 0 && countFrames(video) > before[at]);
    return playing.map((video) => video.dataset.identity);
  },
};
