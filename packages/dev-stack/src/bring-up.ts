import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { type StartSettings, workspaceRoot } from './config.ts';
import { createDemoDomain, type DemoDomain } from './demo/demo-domain.ts';
import { startDemoServer } from './demo/demo-server.ts';
import { connectIssuer, type IssuerClient } from './demo/issuer-client.ts';
import type { JoinProblem } from './demo/join-room.ts';
import { startGateProxyServer } from './gate-proxy.ts';
import { startIssuer } from './issuer.ts';
import { readOrMake } from './kept-file.ts';
import { startLivekit } from './livekit.ts';
import { requireNamedParts } from './named-parts.ts';
import { PartAbsent, type Report } from './part.ts';
import { startPostgres } from './postgres.ts';
import { startProcess } from './process-part.ts';
import { removeStalePostgresLock } from './run-lock.ts';
import type { Stack } from './stack.ts';

/** Brings everything up, in the order in which it is needed, and tells where it is. */
export async function bringUp(settings: StartSettings, stack: Stack, say: Report): Promise<void> {
  const startedAtMs = performance.now();
  await mkdir(logFolder(settings), { recursive: true });
  say(`Starting; data, keys and logs are kept in ${settings.DATA_DIR}`);

  await requireNamedParts(settings);
  const databaseUrl = settings.DATABASE_URL ?? (await stack.add('PostgreSQL', () => startDatabase(settings))).url;
  const issuer = settings.OIDC_ISSUER ?? (await stack.add('dev issuer', () => startDevIssuer(settings))).issuer;
  const livekit = await addLivekit(settings, stack, say);
  const env = { ...livekit, DATABASE_URL: databaseUrl, OIDC_ISSUER: issuer, ...serviceEnvironment(settings) };
  if (!existsSync(env.NODE_COMPILE_CACHE)) await stack.perform('sources', () => stripSources(env));
  await stack.add('api', () => startService('api', settings, env));
  const { LIVEKIT_API_URL: livekitUrl } = livekit;
  if (livekitUrl !== undefined) await stack.add('gate', () => startGate(settings, livekitUrl));
  await stack.add('room-worker', () => startService('room-worker', settings, env));
  const demo = await addDemo(settings, stack, { issuer, livekitUrl: livekit.LIVEKIT_URL });

  const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1);
  say(`\nReady after ${seconds} s.\n`);
  if ('absent' in demo) say(`${demo.absent}\n`);
  else say(`  demo page    ${local(settings.DEMO_PORT)}  (in two windows, as Ann and as Bob)`);
  say(addresses(settings, issuer, 'LIVEKIT_MAKE_ROOMS' in livekit ? 'absent' : livekit.LIVEKIT_URL));
  if ('tokenUrl' in demo) say(`\n${demo.changed ?? joinByHand(settings, demo.tokenUrl)}`);
  // The password of somebody's own database is not for the screen.
  const operatorsUrl = settings.DATABASE_URL === undefined ? databaseUrl : '...';
  const log = settings.KAFKA_BROKERS === undefined ? '' : `KAFKA_BROKERS='${settings.KAFKA_BROKERS}' `;
  const command = `DATABASE_URL='${operatorsUrl}' ${log}npm run -s realtime -- --help`;
  say(`\nOperators' commands, in another terminal:\n\n  ${command}`);
  say('\nCtrl-C ends everything.');
}

async function startDatabase({ DATA_DIR, POSTGRES_PORT }: StartSettings) {
  const dataDir = join(DATA_DIR, 'postgres');
  await removeStalePostgresLock(dataDir);
  return startPostgres({ dataDir, port: POSTGRES_PORT });
}

function startDevIssuer({ DATA_DIR, ISSUER_PORT }: StartSettings) {
  return startIssuer({ port: ISSUER_PORT, keysFile: join(DATA_DIR, 'issuer-keys.json') });
}

