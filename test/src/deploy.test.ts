import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deadLetterTopic, defaultPartitionCount, topics } from '@realtime-service/contracts';
import { Ajv } from 'ajv';
import addFormats from 'ajv-formats';
import composeSchema from 'docker-compose/schema/compose-spec.json' with { type: 'json' };
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { ApiSettings } from '../../services/api/src/config.ts';
import { WorkerSettings } from '../../services/room-worker/src/config.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');

interface Service {
  readonly image?: string;
  readonly init?: boolean;
  readonly build?: { readonly target: string };
  readonly environment?: Record<string, string>;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly command?: readonly string[];
  readonly healthcheck?: { readonly test: readonly string[] };
  readonly depends_on?: Record<string, { readonly condition: string }>;
}

const compose: { services: Record<string, Service>; volumes: object } = parse(read('docker-compose.dev.yml'), {
  merge: true,
});
const services = Object.entries(compose.services);
const imageMode = /^ENV .*\bNODE_ENV=(\w+)/m.exec(read('Dockerfile'))?.[1];

describe('docker-compose.dev.yml', () => {
  test('follows the Compose Specification', () => {
    // Its $schema is spelled with https, which is no name that ajv knows.
    const { $schema: _, ...schema } = composeSchema;
    const ajv = new Ajv({ strict: false, allErrors: true });
    addFormats.default(ajv);
    const validate = ajv.compile(schema);
    validate(compose);
    expect(validate.errors).toBeNull();
  });

  // A job that others wait for has ended when they start.
  const isJob = (name: string) =>
    services.some(([, { depends_on }]) => depends_on?.[name]?.condition === 'service_completed_successfully');

  test.each(services.filter(([name]) => !isJob(name)))('%s says whether it is healthy', (_, { healthcheck, build }) => {
    const stage =
      build &&
      read('Dockerfile')
        .split(/^FROM /m)
        .find((text) => text.split('\n')[0]?.endsWith(` AS ${build.target}`));
    expect(healthcheck !== undefined || stage?.includes('HEALTHCHECK')).toBe(true);
  });

  test.each(services)('%s publishes ports on loopback alone', (_, { ports = [] }) => {
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+(\/udp)?$/);
  });

  test('publishes no port twice', () => {
    const published = services.flatMap(([, { ports = [] }]) => ports.map((port) => port.split(':')[1]));
    expect(published).toEqual([...new Set(published)]);
  });

  test.each(services)('%s mounts what is there', (_, { volumes = [] }) => {
    for (const [source = ''] of volumes.map((volume) => volume.split(':'))) {
      expect(source.startsWith('./') ? existsSync(join(root, source)) : source in compose.volumes).toBe(true);
    }
  });

  test.each(services)('%s waits only for services that are there', (_, { depends_on = {} }) => {
    for (const name of Object.keys(depends_on)) expect(compose.services).toHaveProperty(name);
  });

  test.each(services.filter(([, { build }]) => build))(
    '%s has an init, which ends it also while Node loads',
    (_, { init }) => {
      expect(init).toBe(true);
    },
  );

  test.each(services.filter(([, { image }]) => image))('%s has a pinned image', (_, { image }) => {
    expect(image).toMatch(/:v?\d+(\.\d+)*(-[a-z]+)?$/);
  });

  test.each(['api', 'room-worker'])('%s knows the keys of livekit.yaml', (name) => {
    const keys: Record<string, string> = parse(read('livekit.yaml')).keys;
    const given = Object.entries(keys).map(([key, secret]) => `${key}: ${secret}`);
    expect(compose.services[name]?.environment?.['LIVEKIT_KEYS']?.split('\n')).toEqual(given);
  });

  test.each([
    ['api', ApiSettings],
    ['room-worker', WorkerSettings],
  ])('%s gets settings that it takes, and none that it does not know', (name, settings) => {
    const environment = compose.services[name]?.environment ?? {};
    expect(settings.safeParse({ NODE_ENV: imageMode, ...environment }).error).toBeUndefined();
    const main = join(root, 'services', name, 'src', 'main.ts');
    const { stdout: help } = spawnSync(process.execPath, [main, '--help'], { encoding: 'utf8' });
    for (const variable of Object.keys(environment)) {
      if (!variable.startsWith('OTEL_')) expect(help).toMatch(new RegExp(`\\b${variable}\\b`));
    }
  });

  test('lets the api expect the issuer that Keycloak writes into its tokens', () => {
    const realm = JSON.parse(read('deploy/keycloak/realm-dev.json')).realm;
    const address = compose.services['keycloak']?.environment?.['KC_HOSTNAME'];
    expect(compose.services['api']?.environment?.['OIDC_ISSUER']).toBe(`${address}/realms/${realm}`);
  });
});

