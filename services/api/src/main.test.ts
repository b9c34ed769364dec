import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { environment } from '../test/test-api.ts';

const script = fileURLToPath(new URL('main.ts', import.meta.url));

const start = (env: Record<string, string>, ...args: string[]) => {
  const child = spawn(process.execPath, [script, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => {
    output.stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    output.stderr += chunk;
  });
  return { child, output, ended: once(child, 'close').then(([code]) => code as number | null) };
};

describe('the process', () => {
  test('--help names every setting', async () => {
    const { output, ended } = start({}, '--help');
    expect(await ended).toBe(0);
    for (const name of ['OIDC_ISSUER', 'KAFKA_BROKERS', 'LIVEKIT_KEYS', 'DATABASE_DIRECT_URL', 'TOKEN_TTL_SECONDS'])
      expect(output.stdout).toContain(name);
  });

  test('does not start with wrong settings, and names them all', async () => {
    const { output, ended } = start({ TOKEN_TTL_SECONDS: '365d', LIVEKIT_URL: '' });
    expect(await ended).not.toBe(0);
    for (const name of ['OIDC_ISSUER', 'DATABASE_URL', 'TOKEN_TTL_SECONDS', 'LIVEKIT_URL', 'LIVEKIT_KEYS'])
      expect(output.stderr).toContain(name);
  });

  test('listens with nothing that it depends on, and ends in order when told to', async () => {
    const { child, output, ended } = start({
      ...environment,
      DATABASE_URL: 'postgres://api@127.0.0.1:1/none',
      OIDC_ISSUER: 'http://127.0.0.1:1/realms/none',
      API_PORT: '0',
      API_OPS_PORT: '0',
    });
    await expect.poll(() => output.stdout, { timeout: 10_000 }).toContain('api is up');
    const { ops, url } = output.stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line))
      .find(({ msg }) => msg === 'api is up');
    expect((await fetch(`${ops}/livez`)).status).toBe(200);
    expect((await fetch(`${ops}/readyz`)).status).toBe(503);
    const answer = await fetch(`${url}/api/realtime/rooms/room-42/join`, { method: 'POST' });
    expect(await answer.json()).toMatchObject({
      code: 'unauthenticated',
      trace_id: expect.stringMatching(/^[0-9a-f]{32}$/),
    });

    child.kill('SIGTERM');
    expect(await ended).toBe(0);
    expect(output.stderr).toBe('');
    expect(output.stdout).toContain('stopping');
  }, 30_000);
});
