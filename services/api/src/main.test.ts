import { connect } from 'node:net';
import { settingsOf } from '@realtime-service/telemetry';
import { describe, expect, test } from 'vitest';
import { startProcess, startWithFewFiles } from '../test/api-process.ts';
import { environment } from '../test/test-api.ts';
import { ApiSettings } from './config.ts';

/** Nothing that it depends on is there. */
const alone = {
  ...environment,
  DATABASE_URL: 'postgres://api@127.0.0.1:1/none',
  OIDC_ISSUER: 'http://127.0.0.1:1/realms/none',
  LIVEKIT_URL: 'ws://rtc.example.test',
  API_PORT: '0',
  API_OPS_PORT: '0',
};

describe('the process', () => {
  test('--help names every setting, and each is described', async () => {
    const { output, ended } = startProcess({}, '--help');
    expect(await ended).toBe(0);
    const settings = settingsOf(ApiSettings);
    expect(settings.length).toBeGreaterThan(35);
    for (const { name, description } of settings) {
      expect(description, name).not.toBe('');
      expect(output.stdout).toContain(`\n  ${name} `);
    }
  });

  test('does not start with wrong settings, and names them all', async () => {
    const { output, ended } = startProcess({ TOKEN_TTL_SECONDS: '365d', LIVEKIT_URL: '', OIDC_ISSUER: ' ' });
    expect(await ended).not.toBe(0);
    for (const name of ['OIDC_ISSUER', 'DATABASE_URL', 'TOKEN_TTL_SECONDS', 'LIVEKIT_URL', 'LIVEKIT_KEYS'])
      expect(output.stderr).toContain(name);
    for (const name of ['OIDC_ISSUER', 'DATABASE_URL', 'LIVEKIT_URL'])
      expect(output.stderr).toContain(`${name}: must be set`);
  });

  test('takes a value without the blanks around it, as a guard must', async () => {
    const { output, ended } = startProcess({ ...environment, NODE_ENV: 'production\n', LOG_LEVEL: ' info ' });
    expect(await ended).toBe(2);
    expect(output.stderr).toContain('KAFKA_BROKERS: must be set in production');
    expect(output.stderr).not.toContain('LOG_LEVEL');
  });

  test('takes no notice of what Kubernetes says of a Service by the name of a setting', async () => {
    const links = { API_PORT: 'tcp://10.96.0.5:8080', API_OPS_PORT: 'tcp://[fd00::5]:8081' };
    const { output, ended } = startProcess({ ...environment, ...links, DATABASE_URL: 'tcp://10.96.0.5:8080' });
    expect(await ended).toBe(2);
    expect(output.stderr).toContain('\n  DATABASE_URL: must be set\n');
    expect(output.stderr).not.toContain('PORT');
  });

  test('takes no value in quotes, which a guard would not know', async () => {
    const { output, ended } = startProcess({ ...environment, NODE_ENV: '"production"', API_PORT: "'8080'" });
    expect(await ended).toBe(2);
    expect(output.stderr).toContain('\n  NODE_ENV: must not stand in quotes\n');
    expect(output.stderr.match(/API_PORT.*/g)).toEqual(['API_PORT: must not stand in quotes']);
  });

  test('listens with nothing that it depends on, and ends in order when told to', async () => {
    const { child, output, ended, listening } = startProcess(alone);
    const { url, ops } = await listening;
    expect((await fetch(`${ops}/livez`)).status).toBe(200);
    expect((await fetch(`${ops}/readyz`)).status).toBe(503);
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
    for (const [room, code] of [
      ['room-42', 'unauthenticated'],
      ['%zz', 'malformed_request'],
    ]) {
      const answer = await fetch(`${url}/api/realtime/rooms/${room}/join`, {
        method: 'POST',
        headers: { traceparent: `00-${traceId}-00f067aa0ba902b7-01` },
      });
      expect(await answer.json()).toMatchObject({ code, trace_id: traceId });
      await expect.poll(() => output.stdout).toMatch(new RegExp(`"trace_id":"${traceId}".*"code":"${code}"`));
    }

    child.kill('SIGTERM');
    expect(await ended).toBe(0);
    expect(output.stderr).toBe('');
    expect(output.stdout).toContain('clients are sent to LiveKit without TLS');
    expect(output.stdout).toContain('stopping');
  }, 30_000);

  test('outlives strangers who take every connection that it may have', async () => {
    const { child, output, ended, listening } = startWithFewFiles(alone, 64);
    const { url, ops } = await listening;
    const { hostname, port } = new URL(url);
    const connections = Array.from({ length: 100 }, () => connect(Number(port), hostname).on('error', () => undefined));
    // There is no file left for one that is closed at once.
    await expect.poll(() => connections.some(({ closed }) => closed), { timeout: 4_000 }).toBe(true);
    const attempts = (): number => output.stdout.split('the schema could not be prepared yet').length;
    const before = attempts();
    await expect.poll(attempts, { timeout: 4_000 }).toBeGreaterThanOrEqual(before + 2);

    for (const connection of connections) connection.destroy();
    await expect
      .poll(
        () =>
          fetch(`${ops}/livez`).then(
            ({ status }) => status,
            () => 0,
          ),
        { timeout: 4_000 },
      )
      .toBe(200);
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
  }, 30_000);
});
