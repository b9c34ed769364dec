import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decodeJwt } from 'jose';
import kafkajs from 'kafkajs';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import {
  newStartEnvironment,
  type OwnProcess,
  type RunningStart,
  removeStartEnvironment,
  runStart,
  type StartEnvironment,
} from '../test/run-start.ts';
import { connectIssuer } from './demo/issuer-client.ts';
import { joinRoom } from './demo/join-room.ts';
import { startLivekit } from './livekit.ts';
import { createDatabase } from './postgres.ts';
import { acceptsConnections } from './process-part.ts';
import { hasEnded } from './signals.ts';
import { describeWith } from './vitest.ts';

describeWith(['livekit'], 'npm start', () => {
  let env: StartEnvironment;
  const running: RunningStart[] = [];

  beforeAll(async () => {
    env = await newStartEnvironment();
  });

  afterAll(() => removeStartEnvironment(env));

  afterEach(async () => {
    for (const start of running.splice(0)) {
      start.child.kill('SIGTERM');
      await start.exitCode;
    }
  });

  function start(more: Readonly<Record<string, string>> = {}, ...args: string[]): RunningStart {
    const started = runStart({ ...env, ...more }, ...args);
    running.push(started);
    return started;
  }

  async function startAndWait(...args: string[]): Promise<RunningStart> {
    const started = start({}, ...args);
    await started.ready;
    return started;
  }

  async function joinAs(name: string) {
    const issuer = await connectIssuer(`http://127.0.0.1:${env.ISSUER_PORT}/realms/dev`);
    const accessToken = await issuer.signIn(name);
    return joinRoom({ apiUrl: `http://127.0.0.1:${env.API_PORT}`, roomId: 'standup', accessToken });
  }

  async function decideAs(host: string, method: 'PUT' | 'DELETE', name: string): Promise<number> {
    const issuer = await connectIssuer(`http://127.0.0.1:${env.ISSUER_PORT}/realms/dev`);
    const headers = { authorization: `Bearer ${await issuer.signIn(host)}` };
    return (await fetch(`http://127.0.0.1:${env.DEMO_PORT}/members/${name}`, { method, headers })).status;
  }

  test('starts each part in order, and the lines that it prints work when they are pasted', async () => {
    const { output } = await startAndWait();
    const parts = [
      'PostgreSQL',
      'dev issuer',
      'LiveKit',
      'api',
      'gate',
      'room-worker',
      'demo room',
      'demo page',
      'Ready',
    ];
    const positions = parts.map((part) => output().indexOf(`${part} `));
    expect(positions).toEqual(positions.toSorted((a, b) => a - b));
    expect(positions).not.toContain(-1);

    const lines = output()
      .split('\n')
      .filter((line) => line.includes('curl '));
    expect(lines).toHaveLength(2);
    const answer = JSON.parse(execFileSync('sh', ['-c', lines.join('\n')], { encoding: 'utf8' }));
    expect(answer).toMatchObject({
      server_url: `ws://127.0.0.1:${env.GATE_PORT}`,
      participant_token: expect.stringMatching(/^[\w-]+\.[\w-]+\.[\w-]+$/),
      participant_name: 'Ann',
      role: 'host',
    });
    const forOperators = output()
      .split('\n')
      .find((line) => line.includes('npm run -s realtime'));
    const verified = execFileSync('sh', ['-c', `${forOperators?.replace('--help', 'verify --json')}`], {
      encoding: 'utf8',
      cwd: fileURLToPath(new URL('../../../', import.meta.url)),
    });
    expect(JSON.parse(verified)).toMatchObject({ differences: 0 });
    for (const path of [
      `${env.API_PORT}/docs/`,
      `${env.API_OPS_PORT}/readyz`,
      `${env.WORKER_OPS_PORT}/readyz`,
      `${env.DEMO_PORT}/`,
    ]) {
      expect([path, (await fetch(`http://127.0.0.1:${path}`)).status]).toEqual([path, 200]);
    }
  });

  test('ends everything at Ctrl-C, and exits with 0', async () => {
    const started = await startAndWait();
    const processes = started.processes();
    const commands = processes.map(({ command }) => command).join('\n');
    for (const part of ['postgres', 'livekit-server', 'services/api', 'services/room-worker'])
      expect(commands).toContain(part);

    started.child.kill('SIGINT');
    expect(await started.exitCode).toBe(0);
    await allEnded(processes);
    await nothingListens(env);
    expect(existsSync(join(env.DATA_DIR, 'start.lock'))).toBe(false);
  });

  test('ends everything at Ctrl-C while it is still starting', async () => {
    const started = start();
    await vi.waitUntil(() => started.output().includes('LiveKit '), { timeout: 20_000, interval: 20 });
    const processes = started.processes();
    started.child.kill('SIGINT');
    expect(await started.exitCode).toBe(0);
    expect(started.output()).not.toContain('Ready');
    await allEnded(processes);
    await nothingListens(env);
  });

  test('does not wait for a part that does not end when Ctrl-C comes twice', async () => {
    const started = await startAndWait();
    const processes = started.processes();
    const api = processes.find(({ command }) => command.includes('services/api'));
    process.kill(api?.pid ?? 0, 'SIGSTOP');
    started.child.kill('SIGINT');
    await vi.waitUntil(() => started.output().includes('Stopping'), { timeout: 5_000, interval: 20 });
    const insistedAtMs = performance.now();
    started.child.kill('SIGINT');
    expect(await started.exitCode).toBe(0);
    // It would be waited for 15 s.
    expect(performance.now() - insistedAtMs).toBeLessThan(10_000);
    await allEnded(processes);
  });

  test('keeps what happened, and says it all again without changing anything', async () => {
    const first = await startAndWait();
    expect(await joinAs('bob')).toMatchObject({ kind: 'admitted', answer: { role: 'speaker' } });
    expect(await joinAs('dan')).toMatchObject({ kind: 'refused', problem: { code: 'room_not_found' } });
    expect(await decideAs('bob', 'DELETE', 'cleo')).toBe(403);
    expect(await decideAs('ann', 'DELETE', 'nobody')).toBe(404);
    expect(await decideAs('ann', 'DELETE', 'bob')).toBe(204);
    expect(await decideAs('ann', 'PUT', 'dan')).toBe(204);
    first.child.kill('SIGINT');
    await first.exitCode;

    await startAndWait();
    expect(await joinAs('bob')).toMatchObject({ kind: 'refused', problem: { code: 'room_not_found' } });
    expect(await joinAs('dan')).toMatchObject({ kind: 'admitted', answer: { role: 'listener' } });
    expect(await joinAs('cleo')).toMatchObject({ kind: 'admitted' });
  });

  test.for([
    ['room.closed', () => ({}), 'room_closed'],
    ['member.removed', (userId: string) => ({ userId }), 'room_not_found'],
  ] as const)('goes on when %s has shut ann out of the demo room, until --reset', async ([type, dataFor, code]) => {
    const first = await startAndWait('--reset');
    expect(await joinAs('ann')).toMatchObject({ kind: 'admitted' });
    const issuer = await connectIssuer(`http://127.0.0.1:${env.ISSUER_PORT}/realms/dev`);
    const data = dataFor(decodeJwt(await issuer.signIn('ann')).sub ?? '');
    const published = await fetch(`http://127.0.0.1:${env.API_PORT}/api/realtime/events`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${await issuer.domainToken()}`,
        'content-type': 'application/cloudevents+json',
      },
      body: JSON.stringify({ specversion: '1.0', id: type, source: '/hand', type, subject: 'standup', data }),
    });
    expect(published.status).toBe(202);
    first.child.kill('SIGINT');
    await first.exitCode;

    const second = await startAndWait();
    expect(second.output()).toMatch(new RegExp(`demo room standup was changed .*${code}.* --reset" brings it back`));
    expect(second.output()).not.toContain('Join the room standup');
  });

  test('forgets everything with --reset', async () => {
    await mkdir(join(env.DATA_DIR, 'something'));
    await writeFile(join(env.DATA_DIR, 'logs', 'old.log'), '');
    await startAndWait('--reset');
    expect(await joinAs('bob')).toMatchObject({ kind: 'admitted', answer: { role: 'speaker' } });
    expect(existsSync(join(env.DATA_DIR, 'logs', 'old.log'))).toBe(false);
    expect(existsSync(join(env.DATA_DIR, 'something'))).toBe(true);
  });

  test('refuses to start, and to reset, where it is running already', async () => {
    const first = await startAndWait();
    for (const args of [[], ['--reset']]) {
      const second = start({}, ...args);
      expect(await second.exitCode).toBe(1);
      expect(second.output()).toMatch(`This is running already, as process ${first.child.pid}`);
      expect(second.output()).not.toContain('    at ');
    }
    expect(await joinAs('ann')).toMatchObject({ kind: 'admitted' });
  });

  test('names every port that is taken, who has it, and the variable that changes it', async () => {
    const servers = [env.API_PORT, env.LIVEKIT_TCP_PORT].map((port) =>
      createServer().listen(Number(port), '127.0.0.1'),
    );
    const second = start();
    expect(await second.exitCode).toBe(1);
    for (const server of servers) server.close();
    expect(second.output()).toMatch(new RegExp(`Port ${env.API_PORT} \\(api.*set API_PORT`));
    expect(second.output()).toMatch(new RegExp(`Port ${env.LIVEKIT_TCP_PORT} \\(LiveKit.*set LIVEKIT_TCP_PORT`));
    if (process.platform === 'linux') expect(second.output()).toContain(`process ${process.pid} `);
    expect(second.output()).not.toContain('    at ');
  });

  test('starts after a crash, once what the crash left behind has ended', async () => {
    const first = await startAndWait();
    const processes = first.processes();
    first.child.kill('SIGKILL');
    await first.exitCode;
    const second = await startAndWait();
    expect(await joinAs('ann')).toMatchObject({ kind: 'admitted' });
    expect(second.output()).toContain('Ready');
    await allEnded(processes);
  });

  test('starts after everything was killed, PostgreSQL too, although its lock and the own one remain', async () => {
    const first = await startAndWait();
    const processes = first.processes();
    for (const { pid } of processes) if (!hasEnded(pid)) process.kill(pid, 'SIGKILL');
    await first.exitCode;
    await allEnded(processes);
    expect(existsSync(join(env.DATA_DIR, 'postgres', 'postmaster.pid'))).toBe(true);
    await startAndWait();
    expect(await joinAs('ann')).toMatchObject({ kind: 'admitted' });
  });

  test('takes no other program for its predecessor, though it has the same process number', async () => {
    await mkdir(dirname(join(env.DATA_DIR, 'start.lock')), { recursive: true });
    await writeFile(join(env.DATA_DIR, 'start.lock'), `${process.pid} 1\n`);
    await startAndWait();
  });

  test.for(['services/api', 'services/room-worker', 'bin/postgres', 'livekit-server'])(
    'ends everything when %s dies, and says so',
    async (part) => {
      const started = await startAndWait();
      const processes = started.processes();
      const victim = processes.find(({ command }) => command.includes(part));
      process.kill(victim?.pid ?? 0, 'SIGKILL');
      expect(await started.exitCode).toBe(1);
      expect(started.output()).toMatch(/(api|room-worker|PostgreSQL|LiveKit) has ended by itself/);
      expect(started.output()).toMatch(/The last lines of its log:\n.+/);
      await allEnded(processes);
      await nothingListens(env);
    },
  );

  test('tells which part could not be started, and the end of its log', async () => {
    const started = start({ TOKEN_TTL_SECONDS: 'soon' });
    expect(await started.exitCode).toBe(1);
    expect(started.output()).toMatch(/api could not be started/);
    expect(started.output()).toContain('TOKEN_TTL_SECONDS');
    expect(started.output()).not.toContain('    at ');
    await nothingListens(env);
  });

  // Where Docker answers, LiveKit is had from it.
  test.skipIf(existsSync('/var/run/docker.sock'))(
    'goes on without LiveKit where it cannot be had, and says what that means',
    async () => {
      const nothing = join(dirname(env.DATA_DIR), 'nothing');
      await mkdir(nothing, { recursive: true });
      const started = start({ PATH: nothing, XDG_CACHE_HOME: nothing });
      await started.ready;
      expect(started.output()).toMatch(/LiveKit is absent: .*Go.* Tokens are still issued/s);
      expect(await joinAs('ann')).toMatchObject({ kind: 'admitted' });
    },
  );

  test.for([
    [{ API_PORT: 'x', DEMO_PORT: '70000' }, ['API_PORT', 'DEMO_PORT']],
    [{ API_PORT: '8080', DEMO_PORT: '8080' }, ['API_PORT and DEMO_PORT are the same port, 8080']],
    [{ NODE_ENV: 'production' }, ['for development']],
    [{ LIVEKIT_URL: 'ws://127.0.0.1:7880' }, ['LIVEKIT_KEYS']],
    [{ DATABASE_URL: 'postgres://me:hush@127.0.0.1:1/x' }, ['127.0.0.1:1, cannot be used: nothing listens there']],
    [{ KAFKA_BROKERS: '127.0.0.1:1' }, ['KAFKA_BROKERS, 127.0.0.1:1, cannot be used: nothing listens there']],
  ] as const)('refuses wrong settings: %j', async ([settings, words]) => {
    const started = start(settings);
    expect(await started.exitCode).toBe(1);
    for (const word of words) expect(started.output()).toContain(word);
    expect(started.output()).not.toContain('    at ');
  });

  test('explains itself', async () => {
    const help = start({}, '--help');
    expect(await help.exitCode).toBe(0);
    for (const word of ['--reset', 'LIVEKIT_UDP_PORT', '[8080]', 'KAFKA_BROKERS'])
      expect(help.output()).toContain(word);
    const wrong = start({}, '--resett');
    expect(await wrong.exitCode).toBe(1);
    expect(wrong.output()).toContain('--reset and --help');
  });
});

describeWith(
  ['postgres', 'kafka', 'keycloak', 'livekit'],
  'npm start with parts of others',
  ({ postgres, kafka, keycloak }) => {
    test('uses those that the environment names, and starts none of its own', async () => {
      const env = await newStartEnvironment();
      const livekit = await startLivekit({
        keys: { theirs: 'a-secret-of-theirs-that-is-long-enough' },
        webhookUrl: `http://127.0.0.1:${env.WORKER_PORT}/webhooks/livekit`,
      });
      await createTopics(kafka.brokers);
      const started = runStart({
        ...env,
        DATABASE_URL: await createDatabase(postgres.url),
        KAFKA_BROKERS: kafka.brokers.join(','),
        OIDC_ISSUER: keycloak.issuer,
        LIVEKIT_URL: livekit.url,
        LIVEKIT_KEYS: 'theirs: a-secret-of-theirs-that-is-long-enough',
      });
      try {
        await started.ready;
        const commands = started.processes().map(({ command }) => command);
        expect(commands.filter((command) => /postgres|livekit/.test(command))).toEqual([]);
        expect(started.output()).toContain(`KAFKA_BROKERS='${kafka.brokers.join(',')}' npm run -s realtime`);
        const issuer = await connectIssuer(keycloak.issuer);
        const accessToken = await issuer.signIn('bob');
        const apiUrl = `http://127.0.0.1:${env.API_PORT}`;
        expect(await joinRoom({ apiUrl, roomId: 'standup', accessToken })).toMatchObject({
          kind: 'admitted',
          answer: { server_url: livekit.url, role: 'speaker' },
        });
      } finally {
        started.child.kill('SIGINT');
        expect(await started.exitCode).toBe(0);
        await livekit.stop();
        await removeStartEnvironment(env);
      }
    });

    test('leaves the demo out where the issuer knows nobody of it', async () => {
      const env = await newStartEnvironment();
      const master = keycloak.issuer.replace(/[^/]+$/, 'master');
      const started = runStart({ ...env, OIDC_ISSUER: master });
      try {
        await started.ready;
        expect(started.output()).toContain('The demo is left out');
        expect((await fetch(`http://127.0.0.1:${env.API_OPS_PORT}/readyz`)).status).toBe(200);
      } finally {
        started.child.kill('SIGINT');
        expect(await started.exitCode).toBe(0);
      }
    });
  },
);

async function createTopics(brokers: readonly string[]): Promise<void> {
  const admin = new kafkajs.Kafka({ brokers: [...brokers], logLevel: kafkajs.logLevel.NOTHING }).admin();
  await admin.connect();
  const names = ['room-events', 'livekit-webhooks', 'presence'].map((name) => `realtime.${name}.v1`);
  const topics = names.flatMap((name) => [name, `${name}-dlt`]).map((topic) => ({ topic, numPartitions: 3 }));
  await admin.createTopics({ topics, waitForLeaders: true });
  await admin.disconnect();
}

/** The reaper outlives the start by a moment. */
async function allEnded(processes: readonly OwnProcess[]): Promise<void> {
  await vi.waitFor(() => expect(processes.filter(({ pid }) => !hasEnded(pid))).toEqual([]), {
    timeout: 10_000,
    interval: 20,
  });
}

async function nothingListens({ DATA_DIR: _, ...ports }: StartEnvironment): Promise<void> {
  const answers = await Promise.all(
    Object.values(ports).map((port) => acceptsConnections(Number(port)).catch(() => false)),
  );
  expect(answers.filter(Boolean)).toEqual([]);
}
