import type { Benchmark, Effort, Findings } from '../benchmark.ts';
import { canPin, leaveServerCore, type Service, serviceEnv, startService } from '../processes.ts';
import { startBenchIssuer } from './issuer.ts';
import { connections } from './load.ts';
import { livekitFor, measureSides, projectRooms, sideOf, startBareSide, startSink } from './sides.ts';

const joinOnce = async (url: string, path: string, authorization: string): Promise<string> => {
  const response = await fetch(`${url}${path}`, { method: 'POST', headers: { authorization } });
  const body = await response.text();
  if (response.status !== 200) throw new Error(`the join answered ${response.status}: ${body}`);
  return body;
};

const run = async ({ seconds, rounds }: Effort, say: (line: string) => void): Promise<Findings> => {
  leaveServerCore();
  say(canPin ? 'each server has core 0, all else core 1' : 'no taskset: nothing is held to a core');
  const { databaseUrl, pool, members } = await projectRooms();
  const issuer = await startBenchIssuer();
  const requests = await Promise.all(
    members.map(async ({ roomId, userId }) => ({
      method: 'POST' as const,
      path: `/api/realtime/rooms/${roomId}/join`,
      headers: { authorization: `Bearer ${await issuer.tokenOf(userId)}`, 'content-type': 'application/json' },
      body: '{}',
    })),
  );
  const env = {
    ...serviceEnv(databaseUrl, await livekitFor(say)),
    OIDC_ISSUER: issuer.issuer,
    RATE_LIMIT_USER_PER_MINUTE: '1000000',
    RATE_LIMIT_ADDRESS_PER_MINUTE: '100000000',
  };
  const collector = `http://127.0.0.1:${await startSink()}`;
  const startApi = (name: string, more: Readonly<Record<string, string>> = {}): Promise<Service> =>
    startService({ name, service: 'api', env: { ...env, ...more }, isPinned: true });
  const api = await startApi('api');
  const exporting = await startApi('api-exporting', { OTEL_EXPORTER_OTLP_ENDPOINT: collector });
  const withoutRooms = await startApi('api-without-rooms', { LIVEKIT_MAKE_ROOMS: 'false' });
  const [first] = requests;
  if (first === undefined) throw new Error('nobody is a member');
  const answer = await joinOnce(api.url, first.path, first.headers.authorization);
  const findings = await measureSides({
    bare: await startBareSide(answer),
    sides: [
      sideOf('join', api),
      sideOf('join, spans exported', exporting),
      sideOf('join, makes no rooms', withoutRooms),
    ],
    requests,
    pool,
    seconds,
    rounds,
    say,
  });
  for (const { part } of [api, exporting, withoutRooms]) await part.stop();
  await pool.end();
  issuer.close();
  const conditions = `${requests.length} callers of ${new Set(members.map(({ roomId }) => roomId)).size} rooms, ${connections} connections, answers of ${answer.length} bytes, ${rounds} rounds of ${seconds} s`;
  return {
    lines: [conditions, ...findings.lines],
    figures: { answerBytes: answer.length, ...findings.figures },
  };
};

export const join: Benchmark = {
  summary: 'a join against a bare Fastify route of the same answer',
  defaults: { seconds: 8, rounds: 5 },
  run,
};