describe.skipIf(process.platform === 'win32')('commands of docker-compose.dev.yml', () => {
  test('LiveKit listens everywhere and sends its webhooks to the room-worker', () => {
    const [command = ''] = compose.services['livekit']?.command ?? [];
    const folder = mkdtempSync(join(tmpdir(), 'compose-'));
    const adapted = command
      .replace('/etc/livekit.yaml', join(root, 'livekit.yaml'))
      .replaceAll('/tmp/livekit.yaml', join(folder, 'livekit.yaml'))
      .replace('/livekit-server', 'echo');
    const { stdout } = spawnSync('sh', ['-c', adapted], { encoding: 'utf8' });
    expect(stdout).toBe(`--config ${folder}/livekit.yaml --bind 0.0.0.0\n`);
    const original = parse(read('livekit.yaml'));
    const webhook = { ...original.webhook, urls: ['http://room-worker:8090/webhooks/livekit'] };
    expect(parse(readFileSync(join(folder, 'livekit.yaml'), 'utf8'))).toEqual({ ...original, webhook });
    rmSync(folder, { recursive: true });
  });

  test.each([
    [200, 0],
    [503, 1],
  ])('Keycloak that answers %i: its health check ends with %i', async (httpStatus, exitCode) => {
    const keycloak = createServer((request, response) => {
      response.writeHead(request.url === '/health/ready' ? httpStatus : 404).end();
    });
    keycloak.listen(0, '127.0.0.1');
    await once(keycloak, 'listening');
    const { port } = keycloak.address() as AddressInfo;
    const [, ...command] = compose.services['keycloak']?.healthcheck?.test ?? [];
    const [file = '', ...args] = command.map((word) => word.replace('/9000', `/${port}`).replaceAll('$$', '$'));
    const [status] = await once(spawn(file, args, { stdio: 'ignore' }), 'exit');
    keycloak.close();
    expect(status).toBe(exitCode);
  });
});

test('the topic script creates every topic of the contracts', () => {
  const script = read('deploy/kafka/create-topics.sh');
  const created = [...script.matchAll(/^create (\S+) /gm)].map(([, topic]) => topic);
  const { roomEvents, livekitWebhooks } = topics;
  expect(created.sort()).toEqual(
    [...Object.values(topics), deadLetterTopic(roomEvents), deadLetterTopic(livekitWebhooks)].sort(),
  );
  expect(script).toContain(`--partitions ${defaultPartitionCount} `);
});

test.skipIf(process.platform === 'win32').each([
  ['', 1, 1],
  ['3', 3, 2],
])('topics with REPLICATION_FACTOR="%s" stand on %i brokers, of which %i have what is acknowledged', (...row) => {
  const [REPLICATION_FACTOR, replicas, acknowledging] = row;
  const folder = mkdtempSync(join(tmpdir(), 'topics-'));
  writeFileSync(join(folder, 'kafka-topics.sh'), '#!/bin/sh\necho "$@"\n', { mode: 0o755 });
  const { stdout } = spawnSync('sh', [join(root, 'deploy/kafka/create-topics.sh'), 'broker:9092'], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${folder}:${process.env['PATH']}`, REPLICATION_FACTOR },
  });
  rmSync(folder, { recursive: true });
  const calls = stdout.trim().split('\n');
  expect(calls).toHaveLength(5);
  for (const call of calls)
    expect(call).toContain(`--replication-factor ${replicas} --config min.insync.replicas=${acknowledging} `);
});

test('the images run the main files that are there', () => {
  const commands = [...read('Dockerfile').matchAll(/^CMD \["node", "(.+)"\]$/gm)].map(([, main = '']) => main);
  expect(commands).toEqual(['services/api/src/main.ts', 'services/room-worker/src/main.ts']);
  for (const main of commands) expect(existsSync(join(root, main))).toBe(true);
});

describe('the health checks of the images', () => {
  const checks = [...read('Dockerfile').matchAll(/^HEALTHCHECK .*? CMD (\[.+\])$/gm)].map(([, json = '']) => json);
  const proxied = { NODE_USE_ENV_PROXY: '1', HTTP_PROXY: 'http://127.0.0.1:1' };

  test.each(
    [
      [200, 0],
      [503, 1],
    ].flatMap(([status, exitCode]) => checks.map((check) => [status, exitCode, check] as const)),
  )('a service that answers %i: %i, past the proxy to the outside', async (httpStatus = 0, exitCode, check) => {
    const service = createServer(({ url }, response) => {
      response.writeHead(url === '/livez' ? httpStatus : 404).end();
    });
    service.listen(0, '127.0.0.1');
    await once(service, 'listening');
    const { port } = service.address() as AddressInfo;
    const env = { ...proxied, API_OPS_PORT: String(port), WORKER_OPS_PORT: String(port) };
    const [, ...args]: string[] = JSON.parse(check);
    const [code] = await once(spawn(process.execPath, args, { env, stdio: 'ignore' }), 'exit');
    service.close();
    expect(code).toBe(exitCode);
  });

  test('each has one', () => {
    expect(checks).toHaveLength(2);
  });
});

test('the images refuse what is for development alone', () => {
  expect(imageMode).toBe('production');
});
