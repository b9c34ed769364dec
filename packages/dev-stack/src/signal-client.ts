import { SignalResponse } from '@livekit/protocol';

/** LiveKit gives up whoever only signals for so long. */
export const signalOnlyMs = 60_000;

/** A client that only signals: it joins by WebSocket, takes no media, and keeps the refresh token that it is given. */
export interface SignalClient {
  readonly refreshToken: string;
  readonly participantSid: string;
  /** Resolves when LiveKit ended it; the moment by the performance clock. */
  readonly closed: Promise<number>;
  readonly close: () => void;
}

/** @throws when LiveKit refuses the token or has no such room */
export const signalIn = async (serverUrl: string, token: string): Promise<SignalClient> => {
  const socket = new WebSocket(
    `${serverUrl}/rtc?access_token=${encodeURIComponent(token)}&protocol=15&auto_subscribe=1`,
  );
  socket.binaryType = 'arraybuffer';
  const closed = Promise.withResolvers<number>();
  const joined = Promise.withResolvers<string>();
  const refreshed = Promise.withResolvers<string>();
  socket.addEventListener('close', () => {
    closed.resolve(performance.now());
    joined.reject(new Error('LiveKit refused'));
    refreshed.reject(new Error('closed before a refresh token came'));
  });
  refreshed.promise.catch(() => undefined);
  socket.addEventListener('message', ({ data }) => {
    const { message } = SignalResponse.fromBinary(new Uint8Array(data as ArrayBuffer));
    if (message.case === 'join') joined.resolve(message.value.participant?.sid ?? '');
    if (message.case === 'refreshToken') refreshed.resolve(message.value);
    if (message.case === 'leave') socket.close();
  });
  const participantSid = await joined.promise;
  return { refreshToken: await refreshed.promise, participantSid, closed: closed.promise, close: () => socket.close() };
};