interface LivekitEnvironment {
  /** Behind the gate, where LiveKit is ours. */
  readonly LIVEKIT_URL: string;
  readonly LIVEKIT_API_URL?: string;
  /** The keys of somebody else's LiveKit are in the environment already. */
  readonly LIVEKIT_KEYS?: string;
  /** Where there is no LiveKit. */
  readonly LIVEKIT_MAKE_ROOMS?: 'false';
}

/** What the services are told of LiveKit. Where it cannot be had, that is said, and the rest goes on without it. */
async function addLivekit(settings: StartSettings, stack: Stack, say: Report): Promise<LivekitEnvironment> {
  if (settings.LIVEKIT_URL !== undefined) return { LIVEKIT_URL: settings.LIVEKIT_URL };
  const key = await readOrMake(join(settings.DATA_DIR, 'livekit-key.json'), LivekitKey, makeLivekitKey);
  const ports = { http: settings.LIVEKIT_PORT, tcp: settings.LIVEKIT_TCP_PORT, udp: settings.LIVEKIT_UDP_PORT };
  const environment = {
    LIVEKIT_URL: `ws://127.0.0.1:${settings.GATE_PORT}`,
    LIVEKIT_KEYS: `${key.name}: ${key.secret}`,
  };
  const webhookUrl = `${local(settings.WORKER_PORT)}/webhooks/livekit`;
  try {
    await stack.add('LiveKit', async () => {
      const livekit = await startLivekit({
        keys: { [key.name]: key.secret },
        webhookUrl,
        ports,
        report: (line) => say(`  ${line}`),
      });
      return { ...livekit, port: ports.http };
    });
    return { ...environment, LIVEKIT_API_URL: local(ports.http) };
  } catch (error) {
    if (!(error instanceof PartAbsent)) throw error;
    say(`  ${error.message}`);
    return { ...environment, LIVEKIT_MAKE_ROOMS: 'false' };
  }
}

/** Clients reach LiveKit by the gate alone. */
function startGate({ GATE_PORT, API_PORT }: StartSettings, livekitUrl: string) {
  return startGateProxyServer({ port: GATE_PORT, apiUrl: local(API_PORT), livekitUrl });
}

const LivekitKey = z.object({ name: z.string().min(1), secret: z.string().min(1) });

function makeLivekitKey(): z.infer<typeof LivekitKey> {
  return { name: 'dev', secret: randomBytes(32).toString('base64url') };
}

function serviceEnvironment(settings: StartSettings) {
  return {
    HOST: '127.0.0.1',
    NODE_COMPILE_CACHE: join(settings.DATA_DIR, 'compile-cache'),
    CORS_ORIGINS: process.env['CORS_ORIGINS'] || pageOrigins(settings).join(','),
    API_PORT: String(settings.API_PORT),
    API_OPS_PORT: String(settings.API_OPS_PORT),
    WORKER_PORT: String(settings.WORKER_PORT),
    WORKER_OPS_PORT: String(settings.WORKER_OPS_PORT),
  };
}

/** Both spellings are one page to people, and two origins to browsers. */
function pageOrigins({ DEMO_PORT }: StartSettings): readonly string[] {
  return [local(DEMO_PORT), `http://localhost:${DEMO_PORT}`];
}

type ServiceName = 'api' | 'room-worker';

function mainOf(name: ServiceName): string {
  return join(workspaceRoot, 'services', name, 'src', 'main.ts');
}

/** As the Dockerfile does: a service that strips its own sources of their types keeps 25 MB more. */
async function stripSources(env: NodeJS.ProcessEnv): Promise<void> {
  const services: ServiceName[] = ['api', 'room-worker'];
  const strip = promisify(execFile);
  await Promise.all(services.map((name) => strip(process.execPath, [mainOf(name), '--help'], { env })));
}

