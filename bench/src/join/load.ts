import autocannon from 'autocannon';

/** One caller at one room. */
export interface Caller {
  readonly roomId: string;
  readonly token: string;
}

export interface LoadResult {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const connections = 64;

/** Each connection asks for its own callers, one request at a time, as fast as the answers come. */
export const putLoad = async (url: string, callers: readonly Caller[], seconds: number): Promise<LoadResult> => {
  const requests = callers.map(({ roomId, token }) => ({
    method: 'POST' as const,
    path: `/api/realtime/rooms/${roomId}/join`,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: '{}',
  }));
  const latenciesMs: number[] = [];
  let clients = 0;
  const result = await autocannon({
    url,
    connections,
    pipelining: 1,
    duration: seconds,
    setupClient: (client) => {
      const own = clients;
      clients += 1;
      client.setRequests(requests.filter((_, at) => at % connections === own));
      client.on('response', (_status, _bytes, responseTimeMs) => latenciesMs.push(responseTimeMs));
    },
  });
  latenciesMs.sort((a, b) => a - b);
  const percentile = (share: number): number => latenciesMs[Math.floor(latenciesMs.length * share)] ?? Number.NaN;
  const failures = result.errors + result.timeouts + result.non2xx;
  if (failures > 0) throw new Error(`${failures} of ${result.requests.total} requests to ${url} failed`);
  return {
    perSecond: result.requests.total / result.duration,
    p50Ms: percentile(0.5),
    p99Ms: percentile(0.99),
  };
};
