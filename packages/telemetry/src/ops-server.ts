import Fastify, { type FastifyInstance } from 'fastify';
import { withDeadline } from './deadline.ts';
import type { Logger } from './logger.ts';
import type { Metrics } from './metrics.ts';
import { probeRoutes } from './probes.ts';
import { traceRoutes } from './routes.ts';

/** Resolves when the dependency answers; rejects or takes longer than the deadline when it does not. */
export type DependencyCheck = () => Promise<void>;

/** Kubernetes waits a second for a probe by default: what is optional must not use that up. */
const optionalCheckTimeoutMs = 800;

type OpsServerOptions = {
  /** What the service cannot work without: one of them failing makes it unready. */
  checks: Readonly<Record<string, DependencyCheck>>;
  /** What it can do without for a while: reported, never a reason to take it out of rotation. */
  optionalChecks?: Readonly<Record<string, DependencyCheck>>;
  metrics: Metrics;
  /** Served at `/actuator/info`. */
  info: Readonly<Record<string, unknown>>;
  logger: Logger;
  checkTimeoutMs?: number;
  now?: () => Date;
};

type DependencyStatus = { ok: boolean; latencyMs: number; since: string };
type Readiness = { isReady: boolean; dependencies: Record<string, DependencyStatus> };

/**
 * The operators' routes, which both services serve on a port of their own: liveness, readiness, metrics, and their
 * aliases in Spring's shape. Not listening yet; a service adds its own ops routes to it.
 */
export function createOpsServer(options: OpsServerOptions): FastifyInstance {
  const { metrics, info } = options;
  const probe = createReadinessProbe(options);
  // Probers and scrapers keep connections that they have never used, which would hold up the process's end.
  const app = Fastify({ requestTimeout: 5_000, connectionTimeout: 10_000, forceCloseConnections: true });
  traceRoutes(app);

  // Never looks at dependencies: a restart does not mend somebody else's outage.
  for (const url of probeRoutes.alive) app.get(url, () => ({ status: 'UP' }));
  for (const url of probeRoutes.ready) {
    app.get(url, async (_request, reply) => {
      const { isReady, dependencies } = await probe();
      return reply.code(isReady ? 200 : 503).send({ status: isReady ? 'UP' : 'DOWN', dependencies });
    });
  }
  app.get(probeRoutes.health, async (_request, reply) => {
    const { isReady, dependencies } = await probe();
    return reply
      .code(isReady ? 200 : 503)
      .send({ status: isReady ? 'UP' : 'DOWN', components: toSpringComponents(dependencies) });
  });
  for (const url of probeRoutes.metrics) {
    app.get(url, async (_request, reply) => reply.type(metrics.contentType).send(await metrics.metrics()));
  }
  app.get(probeRoutes.info, () => info);
  return app;
}

function toSpringComponents(dependencies: Record<string, DependencyStatus>): object {
  return Object.fromEntries(
    Object.entries(dependencies).map(([name, { ok, ...details }]) => [name, { status: ok ? 'UP' : 'DOWN', details }]),
  );
}

function createReadinessProbe(options: OpsServerOptions): () => Promise<Readiness> {
  const required = Object.entries(options.checks).map(([name, check]) => createDependencyProbe(name, check, options));
  const optional = Object.entries(options.optionalChecks ?? {}).map(([name, check]) =>
    createDependencyProbe(name, check, { ...options, checkTimeoutMs: optionalCheckTimeoutMs }),
  );
  return async () => {
    const [needed, wanted] = await Promise.all([
      Promise.all(required.map((probe) => probe())),
      Promise.all(optional.map((probe) => probe())),
    ]);
    return {
      isReady: needed.every(([, status]) => status.ok),
      dependencies: Object.fromEntries([...needed, ...wanted]),
    };
  };
}

/**
 * Probes that come while a check is under way wait for that one: a dependency that hangs is asked once, however often
 * the orchestrator asks us. The reason of a failure is logged when it begins and never served.
 */
function createDependencyProbe(
  name: string,
  check: DependencyCheck,
  options: OpsServerOptions,
): () => Promise<[string, DependencyStatus]> {
  const { logger, checkTimeoutMs = 2_000, now = () => new Date() } = options;
  let underWay: Promise<void> | undefined;
  let last: { ok: boolean; since: string } | undefined;

  const record = (ok: boolean, err?: unknown) => {
    if (last?.ok === ok) return last;
    if (!ok) logger.warn({ dependency: name, err }, 'dependency is down');
    else if (last !== undefined) logger.info({ dependency: name }, 'dependency is up again');
    last = { ok, since: now().toISOString() };
    return last;
  };

  return async () => {
    const startedAtMs = performance.now();
    underWay ??= Promise.resolve()
      .then(check)
      .finally(() => {
        underWay = undefined;
      });
    const state = await withDeadline(underWay, checkTimeoutMs).then(
      () => record(true),
      (error: unknown) => record(false, error),
    );
    return [
      name,
      { ok: state.ok, latencyMs: Math.round((performance.now() - startedAtMs) * 10) / 10, since: state.since },
    ];
  };
}
