import { PartAbsent, startGateProxy } from '@realtime-service/dev-stack';
import type { Benchmark, Effort, Findings } from '../benchmark.ts';
import { figure } from '../format.ts';
import { livekitTokenOf } from '../livekit-token.ts';
import { canPin, leaveServerCore, serviceEnv, startService } from '../processes.ts';
import { startBenchIssuer } from './issuer.ts';
import { connections } from './load.ts';
import { livekitFor, measureSides, projectRooms, sideOf, startBareSide } from './sides.ts';

const knocks = 400;

/** As livekit-client asks, by nginx. */
const uriOf = (token: string): string =>
  `/rtc?access_token=${token}&auto_subscribe=1&sdk=js&version=2.23.0&protocol=16&adaptive_stream=1`;

const askOnce = async (url: string, uri: string): Promise<string> => {
  const response = await fetch(`${url}/api/realtime/gate`, { headers: { 'x-original-uri': uri } });
  if (response.status !== 204) throw new Error(`the gate answered ${response.status}: ${await response.text()}`);
  return response.headers.get('authorization') ?? '';
};

/** How long LiveKit's door takes to answer, one knock after the other. */
const knock = async (url: string, tokens: readonly string[]): Promise<{ p50Ms: number; p95Ms: number }> => {
  const durationsMs: number[] = [];
  for (let count = 0; count < knocks; count += 1) {
    const startedAtMs = performance.now();
    const response = await fetch(`${url}/rtc/validate?access_token=${tokens[count % tokens.length]}`);
    await response.arrayBuffer();
    if (!response.ok) throw new Error(`the door answered ${response.status}`);
    durationsMs.push(performance.now() - startedAtMs);
  }
  durationsMs.sort((a, b) => a - b);
  const percentile = (share: number): number => durationsMs[Math.floor(durationsMs.length * share)] ?? Number.NaN;
  return { p50Ms: percentile(0.5), p95Ms: percentile(0.95) };
};

/** What nginx and the gate add to LiveKit's answer; where both can be had. */
const measureDoor = async (apiUrl: string, livekitUrl: string, tokens: readonly string[]) => {
  const livekit = livekitUrl.replace(/^ws/, 'http');
  try {
    const door = await startGateProxy('nginx', { api: new URL(apiUrl).host, livekit: new URL(livekit).host });
    const url = door.url.replace(/^ws/, 'http');
    // By the door first: rooms are made there.
    await knock(url, tokens);
    const [direct, behind] = [await knock(livekit, tokens), await knock(url, tokens)];
    await door.stop();
    return { direct, behind };
  } catch (error) {
    if (error instanceof PartAbsent) return undefined;
    throw error;
  }
};

const run = async ({ seconds, rounds }: Effort, say: (line: string) => void): Promise<Findings> => {
  leaveServerCore();
  say(canPin ? 'each server has core 0, all else core 1' : 'no taskset: nothing is held to a core');
  const { databaseUrl, pool, members } = await projectRooms();
  const tokens = await Promise.all(members.map(({ roomId, userId }) => livekitTokenOf(roomId, userId)));
  const livekit = await livekitFor(say);
  const issuer = await startBenchIssuer();
  const env = {
    ...serviceEnv(databaseUrl, livekit),
    OIDC_ISSUER: issuer.issuer,
    RATE_LIMIT_GATE_PER_MINUTE: '1000000',
  };
  const api = await startService({ name: 'api', service: 'api', env, isPinned: true });
  const uris = tokens.map(uriOf);
  const answer = await askOnce(api.url, uris[0] ?? '');
  const findings = await measureSides({
    bare: await startBareSide(JSON.stringify(answer)),
    sides: [sideOf('gate', api)],
    requests: uris.map((uri) => ({ path: '/api/realtime/gate', headers: { 'x-original-uri': uri } })),
    pool,
    seconds,
    rounds,
    say,
  });
  const door = await measureDoor(api.url, livekit.url, tokens.slice(0, 20));
  await api.part.stop();
  await pool.end();
  issuer.close();
  const conditions = `${uris.length} visitors of ${new Set(members.map(({ roomId }) => roomId)).size} rooms, ${connections} connections, ${rounds} rounds of ${seconds} s`;
  return {
    lines: [conditions, ...findings.lines, doorLine(door)],
    figures: { ...findings.figures, door },
  };
};

const doorLine = (door: Awaited<ReturnType<typeof measureDoor>>): string =>
  door === undefined
    ? 'nginx is absent: what the gate adds to a connection was not measured'
    : `nginx and gate add to LiveKit's answer: p50 ${figure(door.behind.p50Ms - door.direct.p50Ms)} ms, p95 ${figure(door.behind.p95Ms - door.direct.p95Ms)} ms`;

export const gate: Benchmark = {
  summary: "the gate's answer against a bare Fastify GET of the same answer",
  defaults: { seconds: 8, rounds: 5 },
  run,
};
