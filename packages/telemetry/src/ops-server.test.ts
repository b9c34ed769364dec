import { Counter } from 'prom-client';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createLogger } from './logger.ts';
import { createMetrics } from './metrics.ts';
import { createOpsServer, type DependencyCheck } from './ops-server.ts';

const up: DependencyCheck = async () => {};
const down: DependencyCheck = () => Promise.reject(new Error('connect postgres://rt:hunter2@db failed'));
const silent: DependencyCheck = () => new Promise(() => {});

function given(options: Partial<Parameters<typeof createOpsServer>[0]> = {}) {
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({ service: 'api', destination: { write: (line) => lines.push(JSON.parse(line)) } });
  const metrics = createMetrics();
  const app = createOpsServer({
    checks: { store: up },
    metrics,
    info: { version: '0.1.0' },
    logger,
    checkTimeoutMs: 20,
    ...options,
  });
  return { app, lines, metrics };
}

describe.each(['/readyz', '/actuator/health/readiness', '/actuator/health'])('GET %s', (url) => {
  it('200 when all that is needed answers', async () => {
    const response = await given({ optionalChecks: { collector: down } }).app.inject(url);
    expect([response.statusCode, response.json().status]).toEqual([200, 'UP']);
  });

  it('200 soon, as a probe asks for, though something optional hangs', async () => {
    const beganMs = performance.now();
    const response = await given({ checkTimeoutMs: 10_000, optionalChecks: { collector: silent } }).app.inject(url);
    expect(response.statusCode).toBe(200);
    expect(performance.now() - beganMs).toBeLessThan(5_000);
  });

  it.each([
    ['fails', down],
    ['hangs', silent],
    [
      'fails at once',
      () => {
        throw new Error('not started');
      },
    ],
  ])('503 when something needed %s', async (_case, check) => {
    const response = await given({ checks: { store: up, log: check } }).app.inject(url);
    expect([response.statusCode, response.json().status]).toEqual([503, 'DOWN']);
    expect(response.body).not.toContain('hunter2');
  });
});

describe('readiness', () => {
  it('tells each dependency with its latency and since when it is so', async () => {
    let isUp = true;
    let elapsedMs = 0;
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => elapsedMs);
    onTestFinished(() => clock.mockRestore());
    const times = ['2026-01-01T10:00:00.000Z', '2026-01-01T10:05:00.000Z', '2026-01-01T10:09:00.000Z'];
    const check: DependencyCheck = async () => {
      elapsedMs += 12.34;
      if (!isUp) await down();
    };
    const { app, lines } = given({
      checks: { store: check },
      now: () => new Date(times.shift() ?? 'never'),
    });
    const ask = async () => (await app.inject('/readyz')).json().dependencies.store;
    expect(await ask()).toEqual({ ok: true, latencyMs: 12.3, since: '2026-01-01T10:00:00.000Z' });
    expect(await ask()).toMatchObject({ ok: true, since: '2026-01-01T10:00:00.000Z' });
    isUp = false;
    expect(await ask()).toMatchObject({ ok: false, since: '2026-01-01T10:05:00.000Z' });
    expect(await ask()).toMatchObject({ ok: false, since: '2026-01-01T10:05:00.000Z' });
    isUp = true;
    expect(await ask()).toMatchObject({ ok: true, since: '2026-01-01T10:09:00.000Z' });
    expect(lines).toMatchObject([
      {
        level: 'warn',
        dependency: 'store',
        err: { message: 'connect postgres://[redacted]@db failed' },
        msg: 'dependency is down',
      },
      { level: 'info', dependency: 'store', msg: 'dependency is up again' },
    ]);
  });

  it('asks a dependency that hangs only once, however often it is asked itself', async () => {
    let asked = 0;
    const { app } = given({
      checks: {
        store: () => {
          asked += 1;
          return silent();
        },
      },
    });
    await Promise.all([app.inject('/readyz'), app.inject('/readyz')]);
    await app.inject('/readyz');
    expect(asked).toBe(1);
  });

  it('asks again after a check that failed at once', async () => {
    let asked = 0;
    const check = () => {
      asked += 1;
      if (asked === 1) throw new Error('not started');
      return up();
    };
    const { app } = given({ checks: { store: check } });
    expect([(await app.inject('/readyz')).statusCode, (await app.inject('/readyz')).statusCode]).toEqual([503, 200]);
  });

  it('speaks Spring’s shape at /actuator/health', async () => {
    const response = await given({ checks: { store: up }, optionalChecks: { collector: down } }).app.inject(
      '/actuator/health',
    );
    expect(response.json()).toMatchObject({
      status: 'UP',
      components: { store: { status: 'UP' }, collector: { status: 'DOWN' } },
    });
  });
});

describe.each(['/livez', '/actuator/health/liveness'])('GET %s', (url) => {
  it('200 whatever the dependencies do', async () => {
    let asked = 0;
    const { app } = given({
      checks: {
        store: () => {
          asked += 1;
          return silent();
        },
      },
    });
    const response = await app.inject(url);
    expect([response.statusCode, response.json(), asked]).toEqual([200, { status: 'UP' }, 0]);
  });
});

describe.each(['/metrics', '/actuator/prometheus'])('GET %s', (url) => {
  it('200 in OpenMetrics', async () => {
    const { app, metrics } = given();
    new Counter({ name: 'joins_total', help: 'Joins.', registers: [metrics] }).inc();
    const response = await app.inject(url);
    expect(response.headers['content-type']).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8');
    expect(response.body).toContain('# TYPE joins counter\njoins_total 1\n');
    expect(response.body).toContain('nodejs_eventloop_lag_seconds');
    expect(response.body).toMatch(/# EOF\n$/);
  });
});

describe('GET /actuator/info', () => {
  it('200 with what the service says of itself', async () => {
    expect((await given().app.inject('/actuator/info')).json()).toEqual({ version: '0.1.0' });
  });
});
