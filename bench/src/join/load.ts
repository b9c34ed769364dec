import autocannon from 'autocannon';

export interface LoadResult {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** As many as keep the core of a server busy that waits for its database. */
export const connections = 128;

/** Each connection sends requests of its own, one at a time, as fast as the answers come. */
export const putLoad = async (
  url: string,
  requests: readonly autocannon.Request[],
  seconds: number,
): Promise<LoadResult> => {
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