async function startService(name: ServiceName, settings: StartSettings, env: NodeJS.ProcessEnv) {
  const [port, opsPort] =
    name === 'api' ? [settings.API_PORT, settings.API_OPS_PORT] : [settings.WORKER_PORT, settings.WORKER_OPS_PORT];
  const part = await startProcess({
    name,
    command: process.execPath,
    args: [mainOf(name)],
    env,
    cwd: workspaceRoot,
    logFile: join(logFolder(settings), `${name}.log`),
    isReady: async () => (await fetch(`${local(opsPort)}/readyz`)).ok,
    startTimeoutMs: 60_000,
  });
  return { ...part, port };
}

/**
 * The demo room and its page; where the issuer gives tokens. Somebody else's issuer need not know ann, bob, cleo, dan
 * and the client `domain`, and nothing but the demo needs them.
 */
async function addDemo(
  settings: StartSettings,
  stack: Stack,
  where: { issuer: string; livekitUrl: string },
): Promise<{ tokenUrl: string; changed: string | undefined } | { absent: string }> {
  const apiUrl = local(settings.API_PORT);
  let issuer: IssuerClient;
  let domain: DemoDomain;
  try {
    issuer = await connectIssuer(where.issuer);
    domain = await createDemoDomain(apiUrl, issuer);
  } catch (error) {
    if (settings.OIDC_ISSUER === undefined || !(error instanceof Error)) throw error;
    return { absent: `  The demo is left out, since it needs the realm in deploy/keycloak: ${error.message}` };
  }
  const refusal = await stack.perform('demo room', domain.createRoom);
  await stack.add('demo page', () =>
    startDemoServer({ port: settings.DEMO_PORT, apiUrl, livekitUrl: where.livekitUrl, issuer, domain }),
  );
  return { tokenUrl: issuer.tokenUrl, changed: refusal && tellChange(settings, domain.roomId, refusal) };
}

function tellChange({ DATABASE_URL }: StartSettings, roomId: string, { code }: JoinProblem): string {
  if (code === 'projection_stale') {
    return (
      `The demo room ${roomId} admits nobody (${code}), while everything else works: a dead letter leaves it in doubt, ` +
      `or its facts are not applied. See "realtime dead-letters list", and docs/runbook.md.`
    );
  }
  const remedy = DATABASE_URL === undefined ? '"npm start -- --reset" brings' : 'an empty database brings';
  return (
    `The demo room ${roomId} was changed since it was made, so ann cannot join it, neither on the demo page nor by hand ` +
    `(${code}), while everything else works; ${remedy} it back.`
  );
}

function addresses(settings: StartSettings, issuer: string, livekitUrl: string): string {
  return Object.entries({
    api: local(settings.API_PORT),
    'api docs': `${local(settings.API_PORT)}/docs`,
    'api ops': `${local(settings.API_OPS_PORT)}/readyz`,
    'room-worker': `${local(settings.WORKER_PORT)}/webhooks/livekit`,
    'worker ops': `${local(settings.WORKER_OPS_PORT)}/readyz`,
    issuer,
    LiveKit: livekitUrl,
    'event log': settings.KAFKA_BROKERS ?? 'in PostgreSQL',
    logs: logFolder(settings),
  })
    .map(([what, address]) => `  ${what.padEnd(13)}${address}`)
    .join('\n');
}

/** Two lines for a POSIX shell, without any tool but curl and sed. */
function joinByHand(settings: StartSettings, tokenUrl: string): string {
  const form = ['grant_type', 'client_id', 'username', 'password'];
  const values = ['password', 'web', 'ann', 'ann'];
  const data = form.map((name, index) => `-d ${name}=${values[index]}`).join(' ');
  const shell = process.platform === 'win32' ? ' (in Git Bash or WSL)' : '';
  return `Join the room standup as ann${shell}:

  TOKEN=$(curl -s ${tokenUrl} ${data} | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
  curl -s -X POST ${local(settings.API_PORT)}/api/realtime/rooms/standup/join -H "Authorization: Bearer $TOKEN"`;
}

function logFolder({ DATA_DIR }: StartSettings): string {
  return join(DATA_DIR, 'logs');
}

function local(port: number): string {
  return `http://127.0.0.1:${port}`;
}
