import Fastify from 'fastify';
import { describe, expect, it } from 'vitest';
import { createMetrics } from './metrics.ts';
import { measureRoutes, traceRoutes } from './routes.ts';

describe('measureRoutes', () => {
  it('counts by route template, so that no id becomes a label', async () => {
    const metrics = createMetrics();
    const app = Fastify();
    traceRoutes(app);
    measureRoutes(app, metrics);
    app.get('/rooms/:roomId', () => 'ok');
    await app.inject('/rooms/room-42');
    await app.inject('/rooms/room-43');
    await app.inject('/secret-of/u-7');
    const text = await metrics.getSingleMetricAsString('http_server_requests_seconds');
    expect(text).toContain('http_server_requests_seconds_count{method="GET",uri="/rooms/:roomId",status="200"} 2');
    expect(text).toContain('http_server_requests_seconds_count{method="GET",uri="UNKNOWN",status="404"} 1');
    expect(text).not.toMatch(/room-4|u-7/);
  });
});
