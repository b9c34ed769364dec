// People who are inside LiveKit and do nothing: each has signalling and a media connection that carries no media. A
// process of its own holds them, so that what they cost is nobody else's, and ends with the one that started it.
import { SessionDescription, SignalRequest, SignalResponse, SignalTarget, TrickleRequest } from '@livekit/protocol';
import wrtc from '@roamhq/wrtc';

/** What the process is told once; it answers `inside` when all are. */
export interface Crowd {
  readonly url: string;
  readonly tokens: readonly string[];
}

/** The part of a browser's RTCPeerConnection that answering an offer takes. The package's types want a browser's. */
interface PeerConnection {
  readonly connectionState: string;
  onconnectionstatechange: () => void;
  onicecandidate: (event: { readonly candidate: object | null }) => void;
  readonly setRemoteDescription: (description: Description) => Promise<void>;
  readonly setLocalDescription: (description: Description) => Promise<void>;
  readonly createAnswer: () => Promise<Description>;
  readonly addIceCandidate: (candidate: unknown) => Promise<void>;
}

interface Description {
  readonly type: string;
  readonly sdp: string;
}

const { RTCPeerConnection } = wrtc as unknown as {
  readonly RTCPeerConnection: new (configuration: { readonly iceServers: readonly [] }) => PeerConnection;
};

const entriesAtOnce = 8;

/** Resolves when media could flow. @throws when LiveKit refuses or ends the session before that */
const enter = async (url: string, token: string): Promise<void> => {
  const inside = Promise.withResolvers<void>();
  const socket = new WebSocket(`${url}/rtc?access_token=${token}&protocol=15&auto_subscribe=0`);
  socket.binaryType = 'arraybuffer';
  const connection = new RTCPeerConnection({ iceServers: [] });
  const send = (message: SignalRequest['message']): void => socket.send(new SignalRequest({ message }).toBinary());
  let described = Promise.resolve();

  connection.onconnectionstatechange = () => {
    if (connection.connectionState === 'connected') inside.resolve();
  };
  connection.onicecandidate = ({ candidate }) => {
    const value = { candidateInit: JSON.stringify(candidate), target: SignalTarget.SUBSCRIBER };
    if (candidate !== null) send({ case: 'trickle', value: new TrickleRequest(value) });
  };
  const answer = async ({ sdp, id }: SessionDescription): Promise<void> => {
    described = connection.setRemoteDescription({ type: 'offer', sdp });
    await described;
    const local = await connection.createAnswer();
    await connection.setLocalDescription(local);
    send({ case: 'answer', value: new SessionDescription({ type: 'answer', sdp: local.sdp, id }) });
  };
  const take = async ({ candidateInit, target }: TrickleRequest): Promise<void> => {
    if (target !== SignalTarget.SUBSCRIBER) return;
    await described;
    await connection.addIceCandidate(JSON.parse(candidateInit));
  };
  socket.addEventListener('message', ({ data }) => {
    const { message } = SignalResponse.fromBinary(new Uint8Array(data as ArrayBuffer));
    if (message.case === 'offer') answer(message.value).catch(inside.reject);
    if (message.case === 'trickle') take(message.value).catch(inside.reject);
  });
  socket.addEventListener('close', () => inside.reject(new Error('LiveKit ended the session')));
  await inside.promise;
};

process.once('message', async ({ url, tokens }: Crowd) => {
  const queue = tokens.values();
  const enterEach = async (): Promise<void> => {
    for (const token of queue) await enter(url, token);
  };
  await Promise.all(Array.from({ length: entriesAtOnce }, enterEach));
  process.send?.('inside');
});
process.once('disconnect', () => process.exit());
