/** Routes that machines ask every few seconds. They are served by the ops server and kept out of traces. */
export const probeRoutes = {
  alive: ['/livez', '/actuator/health/liveness'],
  ready: ['/readyz', '/actuator/health/readiness'],
  health: '/actuator/health',
  metrics: ['/metrics', '/actuator/prometheus'],
  info: '/actuator/info',
} as const;

const probePaths = new Set<string>(Object.values(probeRoutes).flat());

export function isProbe(url: string | undefined): boolean {
  return url !== undefined && probePaths.has(pathOf(url));
}

/** A URL's path: a query may carry a token (LiveKit's `access_token`) and goes into no log and no span. */
export function pathOf(url: string): string {
  const end = url.indexOf('?');
  return end === -1 ? url : url.slice(0, end);
}
