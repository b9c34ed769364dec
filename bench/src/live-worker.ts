import { freePort, startLivekit } from '@realtime-service/dev-stack';
import { createRoomService } from '@realtime-service/livekit';
import { livekitKey, serviceEnv, startService } from './processes.ts';

const timeoutMs = 5_000;

/** A room-worker and the LiveKit that tells it by webhooks; each needs the other's address before it starts. */
export const startLiveWorker = async (
  databaseUrl: string,
  more: Readonly<Record<string, string>>,
  report: (line: string) => void,
) => {
  const livekitPort = await freePort();
  const url = `ws://127.0.0.1:${livekitPort}`;
  const { name, secret } = livekitKey;
  const env = { ...serviceEnv(databaseUrl, { url, keys: `${name}: ${secret}` }), ...more };
  const worker = await startService({ name: 'room-worker', service: 'room-worker', env, isPinned: false });
  const livekit = await startLivekit({
    keys: { [name]: secret },
    ports: { http: livekitPort },
    webhookUrl: `${worker.url}/webhooks/livekit`,
    report,
  });
  const service = createRoomService({ apiUrl: livekit.apiUrl, key: { apiKey: name, secret }, timeoutMs });
  return { url, worker, livekit, service };
};
