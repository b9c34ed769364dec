import { DisconnectReason, SignalResponse } from '@livekit/protocol';

/** A client that only signals: it joins by WebSocket, takes no media, and keeps the refresh token that it is given. */
export interface SignalClient {
  readonly refreshToken: string;
  readonly participantSid: string;
  /** Resolves when it is over: whether LiveKit has removed it, and the moment (performance clock). */
  readonly closed: Promise<{ readonly isRemoved: boolean; readonly atMs: number }>;
  readonly close: () => void;
}

/** LiveKit gives it up after a minute. @throws when LiveKit refuses the token or has no such room */
export const signalIn = async (serverUrl: string, token: string): Promise<SignalClient> => {
  const socket = new WebSocket(
    `${serverUrl}/rtc?access_token=${encodeURIComponent(token)}&protocol=15&auto_subscribe=1`,
  );
  socket.binaryType = 'arraybuffer';
  let isRemoved = false;
  const closed = Promise.withResolvers<{ isRemoved: boolean; atMs: number }>();
  const joined = Promise.withResolvers<string>();
  const refreshed = Promise.withResolvers<string>();
  socket.addEventListener('close', () => {
    closed.resolve({ isRemoved, atMs: performance.now() });
    joined.reject(new Error('LiveKit refused'));
    refreshed.reject(new Error('closed before a refresh token came'));
  });
  refreshed.promise.catch(() => undefined);
  socket.addEventListener('message', ({ data }) => {
    const { message } = SignalResponse.fromBinary(new Uint8Array(data as ArrayBuffer));
    if (message.case === 'join') joined.resolve(message.value.participant?.sid ?? '');
    if (message.case === 'refreshToken') refreshed.resolve(message.value);
    if (message.case === 'leave') {
      isRemoved = message.value.reason === DisconnectReason.PARTICIPANT_REMOVED;
      socket.close();
    }
  });
  const participantSid = await joined.promise;
  return { refreshToken: await refreshed.promise, participantSid, closed: closed.promise, close: () => socket.close() };
};
